"""What a caller's process does when news and answers may have been lost: its stream broke, or its controller was restarted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fray.errors import ActorDied, Unavailable
from fray.job.rpc.actors.hub import MAX_EARLY, ActorHub
from fray.job.rpc.actors.lane import ActorLane
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.errors import NotKnown
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.actors import ActorDesk
from fray.job.rpc.worker.core import Item
from fray.testing import eventually
from fray.types import TaskId
from stand_ins import Session, info, new_call, payloads

pytestmark = pytest.mark.unit

GENERATION = 1 << 32
"""So far apart are the versions of two lives of a controller."""
PENDING, ALIVE, RESTARTING, DEAD = (
    pb.ActorState.PENDING,
    pb.ActorState.ALIVE,
    pb.ActorState.RESTARTING,
    pb.ActorState.DEAD,
)


class Controller(Session):
    """A controller, and a worker behind it that hosts an actor; what goes through may be lost, either way."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, pb.ActorInfo] = {}
        self.asked: list[str] = []
        self.loses_calls = self.loses_answers = False
        self.hub: ActorHub | None = None
        self.given: list[tuple[str, int, str]] = []
        """Calls that came to the actor's executor."""
        self.desk = ActorDesk(self._take_frame, lambda: True)
        self.desk.open(Item(TaskId("a"), 1, "class", (), None, None, actor=True), 1)

    def restart(self, *known: pb.ActorInfo) -> None:
        """Begin another life, that knows these."""
        self.known = {found.actor_id: found for found in known}
        self.asked.clear()

    def ask_actor(self, method: str, request: pb.ActorRef) -> pb.ActorInfo:
        self.asked.append(request.actor_id)
        if request.actor_id not in self.known:
            raise NotKnown(f"no actor has the id {request.actor_id!r}")
        return self.known[request.actor_id]

    def send(self, calls: pb.ActorCalls) -> None:
        super().send(calls)
        if not self.loses_calls:
            self.desk.take(calls, Back(self))

    def answer(self, *seqs: int) -> None:
        """Let the actor answer calls."""
        self.desk.answered(TaskId("a"), [("session", seq, "", b"value", "") for seq in seqs])

    def _take_frame(self, number: int, frame: frames.Frame) -> None:
        if frame[0] == frames.CALL:
            self.given += [(caller, seq, payload.decode()) for caller, seq, _, payload, _ in frame[1]]


class Back:
    """The way of answers."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def send(self, answers: pb.ActorAnswers) -> None:
        if not self._controller.loses_answers and self._controller.hub is not None:
            self._controller.hub.take_answers(answers)


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def hub(controller: Controller) -> Iterator[ActorHub]:
    hub = controller.hub = ActorHub(controller, "token")
    yield hub
    hub.close()


@pytest.fixture
def lane(hub: ActorHub) -> ActorLane:
    return hub.open(info(ALIVE, 1, 2), "A", hub.period)


def test_all_actors_that_are_not_dead_are_asked_for_again(controller: Controller, hub: ActorHub) -> None:
    states = {"pending": PENDING, "alive": ALIVE, "restarting": RESTARTING, "dead": DEAD}
    known = [info(state, 1, 1, actor=name) for name, state in states.items()]
    for found in known:
        hub.open(found, "A", hub.period)
    controller.restart(*known)
    hub.resync()
    eventually(lambda: len(controller.asked) == 3, what="three are asked for")
    assert sorted(controller.asked) == ["alive", "pending", "restarting"]


def test_creation_that_was_pending_ends_when_the_next_life_of_the_controller_tells_how(
    controller: Controller, hub: ActorHub
) -> None:
    lanes = [hub.open(info(PENDING, 0, 1, actor=name), "A", hub.period) for name in ("made", "failed", "unknown")]
    controller.restart(info(ALIVE, 1, GENERATION, actor="made"), info(DEAD, 0, GENERATION, actor="failed"))
    hub.resync()
    assert lanes[0].created.result(timeout=20) is None
    for lane in lanes[1:]:
        with pytest.raises(ActorDied):
            lane.created.result(timeout=20)
        assert lane.ended.result(timeout=20) is None


def test_actor_that_the_next_life_of_the_controller_does_not_know_ends_with_all_its_calls(
    controller: Controller, hub: ActorHub, lane: ActorLane
) -> None:
    under_way, waiting = new_call(lane, retries=-1), new_call(lane, b"")
    waiting.ready = False
    for call in (under_way, waiting):
        lane.submit(call)
    controller.restart()
    hub.resync()
    for call in (under_way, waiting):
        with pytest.raises(ActorDied, match="does not know it any more"):
            call.future.result(timeout=20)
    assert lane.ended.result(timeout=20) is None
    late = new_call(lane)
    lane.submit(late)
    with pytest.raises(ActorDied):
        late.future.result(timeout=20)


def test_answers_that_were_lost_are_given_again_and_no_call_is_carried_out_twice(
    controller: Controller, hub: ActorHub, lane: ActorLane
) -> None:
    calls = [new_call(lane, name) for name in (b"one", b"two", b"three")]
    for call in calls:
        lane.submit(call)
    controller.loses_answers = True
    controller.answer(1, 2)
    controller.loses_answers = False
    controller.restart(info(ALIVE, 1, GENERATION))
    hub.resync()
    assert [call.future.result(timeout=20) for call in calls[:2]] == [b"value"] * 2
    controller.answer(3)
    assert calls[2].future.result(timeout=20) == b"value"
    assert controller.given == [("session", 1, "one"), ("session", 2, "two"), ("session", 3, "three")]


def test_calls_that_were_lost_are_sent_again_in_order(controller: Controller, hub: ActorHub, lane: ActorLane) -> None:
    controller.loses_calls = True
    for name in (b"one", b"two"):
        lane.submit(new_call(lane, name))
    controller.loses_calls = False
    lane.submit(new_call(lane, b"three"))
    assert controller.given == []  # the two before it are missing
    controller.restart(info(ALIVE, 1, GENERATION))
    hub.resync()
    eventually(lambda: len(controller.given) == 3, what="all have come")
    assert controller.given == [("session", 1, "one"), ("session", 2, "two"), ("session", 3, "three")]


def test_late_news_of_an_earlier_life_of_the_controller_changes_nothing(
    controller: Controller, hub: ActorHub, lane: ActorLane
) -> None:
    hub.take_info(info(ALIVE, 2, 2 * GENERATION))
    hub.take_info(info(RESTARTING, 1, GENERATION + 7))
    lane.submit(new_call(lane, b"goes"))
    assert payloads(controller.sent) == [b"goes"]


def test_creation_that_is_told_late_of_an_actor_that_has_ended_meanwhile_ends(controller: Controller, hub: ActorHub) -> None:
    period = hub.period
    hub.open(info(ALIVE, 1, 2), "A", period)  # another thread has got it by its name
    hub.take_info(info(DEAD, 1, 3))
    controller.restart(info(DEAD, 1, 3))
    late = hub.open(info(PENDING, 0, 1), "A", period)
    with pytest.raises(ActorDied):
        late.created.result(timeout=20)


def test_news_that_comes_before_a_creation_is_told_of_is_not_lost_among_many(controller: Controller, hub: ActorHub) -> None:
    period = hub.period
    hub.take_info(info(DEAD, 1, 2))
    for number in range(MAX_EARLY):
        hub.take_info(info(ALIVE, 1, 1, actor=f"other{number}"))
    controller.restart(info(DEAD, 1, 2))
    lane = hub.open(info(PENDING, 0, 1), "A", period)
    with pytest.raises(ActorDied):
        lane.created.result(timeout=20)


def test_actor_that_is_known_is_not_asked_for_again_by_who_gets_it_by_name(controller: Controller, hub: ActorHub) -> None:
    period = hub.period
    hub.open(info(ALIVE, 1, 1), "A", period)
    hub.open(info(DEAD, 1, 1, actor="b"), "B", period)
    controller.restart(info(ALIVE, 1, 1, actor="c"))
    hub.open(info(ALIVE, 1, 1), "A", period)
    hub.open(info(PENDING, 0, 0, actor="c"), "C", period).created.result(timeout=20)
    assert controller.asked == ["c"]


def test_context_that_closes_while_its_actors_are_asked_for_lets_no_call_hang(controller: Controller, hub: ActorHub) -> None:
    is_asked, is_closing = threading.Event(), threading.Event()

    def ask(method: str, request: pb.ActorRef) -> pb.ActorInfo:
        is_asked.set()
        is_closing.wait(20)
        raise Unavailable("the context is closed")

    controller.ask_actor = ask  # type: ignore[method-assign]
    found = hub.find("a", "A")
    call = new_call(found)
    found.submit(call)
    assert is_asked.wait(20)
    is_closing.set()
    hub.close()
    with pytest.raises(ActorDied):
        call.future.result(timeout=20)
    with pytest.raises(ActorDied):
        found.created.result(timeout=20)
    assert hub.open(info(ALIVE, 1, 1, actor="b"), "B", hub.period).ended.done()
