"""The part of a simulation's controller that is about actors: asked for, found, killed; calls and answers on their way through.

As the real service and driver, without an event loop; what waits for a session goes down its stream of results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fray.job.rpc.controller.core import actors
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import State, Task, TaskSpec
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire import convert
from fray.testing.simulation.world import Rejected, World
from fray.types import Incarnation, SessionId, TaskId

NO_ACTOR = "no such actor"
"""Why a request about an actor is rejected."""
NAME_TAKEN = "name taken"
"""Why an actor is not created."""


@dataclass(slots=True)
class Channel:
    """What waits for a session besides results."""

    answers: list[pb.ActorAnswers] = field(default_factory=list)
    infos: dict[str, pb.ActorInfo] = field(default_factory=dict)

    def take(self) -> tuple[list[pb.ActorAnswers], list[pb.ActorInfo]]:
        """Return answers and news; answers go before news."""
        answers, infos = self.answers, list(self.infos.values())
        self.answers, self.infos = [], {}
        return answers, infos


class Switch:
    """What the exchange needs of its controller."""

    def __init__(
        self,
        post: Callable[[ev.Event], None],
        call_worker: Callable[[Incarnation, pb.ActorCalls], None],
        wake_session: Callable[[SessionId], None],
        check_up: Callable[[], None],
        when_saved: Callable[[Callable[[], None], Callable[[], None]], None],
    ) -> None:
        self.post, self.call_worker, self.wake_session = post, call_worker, wake_session
        self.check_up, self.when_saved = check_up, when_saved


class Exchange:
    """One for each controller."""

    def __init__(self, world: World, state: State, switch: Switch) -> None:
        self._world, self._state, self._switch = world, state, switch
        self._channels: dict[SessionId, Channel] = {}

    def create(self, spec: TaskSpec, creator: SessionId, get_if_exists: bool) -> pb.ActorInfo:
        """Create an actor, or return the one that has its name."""
        self._switch.check_up()
        actor, now = spec.actor, self._world.now
        assert actor is not None
        if actors.find(self._state, spec.id) is None:
            owner = SessionId(spec.id) if actor.detached else creator
            self._switch.post(ev.ActorRequested(now, creator, replace(spec, session=owner)))
        task = actors.find(self._state, spec.id)
        if task is None:
            task = actors.find_named(self._state, actor.name)
            if task is None or not get_if_exists:
                raise Rejected(NAME_TAKEN)
        self._switch.post(ev.ActorWatched(now, creator, task.spec.id))
        return self.describe(task)

    def get(self, actor: TaskId, name: str, session: SessionId) -> pb.ActorInfo:
        """Return how an actor is, and tell the session of its changes."""
        self._switch.check_up()
        task = actors.find(self._state, actor) if actor else actors.find_named(self._state, name)
        if task is None:
            raise Rejected(NO_ACTOR)
        self._switch.post(ev.ActorWatched(self._world.now, session, task.spec.id))
        return self.describe(task)

    def kill(self, actor: TaskId) -> None:
        """End an actor."""
        self._switch.check_up()
        if actors.find(self._state, actor) is None:
            raise Rejected(NO_ACTOR)
        self._switch.post(ev.CancelRequested(self._world.now, [actor], "it was killed"))

    def relay(self, calls: pb.ActorCalls) -> None:
        """Pass calls on to the worker of an actor, or tell the caller that the incarnation is gone."""
        task = actors.find(self._state, TaskId(calls.actor_id))
        if task is not None and task.worker is not None and actors.is_ready(task, calls.incarnation):
            self._switch.call_worker(task.worker, calls)
            return
        gone = pb.ActorAnswers(actor_id=calls.actor_id, incarnation=calls.incarnation, caller=calls.caller, gone=True)
        self.pass_on(gone)

    def pass_on(self, answers: pb.ActorAnswers) -> None:
        """Pass answers on to their caller."""
        session = SessionId(answers.caller)
        self._channel(session).answers.append(answers)
        self._switch.wake_session(session)

    def tell(self, session: SessionId, task: Task) -> None:
        """Tell a session how an actor is now, when that is saved."""
        info = self.describe(task)

        def tell() -> None:
            self._channel(session).infos[task.spec.id] = info
            self._switch.wake_session(session)

        self.when_saved(tell, lambda: None)

    def take(self, session: SessionId) -> tuple[list[pb.ActorAnswers], list[pb.ActorInfo]]:
        """Return what waits for a session."""
        return self._channel(session).take()

    def end_session(self, session: SessionId) -> None:
        """Forget a session."""
        self._channels.pop(session, None)

    def when_saved(self, action: Callable[[], None], dropped: Callable[[], None]) -> None:
        """Do something when all that has happened so far is saved."""
        self._switch.when_saved(action, dropped)

    def restart(self, state: State) -> None:
        """Begin anew with the state of another life of the controller; what waited for sessions is lost."""
        self._state = state
        self._channels.clear()

    def _channel(self, session: SessionId) -> Channel:
        if session not in self._state.sessions:
            return Channel()
        return self._channels.setdefault(session, Channel())

    def describe(self, task: Task) -> pb.ActorInfo:
        """Return how an actor is."""
        return convert.actor_to_wire(self._state, task, self._world.now)
