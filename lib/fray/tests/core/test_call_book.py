"""The calls of one process to one actor, as their caller keeps them."""

from __future__ import annotations

from typing import Any

import pytest
from fray.job.rpc.actors.book import Call, CallBook

pytestmark = pytest.mark.unit

MANY = 1_000_000


def call(name: str, retries_left: int = 0, **fields: Any) -> Call:
    return Call(name, "method", b"x", retries_left=retries_left, **fields)


def alive(*names: str, incarnation: int = 1, retries_left: int = 0) -> CallBook:
    """Return a book whose calls were all sent to an incarnation."""
    book = CallBook()
    book.began(incarnation, 0.0)
    book.waiting.extend(call(name, retries_left) for name in names)
    book.take_batch(MANY, MANY)
    return book


def taken(book: CallBook, limit: int = MANY, max_bytes: int = MANY) -> list[tuple[int, str]]:
    return [(seq, found.future) for seq, found in book.take_batch(limit, max_bytes)]


def names(calls: list[Call]) -> list[str]:
    return [found.future for found in calls]


# --- sending


def test_calls_wait_until_the_actor_is_alive_and_are_numbered_from_one() -> None:
    book = CallBook()
    book.waiting.extend([call("a"), call("b")])
    assert taken(book) == []
    book.began(1, 0.0)
    assert taken(book) == [(1, "a"), (2, "b")]
    book.waiting.append(call("c"))
    assert taken(book) == [(3, "c")]


def test_batch_holds_no_more_calls_and_hardly_more_bytes_than_it_may() -> None:
    book = CallBook()
    book.began(1, 0.0)
    book.waiting.extend(call(name) for name in "abcde")
    assert taken(book, limit=2) == [(1, "a"), (2, "b")]
    assert taken(book, max_bytes=2) == [(3, "c"), (4, "d")]


def test_call_whose_arguments_are_not_there_holds_up_those_behind_it() -> None:
    book = CallBook()
    book.began(1, 0.0)
    late = call("late", ready=False)
    book.waiting.extend([call("a"), late, call("b")])
    assert taken(book) == [(1, "a")]
    late.ready = True
    assert taken(book) == [(2, "late"), (3, "b")]


def test_answer_settles_its_call_once() -> None:
    book = alive("a", "b")
    found = book.answered(1, 2)
    assert found is not None and found.future == "b"
    assert book.answered(1, 2) is None


def test_answer_of_another_incarnation_settles_nothing() -> None:
    book = alive("a", incarnation=2)
    assert book.answered(1, 1) is None
    assert book.answered(3, 1) is None
    assert book.answered(2, 1) is not None


def test_acknowledgement_goes_up_to_the_first_call_without_an_answer() -> None:
    book = alive("a", "b", "c")
    assert book.find_acked_seq() == 0
    book.answered(1, 2)
    assert book.find_acked_seq() == 0
    book.answered(1, 1)
    assert book.find_acked_seq() == 2
    book.answered(1, 3)
    assert book.find_acked_seq() == 3


# --- the end of an incarnation


def test_calls_under_way_when_the_incarnation_ends_are_lost_unless_they_may_be_made_again() -> None:
    book = alive()
    book.waiting.extend([call("a"), call("b", retries_left=1), call("c", retries_left=-1)])
    book.take_batch(MANY, MANY)
    assert names(book.ended(1, 5.0)) == ["a"]
    assert [(found.future, found.retries_left, found.waits_since) for found in book.waiting] == [("b", 0, 5.0), ("c", -1, 5.0)]


def test_calls_made_again_keep_their_place_before_those_that_waited() -> None:
    book = alive("a", "b", retries_left=1)
    book.waiting.append(call("c"))
    book.ended(1, 0.0)
    book.began(2, 0.0)
    assert taken(book) == [(1, "a"), (2, "b"), (3, "c")]


def test_next_incarnation_met_without_news_of_the_end_ends_the_one_before() -> None:
    book = alive("a")
    assert names(book.began(3, 0.0)) == ["a"]
    book.waiting.append(call("b"))
    assert (book.incarnation, taken(book)) == (3, [(1, "b")])


def test_news_of_an_older_incarnation_changes_nothing() -> None:
    book = alive("a", incarnation=2)
    assert book.ended(1, 0.0) == []
    assert book.began(1, 0.0) == []
    assert (book.incarnation, book.is_alive, list(book.sent)) == (2, True, [1])


def test_incarnation_that_begins_twice_keeps_its_numbers() -> None:
    book = alive("a")
    assert book.began(1, 0.0) == []
    book.waiting.append(call("b"))
    assert taken(book) == [(2, "b")]


def test_end_told_twice_loses_calls_once() -> None:
    book = alive("a", retries_left=2)
    book.ended(1, 0.0)
    assert book.ended(1, 0.0) == []
    assert book.waiting[0].retries_left == 1


def test_actor_over_for_good_returns_all_calls_in_order() -> None:
    book = alive("a", "b", retries_left=5)
    book.waiting.append(call("c"))
    assert names(book.clear()) == ["a", "b", "c"]
    assert (taken(book), book.clear()) == ([], [])


# --- an incarnation that retires


def test_refused_call_waits_for_the_next_incarnation_and_costs_no_retry() -> None:
    book = alive("a", "b")
    book.not_begun(1, [2], 7.0)
    assert taken(book) == []
    assert names(book.ended(1, 8.0)) == ["a"]
    book.began(2, 9.0)
    assert taken(book) == [(1, "b")]


@pytest.mark.parametrize("refusals", [[[2, 3]], [[3, 2]], [[2], [3]], [[3], [2]]])
def test_calls_refused_in_any_order_are_made_again_in_their_own(refusals: list[list[int]]) -> None:
    book = alive("a", "b", "c")
    book.waiting.append(call("d"))
    for seqs in refusals:
        book.not_begun(1, seqs, 0.0)
    book.answered(1, 1)
    book.began(2, 0.0)
    assert taken(book) == [(1, "b"), (2, "c"), (3, "d")]


def test_call_that_died_is_made_again_before_one_that_was_refused_after_it_was_made() -> None:
    book = alive("a", "b", "c", retries_left=1)
    book.not_begun(1, [2], 0.0)
    book.began(2, 0.0)
    assert taken(book) == [(1, "a"), (2, "b"), (3, "c")]


def test_refusal_of_another_incarnation_changes_nothing() -> None:
    book = alive("a", incarnation=2)
    book.not_begun(1, [1], 0.0)
    book.waiting.append(call("b"))
    assert taken(book) == [(2, "b")]


def test_refusal_told_twice_changes_nothing_more() -> None:
    book = alive("a", "b")
    book.not_begun(1, [2], 0.0)
    book.not_begun(1, [2], 0.0)
    book.began(2, 0.0)
    assert taken(book) == [(1, "b")]


# --- calls that nobody wants, and waiting too long


def test_waiting_call_that_is_dropped_is_never_sent() -> None:
    book = CallBook()
    book.waiting.extend([call("a"), call("b")])
    dropped = book.drop("a")
    assert isinstance(dropped, Call) and dropped.future == "a"
    book.began(1, 0.0)
    assert taken(book) == [(1, "b")]


def test_sent_call_that_is_dropped_is_named_by_its_number_and_stays_until_it_is_answered() -> None:
    book = alive("a", "b")
    assert book.drop("b") == 2
    assert book.answered(1, 2) is not None
    assert book.drop("b") is None


def test_calls_that_waited_too_long_for_the_actor_are_forgotten() -> None:
    book = CallBook()
    book.waiting.extend([call("a", waits_since=1.0), call("b", waits_since=2.0)])
    assert names(book.expire(5.9, 5.0)) == []
    assert names(book.expire(6.0, 5.0)) == ["a"]
    assert names(list(book.waiting)) == ["b"]


def test_calls_of_a_living_actor_do_not_expire_but_those_of_a_retiring_one_do() -> None:
    book = alive("a")
    book.waiting.append(call("b"))
    assert book.expire(100.0, 5.0) == []
    book.not_begun(1, [1], 100.0)
    assert book.expire(104.0, 5.0) == []  # what waited while the actor lived waits for it from now on
    assert names(book.expire(105.0, 5.0)) == ["a", "b"]
