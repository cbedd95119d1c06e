"""What a caller's process makes of news, broken ways and lives that end, without a cluster."""

from __future__ import annotations

import threading

import pytest
from fray.errors import ActorDied, ActorUnavailable
from fray.job.rpc.actors.hub import ActorHub
from fray.job.rpc.actors.lane import MAX_OUTSTANDING_BYTES
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import BATCH_BYTES
from fray.job.rpc.worker.actors import ActorDesk
from fray.job.rpc.worker.core import Item
from fray.testing import eventually
from fray.types import TaskId
from stand_ins import AnswerWire, BrokenWay, Session, Wire, info, new_call

pytestmark = pytest.mark.unit


def test_news_that_overtakes_the_answer_to_its_creation_counts(hub: ActorHub) -> None:
    hub.take_info(info(pb.ActorState.ALIVE, 1, 2))
    lane = hub.open(info(pb.ActorState.PENDING, 0, 1), "A", hub.period)
    assert lane.created.done()


def test_news_that_is_lost_between_a_question_and_its_answer_is_asked_for(hub: ActorHub, session: Session) -> None:
    period = hub.period
    hub.resync()  # the stream of news broke, and another one has begun
    lane = hub.open(info(pb.ActorState.PENDING, 0, 1), "A", period)
    eventually(lambda: lane.created.done(), what="the controller is asked how the actor is")


def test_way_that_is_broken_before_it_is_taken_is_not_relied_on(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A", hub.period)
    lane.take_route(BrokenWay(), 1)
    lane.submit(new_call(lane))
    eventually(lambda: any(message.calls for message in session.sent), what="the call goes another way")


def test_call_that_is_cancelled_before_its_arguments_are_there_counts_no_bytes(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A", hub.period)
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
    lane = hub.open(session.info, "A", hub.period)
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
    lane = hub.open(session.info, "A", hub.period)
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


def test_cancelled_call_is_not_made_again_on_the_next_life_and_cancels_nothing_there(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A", hub.period)
    cancelled = new_call(lane, b"cancelled", retries=-1)
    lane.submit(cancelled)
    lane.take_info(info(pb.ActorState.RESTARTING, 1, 2))
    assert cancelled.future.cancel()
    lane.submit(new_call(lane, b"innocent"))
    session.sent.clear()
    lane.take_info(info(pb.ActorState.ALIVE, 2, 3))
    assert [[call.payload for call in message.calls] for message in session.sent if message.calls] == [[b"innocent"]]
    assert [seq for message in session.sent for seq in message.cancel] == []


def test_call_under_way_that_is_cancelled_is_not_made_again(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A", hub.period)
    call = new_call(lane, retries=-1)
    lane.submit(call)
    assert call.future.cancel()
    assert [seq for message in session.sent for seq in message.cancel] == [1]
    session.sent.clear()
    lane.take_info(info(pb.ActorState.ALIVE, 2, 2))
    assert [seq for message in session.sent for seq in message.cancel] == []
    assert [call.payload for message in session.sent for call in message.calls] == []


def test_caller_that_waits_for_room_goes_on_when_others_expire_or_are_cancelled(hub: ActorHub, session: Session) -> None:
    session.info = info(pb.ActorState.RESTARTING, 1, 1)
    lane = hub.open(session.info, "A", hub.period)
    full = new_call(lane, bytes(MAX_OUTSTANDING_BYTES + 1))
    lane.submit(full)
    waiter = threading.Thread(target=lane.submit, args=[new_call(lane)])
    waiter.start()
    assert full.future.cancel()
    waiter.join(timeout=10)
    assert not waiter.is_alive()


def test_call_that_waits_for_its_arguments_holds_back_its_own_handle_alone(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A", hub.period)
    late, behind, other = (new_call(lane, payload) for payload in (b"", b"behind", b"other"))
    late.ready, late.handle, behind.handle, other.handle = False, 1, 1, 2
    for call in (late, behind, other):
        lane.submit(call)
    assert [call.payload for message in session.sent for call in message.calls] == [b"other"]
    lane.make_ready(late, b"late")
    assert [call.payload for message in session.sent for call in message.calls] == [b"other", b"late", b"behind"]


def test_call_whose_arguments_took_long_waits_for_a_restart_as_any_other(hub: ActorHub, session: Session) -> None:
    lane = hub.open(info(pb.ActorState.ALIVE, 1, 1, pending_timeout_s=0.2), "A", hub.period)
    late = new_call(lane, b"")
    late.ready = False
    lane.submit(late)
    late.waits_since -= 100  # so long ago
    session.info = info(pb.ActorState.RESTARTING, 1, 2, pending_timeout_s=10.0)
    lane.take_info(session.info)
    lane.make_ready(late, b"late")
    lane.take_info(info(pb.ActorState.ALIVE, 2, 3))
    assert not late.future.done()
    assert [call.payload for message in session.sent for call in message.calls] == [b"late"]


def test_answers_that_are_sent_again_go_in_messages_of_a_size_that_can_be_read() -> None:
    desk = ActorDesk(lambda number, frame: None, lambda: True)
    item = Item(TaskId("a"), 1, "class", (), None, None, actor=True)
    desk.open(item, 1)
    calls = [pb.ActorCall(seq=seq) for seq in range(1, 101)]
    desk.take(pb.ActorCalls(actor_id="a", incarnation=1, caller="session", calls=calls), AnswerWire())
    desk.answered(item.task, [("session", seq, "", bytes(BATCH_BYTES // 10), "") for seq in range(1, 101)])
    way = AnswerWire()
    desk.take(pb.ActorCalls(actor_id="a", incarnation=1, caller="session", calls=calls, way=1), way)
    assert [answer.seq for message in way.answers for answer in message.answers] == list(range(1, 101))
    assert (
        max(sum(len(answer.payload) for answer in message.answers) for message in way.answers)
        <= BATCH_BYTES + BATCH_BYTES // 10
    )


def test_call_that_came_to_a_worker_once_when_the_life_was_over_is_made_on_the_next(hub: ActorHub, session: Session) -> None:
    lane = hub.open(session.info, "A", hub.period)
    lane.take_route(Wire(), 1)
    once, twice = new_call(lane, b"once"), new_call(lane, b"twice")
    lane.submit(twice)
    lane.take_route(Wire(), 1)  # the way before broke, and the call may have been taken there
    lane.submit(once)
    lane.take_answers(pb.ActorAnswers(actor_id="a", incarnation=1, caller="session", gone=True, refused=[1, 2]))
    session.sent.clear()
    session.info = info(pb.ActorState.ALIVE, 2, 2)
    lane.take_info(session.info)
    with pytest.raises(ActorDied, match="may or may not"):
        twice.future.result(timeout=10)
    assert [call.payload for message in session.sent for call in message.calls] == [b"once"]


def test_answers_that_were_kept_back_stay_so_when_the_lease_was_renewed_too_late() -> None:
    wire = AnswerWire()
    lease = [True]
    desk = ActorDesk(lambda number, frame: None, lambda: lease[0])
    item = Item(TaskId("a"), 1, "class", (), None, None, actor=True)
    desk.open(item, 1)
    calls = pb.ActorCalls(actor_id="a", incarnation=1, caller="session", calls=[pb.ActorCall(seq=1)])
    desk.take(calls, wire)
    lease[0] = False
    desk.answered(item.task, [("session", 1, "", b"value", "")])
    desk.renew()  # the answer to a report that was sent long ago
    assert wire.answers == []
    lease[0] = True
    desk.renew()
    assert [answer.payload for message in wire.answers for answer in message.answers] == [b"value"]
