"""The life of sessions: one client's lease, which ends with the client."""

from __future__ import annotations

from fray.job.rpc.controller.core import tasks
from fray.job.rpc.controller.core.effects import Effect, EndSession
from fray.job.rpc.controller.core.events import SessionClosed, SessionOpened, SessionUnwatched, SessionWatched
from fray.job.rpc.controller.core.model import ErrorKind, Session, State
from fray.types import SessionId


def open_session(state: State, event: SessionOpened, out: list[Effect]) -> None:
    """Begin a lease. A session of a task whose own session has ended is not opened."""
    if event.session in state.sessions:
        return
    parent = state.sessions.get(event.parent) if event.parent else None
    if event.parent and (parent is None or parent.closed):
        return
    state.sessions[event.session] = Session(
        id=event.session,
        name=event.name,
        parent=event.parent,
        logs=event.logs,
        unwatched_since=event.now,
        anonymous=event.anonymous,
    )
    state.changes.change_session(state.sessions[event.session])
    if parent is not None:
        parent.children.add(event.session)
    if not event.anonymous:
        tasks.set_timer(state, event.now + state.limits.session_grace_s, "session", event.session)


def watch(state: State, event: SessionWatched, out: list[Effect]) -> None:
    """Note that the client is there."""
    session = state.sessions.get(event.session)
    if session is not None:
        session.watchers += 1


def unwatch(state: State, event: SessionUnwatched, out: list[Effect]) -> None:
    """Note that a stream ended; without any the client has a grace period to come back."""
    session = state.sessions.get(event.session)
    if session is None or session.watchers == 0:  # the stream of an earlier session of that id
        return
    session.watchers -= 1
    if session.watchers == 0:
        session.unwatched_since = event.now
        tasks.set_timer(state, event.now + state.limits.session_grace_s, "session", session.id)


def close(state: State, event: SessionClosed, out: list[Effect]) -> None:
    """End a lease on the client's word. Those that are no client's do not end so."""
    session = state.sessions.get(event.session)
    if session is not None and (session.anonymous or session.detached):
        return
    end(state, event.session, "its session was closed", event.now, out)


def check_watched(state: State, session_id: SessionId, now: float, out: list[Effect]) -> None:
    """End the lease of a client that has been away for the whole grace period."""
    session = state.sessions.get(session_id)
    if session is None or session.closed or session.watchers > 0 or session.anonymous or session.detached:
        return
    if session.unwatched_since + state.limits.session_grace_s <= now:
        state.stats["sessions expired"] += 1
        end(state, session_id, "its client went away", now, out)


def end(state: State, session_id: SessionId, why: str, now: float, out: list[Effect]) -> None:
    """End a lease, with those of its tasks' sessions and all that is not done; again is no change."""
    session = state.sessions.get(session_id)
    if session is None or session.closed:
        return
    session.closed = True
    tasks.resume(state, session_id)
    state.changes.change_session(session)
    for child in sorted(session.children):
        end(state, child, why, now, out)
    parent = state.sessions.get(session.parent) if session.parent else None
    if parent is not None:
        parent.children.discard(session_id)
    for task in session.outbox.values():
        task.acknowledged = True
        tasks.forget_if_unneeded(state, task)
    session.outbox.clear()
    for task in list(session.live.values()):
        if not task.state.is_final:
            tasks.stop(state, task, ErrorKind.CANCELLED, why, now, out)
    if not session.live and session_id in state.sessions:
        del state.sessions[session_id]
        state.changes.drop_session(session_id)
        out.append(EndSession(session_id))
