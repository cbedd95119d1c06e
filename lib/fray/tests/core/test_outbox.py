"""What a client sends: in order, once for each life of the controller, and kept until it is saved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fray.job.rpc.outbox import Entry, Outbox, Request
from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS

pytestmark = pytest.mark.unit

LIFE, NEXT_LIFE = 7, 8


@pytest.fixture
def outbox() -> Outbox:
    """That of a client that knows a controller."""
    box = Outbox()
    box.begin_generation(LIFE)
    return box


def put(box: Outbox, *names: str, size: int = 1, function: str = "f", code: bytes = b"code") -> None:
    """Let the client queue tasks; their specs are their names."""
    for name in names:
        box.entries.append(Entry(name, name, size, function, code, box.received_seq))


def put_calls(box: Outbox, *sizes: int) -> list[Any]:
    """Let the client queue calls of actors with arguments of so many bytes."""
    calls = [SimpleNamespace(calls=[SimpleNamespace(payload=bytes(size))]) for size in sizes]
    box.calls.extend(calls)
    return calls


def send(box: Outbox, saved: bool = False) -> Request:
    """Send the next request and have it answered at once."""
    request = box.next()
    box.sent(request, box.generation, saved)
    return request


# --- composing


def test_tasks_go_in_the_order_in_which_they_were_queued(outbox: Outbox) -> None:
    put(outbox, "a", "b")
    put(outbox, "c")
    assert outbox.next().tasks == ["a", "b", "c"]
    assert not outbox.entries


def test_requests_are_numbered_without_a_gap(outbox: Outbox) -> None:
    numbers = []
    for name in "abc":
        put(outbox, name)
        numbers.append(send(outbox).batch)
    assert numbers == [1, 2, 3]


def test_a_request_holds_so_many_tasks_and_no_more(outbox: Outbox) -> None:
    names = [str(i) for i in range(BATCH_ITEMS + 1)]
    put(outbox, *names)
    assert send(outbox).tasks == names[:-1]
    assert send(outbox).tasks == names[-1:]


def test_a_request_of_large_arguments_ends_early(outbox: Outbox) -> None:
    put(outbox, "a", "b", "c", size=BATCH_BYTES // 2)
    assert send(outbox).tasks == ["a", "b"]
    assert send(outbox).tasks == ["c"]


def test_the_code_of_a_function_goes_once_and_counts_as_its_arguments_do(outbox: Outbox) -> None:
    put(outbox, "a", code=bytes(BATCH_BYTES))
    put(outbox, "b")
    put(outbox, "c", function="g", code=b"other")
    first, second = send(outbox), send(outbox)
    assert (first.tasks, list(first.functions)) == (["a"], ["f"])
    assert (second.tasks, second.functions) == (["b", "c"], {"g": b"other"})


def test_calls_of_actors_go_behind_tasks_as_far_as_there_is_room(outbox: Outbox) -> None:
    put(outbox, "a", size=BATCH_BYTES // 2)
    first, second, third = put_calls(outbox, BATCH_BYTES // 4, BATCH_BYTES // 2, 1)
    assert send(outbox).calls == [first, second]
    assert outbox.has_news()
    assert send(outbox).calls == [third]
    assert not outbox.has_news()


def test_a_cancellation_does_not_go_before_its_task(outbox: Outbox) -> None:
    put(outbox, *[str(i) for i in range(BATCH_ITEMS)], "late")
    outbox.cancels += ["late", "3", "long ago"]
    assert send(outbox).cancels == ["3", "long ago"]
    last = send(outbox)
    assert (last.tasks, last.cancels) == (["late"], ["late"])
    assert not outbox.cancels


def test_nothing_queued_is_no_news(outbox: Outbox) -> None:
    assert not outbox.has_news()
    outbox.cancels.append("t")
    assert outbox.has_news()
    send(outbox)
    assert not outbox.has_news()


# --- repeating within one life


def test_a_request_without_an_answer_goes_again_as_it_is_and_before_what_is_new(outbox: Outbox) -> None:
    put(outbox, "answered")
    send(outbox)
    put(outbox, "a")
    request = outbox.next()
    assert outbox.has_unsent()
    put(outbox, "b")
    assert outbox.next() is request
    assert request.tasks == ["a"]
    outbox.sent(request, LIFE, saved=False)
    assert outbox.next().tasks == ["b"]


def test_a_request_that_was_answered_and_is_not_saved_is_kept_and_not_sent_again(outbox: Outbox) -> None:
    put(outbox, "a")
    request = send(outbox)
    assert list(outbox.kept) == [request]
    assert not outbox.has_unsent()
    assert not outbox.has_news()


def test_an_answer_that_all_is_saved_drops_all_up_to_its_request(outbox: Outbox) -> None:
    for name in "ab":
        put(outbox, name)
        send(outbox)
    put(outbox, "c")
    send(outbox, saved=True)
    assert not outbox.kept


def test_news_of_a_saved_batch_drop_it_and_those_before_and_none_behind(outbox: Outbox) -> None:
    sent = []
    for name in "abc":
        put(outbox, name)
        sent.append(send(outbox))
    outbox.forget(2)
    assert list(outbox.kept) == [sent[2]]
    outbox.forget(1)
    assert list(outbox.kept) == [sent[2]]


def test_a_saved_batch_whose_answer_is_still_on_its_way_is_kept(outbox: Outbox) -> None:
    put(outbox, "a")
    request = outbox.next()
    outbox.forget(request.batch)
    assert outbox.next() is request


# --- acknowledging results


def test_results_are_acknowledged_by_the_request_that_follows_them_and_count_when_it_is_answered(outbox: Outbox) -> None:
    outbox.received_seq = 5
    request = outbox.next()
    assert request.acked_seq == 5
    assert outbox.acked_seq == 0
    outbox.sent(request, LIFE, saved=False)
    assert outbox.acked_seq == 5


def test_results_on_which_a_queued_task_may_depend_are_not_acknowledged_before_it_is_sent(outbox: Outbox) -> None:
    outbox.received_seq = 2
    put(outbox, *[str(i) for i in range(BATCH_ITEMS + 1)])
    outbox.received_seq = 9
    assert send(outbox).acked_seq == 2
    assert send(outbox).acked_seq == 9


def test_an_answer_to_an_older_request_takes_no_acknowledgement_back(outbox: Outbox) -> None:
    outbox.received_seq = 3
    older = outbox.next()
    outbox.sent(older, LIFE, saved=False)
    outbox.received_seq = 6
    send(outbox)
    outbox.sent(older, LIFE, saved=False)
    assert outbox.acked_seq == 6


# --- another life of the controller


def test_a_later_life_gets_again_what_the_earlier_one_had_not_saved_in_order_and_before_what_is_new(outbox: Outbox) -> None:
    for name in "abc":
        put(outbox, name)
        send(outbox, saved=name == "a")
    put(outbox, "d")
    assert outbox.begin_generation(NEXT_LIFE)
    assert outbox.has_unsent()
    again = [send(outbox) for _ in range(3)]
    assert [(request.batch, request.tasks) for request in again] == [(2, ["b"]), (3, ["c"]), (4, ["d"])]
    assert {request.generation for request in again} == {NEXT_LIFE}
    assert not outbox.has_news()


def test_what_goes_again_takes_its_code_and_its_cancellations_along(outbox: Outbox) -> None:
    put(outbox, "a")
    outbox.cancels.append("long ago")
    send(outbox)
    outbox.begin_generation(NEXT_LIFE)
    again = send(outbox)
    assert (again.functions, again.cancels) == ({"f": b"code"}, ["long ago"])


def test_results_are_numbered_anew_by_a_later_life(outbox: Outbox) -> None:
    outbox.received_seq = 4
    put(outbox, "a")
    unsaved = send(outbox)
    put(outbox, "b")
    assert (unsaved.acked_seq, outbox.acked_seq) == (4, 4)
    outbox.begin_generation(NEXT_LIFE)
    assert (outbox.received_seq, outbox.acked_seq) == (0, 0)
    assert [send(outbox).acked_seq, send(outbox).acked_seq] == [0, 0]


def test_what_goes_again_acknowledges_nothing_and_the_next_one_does(outbox: Outbox) -> None:
    outbox.received_seq = 5
    put(outbox, "a")
    send(outbox)
    outbox.begin_generation(NEXT_LIFE)
    outbox.received_seq = 3
    again = outbox.next()
    assert (again.acked_seq, outbox.make_room(again).acked_seq) == (0, 0)
    outbox.sent(again, NEXT_LIFE, saved=False)
    assert send(outbox).acked_seq == 3


def test_tasks_queued_in_an_earlier_life_hold_no_number_of_it(outbox: Outbox) -> None:
    outbox.received_seq = 9
    put(outbox, *[str(i) for i in range(BATCH_ITEMS + 1)])
    outbox.begin_generation(NEXT_LIFE)
    outbox.received_seq = 1
    assert send(outbox).acked_seq == 0
    assert send(outbox).acked_seq == 1


def test_the_answer_of_a_life_that_is_over_counts_for_nothing(outbox: Outbox) -> None:
    outbox.received_seq = 2
    put(outbox, "a")
    request = outbox.next()
    outbox.begin_generation(NEXT_LIFE)
    outbox.sent(request, LIFE, saved=True)
    assert outbox.next() is request
    assert outbox.acked_seq == 0


@pytest.mark.parametrize("earlier", [LIFE, LIFE - 1])
def test_the_same_life_and_an_earlier_one_begin_nothing(outbox: Outbox, earlier: int) -> None:
    put(outbox, "a")
    send(outbox)
    outbox.received_seq = 1
    assert not outbox.begin_generation(earlier)
    assert (outbox.generation, outbox.received_seq, outbox.has_unsent()) == (LIFE, 1, False)


def test_the_first_life_that_a_client_meets_begins_nothing_anew_but_its_number() -> None:
    box = Outbox()
    put(box, "a")
    assert box.begin_generation(LIFE)
    request = send(box)
    assert (request.batch, request.tasks, request.generation) == (1, ["a"], LIFE)


# --- a controller that has no room


def test_a_refused_request_is_followed_by_what_makes_room_and_then_goes_again(outbox: Outbox) -> None:
    outbox.received_seq = 3
    put(outbox, "a")
    outbox.cancels.append("b")
    refused = outbox.next()
    outbox.cancels.append("c")
    (call,) = put_calls(outbox, 10)
    small = outbox.make_room(refused)
    assert (small.batch, small.tasks, small.cancels, small.calls, small.acked_seq) == (0, [], ["b", "c"], [call], 3)
    assert small.generation == LIFE
    assert outbox.next() is refused
    assert refused.tasks == ["a"]


def test_what_makes_room_acknowledges_no_result_on_which_the_refused_request_may_depend(outbox: Outbox) -> None:
    outbox.received_seq = 2
    put(outbox, "a")
    outbox.received_seq = 9
    refused = outbox.next()
    assert refused.acked_seq == 9
    assert outbox.make_room(refused).acked_seq == 2


def test_calls_that_were_to_make_room_and_had_no_answer_come_first_again(outbox: Outbox) -> None:
    put(outbox, "a")
    refused = outbox.next()
    first, second = put_calls(outbox, 1, 2)
    small = outbox.make_room(refused)
    assert not outbox.calls
    (third,) = put_calls(outbox, 3)
    outbox.put_back(small)
    assert list(outbox.calls) == [first, second, third]


def test_cancellations_that_made_room_go_once_more_in_order_with_the_next_request(outbox: Outbox) -> None:
    put(outbox, "a")
    refused = outbox.next()
    outbox.cancels.append("b")
    outbox.make_room(refused)
    outbox.sent(refused, LIFE, saved=True)
    assert send(outbox).cancels == ["b"]


def test_what_makes_room_takes_along_the_cancellations_and_calls_of_requests_that_wait(outbox: Outbox) -> None:
    put(outbox, "a")
    first = send(outbox)
    outbox.cancels.append("a")
    (call,) = put_calls(outbox, 1)
    send(outbox)
    outbox.begin_generation(NEXT_LIFE)  # both go again, and the first is refused
    assert outbox.next() is first
    room = outbox.make_room(first)
    assert (room.tasks, room.cancels, room.calls) == ([], ["a"], [call])
    assert outbox.next() is first
