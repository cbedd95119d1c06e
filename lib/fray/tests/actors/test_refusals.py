"""What a lane makes of a worker that takes no calls, and of calls that are lost, refused or cancelled on their way."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from fray.errors import ActorDied
from fray.job.rpc.actors.hub import ActorHub
from fray.job.rpc.actors.lane import MAX_RELOCATE_S, RELOCATE_S, ActorLane
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import BATCH_BYTES
from fray.serialization import capture_failure, encode_failure
from fray.testing import eventually
from stand_ins import PatientHub, Session, Wire, answered, info, new_call, payloads

pytestmark = pytest.mark.unit

ALIVE = info(pb.ActorState.ALIVE, 1, 1)


def new_lane(patient: Any) -> ActorLane:
    lane = ActorLane(patient, "a", "A")
    lane.take_info(ALIVE)
    return lane


def refuse_all(lane: ActorLane, patient: PatientHub) -> int:
    """Refuse every message that was sent, as a worker without a lease does; return how many those were."""
    sent = patient.take_sent()
    for _ in sent:
        lane.take_answers(answered(1, gone=True))
    return len(sent)


def test_refusals_of_many_messages_are_followed_by_one_question_each_time() -> None:
    patient = PatientHub()
    lane = new_lane(patient)
    for _ in range(3):
        lane.submit(new_call(lane, bytes(BATCH_BYTES)))
    rounds = []
    for _ in range(6):
        refused = refuse_all(lane, patient)
        rounds.append((refused, len(patient.answer(ALIVE))))
    assert rounds == [(3, 1)] * 6


def test_worker_that_goes_on_refusing_is_asked_for_ever_more_rarely_until_it_answers() -> None:
    patient = PatientHub()
    lane = new_lane(patient)
    delays: list[float] = []
    lane.submit(new_call(lane))
    for _ in range(6):
        refuse_all(lane, patient)
        delays += patient.answer(ALIVE)
    assert delays[0] == RELOCATE_S
    assert delays == sorted(delays)
    assert delays[-1] == MAX_RELOCATE_S
    lane.take_answers(answered(1, 1))
    lane.submit(new_call(lane))
    refuse_all(lane, patient)
    assert patient.answer(ALIVE) == [RELOCATE_S]


def test_refusal_after_news_that_overtook_the_answer_to_a_question_is_followed_by_another_question() -> None:
    patient = PatientHub()
    lane = new_lane(patient)
    lane.submit(new_call(lane))
    refuse_all(lane, patient)
    news = info(pb.ActorState.ALIVE, 1, 3)
    lane.take_info(news)  # its worker has attached again: all is sent
    refuse_all(lane, patient)
    lane.take_info(info(pb.ActorState.ALIVE, 1, 2))  # the answer: it is older
    del patient.questions[0]
    patient.answer(news)
    assert payloads(patient.take_sent()) == [b"x"]


def test_question_that_fails_in_an_unforeseen_way_is_asked_again(session: Session, hub: ActorHub) -> None:
    lane = hub.open(ALIVE, "A", hub.period)
    answers: list[Any] = [RuntimeError("the network has gone mad"), info(pb.ActorState.ALIVE, 2, 2)]

    def ask(method: str, request: pb.ActorRef) -> pb.ActorInfo:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    call = new_call(lane, retries=1)
    lane.submit(call)
    session.ask_actor = ask  # type: ignore[method-assign]
    lane.take_answers(answered(1, gone=True))
    eventually(lambda: [message.incarnation for message in session.sent if message.calls] == [1, 2], what="it goes to the next")


def test_calls_whose_sender_was_interrupted_are_sent_again(hub: ActorHub, session: Session) -> None:
    class Interrupted(Wire):
        def send(self, calls: pb.ActorCalls) -> None:
            raise KeyboardInterrupt

    lane = hub.open(session.info, "A", hub.period)
    lane.take_route(Interrupted(), 1)
    with pytest.raises(KeyboardInterrupt):
        lane.submit(new_call(lane, b"first"))
    eventually(lambda: payloads(session.sent) == [b"first"], what="the call goes another way")


def test_actor_at_an_address_that_is_none_is_called_through_the_controller(hub: ActorHub, session: Session) -> None:
    lane = hub.open(info(pb.ActorState.ALIVE, 1, 1, address="nonsense"), "A", hub.period)
    lane.submit(new_call(lane))
    eventually(lambda: payloads(session.sent) == [b"x"], what="the call goes through the controller")


def leave(future: object) -> None:
    sys.exit("as if this were the main thread")


def test_answers_behind_one_whose_callback_exits_arrive(caplog: pytest.LogCaptureFixture) -> None:
    lane = new_lane(PatientHub())
    first, second = new_call(lane), new_call(lane)
    first.future.add_done_callback(leave)
    for call in (first, second):
        lane.submit(call)
    lane.take_answers(answered(1, 1, 2))
    assert [call.future.result(timeout=0) for call in (first, second)] == [b"1", b"2"]
    assert "a callback of the future of A.m failed" in caplog.text


def test_answers_behind_an_exception_that_takes_no_notes_arrive() -> None:
    lane = new_lane(PatientHub())
    first, second = new_call(lane), new_call(lane)
    for call in (first, second):
        lane.submit(call)
    error = ValueError("the user's")
    error.__notes__ = "no list"  # type: ignore[assignment]
    failed = pb.ActorAnswer(seq=1, error_kind=pb.ErrorKind.USER, payload=encode_failure(capture_failure(error)))
    message = answered(1, 2)
    message.answers = [failed, *message.answers]
    lane.take_answers(message)
    assert first.future.exception(timeout=0) is not None
    assert second.future.result(timeout=0) == b"2"


# --- cancelled calls


def test_cancellation_that_may_be_lost_is_sent_again_after_the_call() -> None:
    lane = new_lane(PatientHub())
    first, second = Wire(), Wire()
    lane.take_route(first, 1)
    kept, cancelled = new_call(lane, bytes(BATCH_BYTES)), new_call(lane, b"cancelled")
    for call in (kept, cancelled):
        lane.submit(call)
    assert cancelled.future.cancel()
    lane.take_route(second, 1)  # the first one broke
    assert [([call.seq for call in message.calls], list(message.cancel)) for message in second.sent] == [([1], []), ([2], [2])]


@pytest.mark.parametrize("drains", [True, False])
def test_cancelled_call_that_is_refused_is_not_made_on_the_next_life(drains: bool) -> None:
    patient = PatientHub()
    lane = new_lane(patient)
    wire = Wire()
    lane.take_route(wire, 1)
    cancelled, kept = new_call(lane, b"cancelled"), new_call(lane, b"kept")
    for call in (cancelled, kept):
        lane.submit(call)
    assert cancelled.future.cancel()
    if drains:
        refusals = [pb.ActorAnswer(seq=seq, error_kind=pb.ErrorKind.LOST) for seq in (1, 2)]
        lane.take_answers(pb.ActorAnswers(actor_id="a", incarnation=1, caller="session", answers=refusals))
    else:
        lane.take_answers(answered(1, gone=True, refused=[1, 2]))
    lane.take_info(info(pb.ActorState.ALIVE, 2, 2))
    assert payloads(patient.sent) == [b"kept"]


# --- waiting


def test_wait_that_ends_while_another_has_begun_leaves_no_timer_behind(hub: ActorHub, session: Session) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def ask(method: str, request: pb.ActorRef) -> pb.ActorInfo:
        is_asked.set()
        may_answer.wait(20)
        return session.info

    session.ask_actor = ask  # type: ignore[method-assign]
    lane = hub.open(info(pb.ActorState.RESTARTING, 1, 1, pending_timeout_s=0.01), "A", hub.period)
    first, second = new_call(lane), new_call(lane)
    lane.submit(first)
    assert is_asked.wait(20)
    lane.take_info(info(pb.ActorState.ALIVE, 2, 2))
    session.info = info(pb.ActorState.RESTARTING, 2, 3)
    lane.take_info(session.info)
    with pytest.raises(ActorDied):
        first.future.result(timeout=20)
    lane.submit(second)
    may_answer.set()
    eventually(lambda: len(waits()) == 1, what="the wait that is over has ended")
    hub.close()
    eventually(lambda: not waits(), what="nothing waits any more")


def waits() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fray-actor-wait"]
