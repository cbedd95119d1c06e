"""What a caller's process makes of news, broken ways and lives that end, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fray.errors import ActorDied, ActorUnavailable
from fray.job.rpc.actors.book import Call
from fray.job.rpc.actors.hub import ActorHub
from fray.job.rpc.actors.lane import MAX_OUTSTANDING_BYTES, ActorLane
from fray.job.rpc.futures import ActorFuture
from fray.job.rpc.proto import fray_pb as pb
from fray.testing import eventually

pytestmark = pytest.mark.unit


class Session:
    """Stands for a session: what the controller knows, and what was sent through it."""

    id = "session"
    is_broken = False

    def __init__(self) -> None:
        self.info = info(pb.ActorState.ALIVE, 1, 1)
        self.sent: list[pb.ActorCalls] = []

    def ask_actor(self, method: str, request: pb.ActorRef) -> pb.ActorInfo:
        return self.info

    def send(self, calls: pb.ActorCalls) -> None:
        self.sent.append(calls)

    def is_own_thread(self) -> bool:
        return False


class BrokenWay:
    """A way to a worker that leads nowhere."""

    is_broken = True

    def send(self, calls: pb.ActorCalls) -> None:
        """Lose them."""


def info(state: pb.ActorState, incarnation: int, version: int, pending_timeout_s: float = 60.0) -> pb.ActorInfo:
    settings = pb.ActorSettings(pending_timeout_s=pending_timeout_s)
    return pb.ActorInfo(
        actor_id="a", state=state, incarnation=incarnation, version=version, settings=settings, reason="so it is"
    )


def new_call(lane: ActorLane, payload: bytes = b"x", **settings: int) -> Call:
    future = ActorFuture("A.m", lambda payload: payload, lane.cancel)
    return Call(future, "m", payload, retries_left=settings.get("retries", 0))


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def hub(session: Session) -> Iterator[ActorHub]:
    hub = ActorHub(session, "token")
    yield hub
    hub.close()


def test_news_that_overtakes_the_answer_to_its_creation_counts(hub: ActorHub) -> None:
    hub.take_info(info(pb.ActorState.ALIVE, 1, 2))
    lane = hub.open(info(pb.ActorState.PENDING, 0, 1), "A")
    assert lane.created.done()


def test_way_that_is_broken_before_it_is_taken_is_not_relied_on(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A")
    lane.take_route(BrokenWay(), 1)
    lane.submit(new_call(lane))
    eventually(lambda: any(message.calls for message in session.sent), what="the call goes another way")


def test_call_that_is_cancelled_before_its_arguments_are_there_counts_no_bytes(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A")
    payload = bytes(MAX_OUTSTANDING_BYTES // 8)
    for _ in range(20):
        late = new_call(lane, b"")
        late.ready = False
        lane.submit(late)
        assert late.future.cancel()
        lane.make_ready(late, payload)
    lane.submit(new_call(lane))  # would block
    assert [call.payload for message in session.sent for call in message.calls] == [b"x"]


def test_call_that_may_have_been_carried_out_is_not_said_to_be_unavailable(hub: ActorHub, session: Session) -> None:
    session.info = info(pb.ActorState.ALIVE, 1, 1, pending_timeout_s=0.05)
    lane = hub.open(session.info, "A")
    begun, fresh = new_call(lane, retries=1), new_call(lane)
    lane.submit(begun)
    session.info = info(pb.ActorState.RESTARTING, 1, 2, pending_timeout_s=0.05)
    lane.take_info(session.info)
    lane.submit(fresh)
    with pytest.raises(ActorDied, match="may or may not"):
        begun.future.result(timeout=10)
    with pytest.raises(ActorUnavailable, match="not carried out"):
        fresh.future.result(timeout=10)


def test_answers_of_a_life_that_is_over_settle_nothing(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A")
    call = new_call(lane, retries=-1)
    lane.submit(call)
    session.info = info(pb.ActorState.ALIVE, 2, 2)
    lane.take_info(session.info)
    late = pb.ActorAnswers(actor_id="a", incarnation=1, caller="session", answers=[pb.ActorAnswer(seq=1, payload=b"old")])
    lane.take_answers(late)
    assert not call.future.done()
    late.incarnation, late.answers[0].payload = 2, b"new"
    lane.take_answers(late)
    assert call.future.result(timeout=10) == b"new"
