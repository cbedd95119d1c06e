"""What lanes and hubs meet, without a cluster: a session, a hub that asks only when told to, and ways to a worker."""

from __future__ import annotations

from typing import Any

from fray.job.rpc.actors.book import Call
from fray.job.rpc.actors.lane import ActorLane
from fray.job.rpc.futures import ActorFuture
from fray.job.rpc.proto import fray_pb as pb


class Session:
    """Stands for a session: what the controller knows, and what was sent through it."""

    id = "session"
    is_broken = False
    delivers_once = False

    def __init__(self) -> None:
        self.info = info(pb.ActorState.ALIVE, 1, 1)
        self.sent: list[pb.ActorCalls] = []

    def ask_actor(self, method: str, request: pb.ActorRef) -> pb.ActorInfo:
        return self.info

    def send(self, calls: pb.ActorCalls) -> None:
        self.sent.append(calls)

    def is_own_thread(self) -> bool:
        return False


class PatientHub:
    """A hub whose questions wait until the test answers them; the only way is through the controller."""

    session_id = "session"
    is_broken = False
    delivers_once = False

    def __init__(self) -> None:
        self.questions: list[tuple[ActorLane, float]] = []
        self.sent: list[pb.ActorCalls] = []

    def answer(self, known: pb.ActorInfo) -> list[float]:
        """Answer all questions; return after how long each was to be asked."""
        questions, self.questions = self.questions, []
        for lane, _ in questions:
            lane.take_info(known)
        return [delay_s for _, delay_s in questions]

    def take_sent(self) -> list[pb.ActorCalls]:
        sent, self.sent = self.sent, []
        return sent

    # --- what lanes ask for

    def connect(self, lane: ActorLane, known: pb.ActorInfo) -> None:
        way: Any = self
        lane.take_route(way, known.incarnation)

    def send(self, calls: pb.ActorCalls) -> None:
        self.sent.append(calls)

    def locate_later(self, lane: ActorLane, delay_s: float) -> None:
        self.questions.append((lane, delay_s))

    def pump_soon(self, lane: ActorLane) -> None:
        lane.pump()

    def may_block(self) -> bool:
        return False


class Wire:
    """A way to a worker that works."""

    is_broken = False
    delivers_once = True

    def __init__(self) -> None:
        self.sent: list[pb.ActorCalls] = []

    def send(self, calls: pb.ActorCalls) -> None:
        self.sent.append(calls)


class BrokenWay:
    """A way to a worker that leads nowhere."""

    is_broken = True
    delivers_once = True

    def send(self, calls: pb.ActorCalls) -> None:
        """Lose them."""


class AnswerWire:
    """The way back to a caller."""

    def __init__(self) -> None:
        self.answers: list[pb.ActorAnswers] = []

    def send(self, answers: pb.ActorAnswers) -> None:
        self.answers.append(answers)


def info(
    state: pb.ActorState, incarnation: int, version: int, pending_timeout_s: float = 60.0, actor: str = "a", address: str = ""
) -> pb.ActorInfo:
    """Return what the controller tells of an actor."""
    settings = pb.ActorSettings(pending_timeout_s=pending_timeout_s)
    return pb.ActorInfo(
        actor_id=actor,
        state=state,
        incarnation=incarnation,
        version=version,
        settings=settings,
        reason="so it is",
        lane_address=address,
    )


def new_call(lane: ActorLane, payload: bytes = b"x", **settings: int) -> Call:
    """Return a call that its lane can cancel."""
    future = ActorFuture("A.m", lambda payload: payload, lane.cancel)
    return Call(future, "m", payload, retries_left=settings.get("retries", 0))


def answered(incarnation: int, *seqs: int, **more: Any) -> pb.ActorAnswers:
    """Return a worker's answers, each with its number as its value."""
    answers = [pb.ActorAnswer(seq=seq, payload=str(seq).encode()) for seq in seqs]
    return pb.ActorAnswers(actor_id="a", incarnation=incarnation, caller="session", answers=answers, **more)


def payloads(sent: list[pb.ActorCalls]) -> list[bytes]:
    """Return the arguments of the calls in some messages."""
    return [call.payload for message in sent for call in message.calls]
