"""The calls of an actor as its worker sees them; and caller and worker joined by a bad channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from fray.job.rpc.actors.book import Call, CallBook
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.actors import ActorDesk
from fray.job.rpc.worker.mailbox import Mailbox
from fray.types import TaskId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

pytestmark = pytest.mark.unit

MANY = 1_000_000
EXECUTOR = 7


@dataclass(frozen=True)
class Letter:
    """A call or an answer."""

    seq: int


def letters(*seqs: int) -> list[Letter]:
    return [Letter(seq) for seq in seqs]


def seqs(found: Iterable[Letter]) -> list[int]:
    return [letter.seq for letter in found]


@pytest.fixture
def mailbox() -> Mailbox[Letter, Letter]:
    return Mailbox()


# --- a mailbox


def test_calls_are_taken_in_their_callers_order_however_they_arrive(mailbox: Any) -> None:
    assert seqs(mailbox.take("c", 0, letters(3, 2))[0]) == []
    assert seqs(mailbox.take("c", 0, letters(1))[0]) == [1, 2, 3]
    assert seqs(mailbox.take("c", 0, letters(5, 4))[0]) == [4, 5]


def test_call_that_comes_again_before_its_answer_is_not_taken_again(mailbox: Any) -> None:
    mailbox.take("c", 0, letters(1))
    assert mailbox.take("c", 0, letters(1)) == ([], [])


def test_call_that_comes_again_after_its_answer_gets_the_same_answer(mailbox: Any) -> None:
    mailbox.take("c", 0, letters(1))
    answer = Letter(1)
    assert mailbox.answer("c", answer)
    fresh, again = mailbox.take("c", 0, letters(1))
    assert fresh == [] and again[0] is answer


def test_acknowledged_answer_is_forgotten_and_its_call_is_still_known(mailbox: Any) -> None:
    mailbox.take("c", 0, letters(1, 2))
    for answer in letters(1, 2):
        mailbox.answer("c", answer)
    mailbox.take("c", 1, [])
    assert [(name, seqs(kept)) for name, kept in mailbox.unacknowledged()] == [("c", [2])]
    assert mailbox.take("c", 1, letters(1)) == ([], [])


def test_acknowledgement_that_comes_late_brings_nothing_back(mailbox: Any) -> None:
    mailbox.take("c", 0, letters(1, 2))
    for answer in letters(1, 2):
        mailbox.answer("c", answer)
    mailbox.take("c", 2, [])
    mailbox.take("c", 1, [])
    assert mailbox.unacknowledged() == []


def test_callers_have_numbers_of_their_own(mailbox: Any) -> None:
    assert seqs(mailbox.take("c", 0, letters(1))[0]) == [1]
    assert seqs(mailbox.take("d", 0, letters(1))[0]) == [1]
    mailbox.answer("d", Letter(1))
    assert mailbox.find_open("c", [1, 2]) == [1]
    assert mailbox.find_open("d", [1]) == []


def test_answer_that_no_call_waits_for_is_not_taken(mailbox: Any) -> None:
    assert not mailbox.answer("c", Letter(1))
    mailbox.take("c", 0, letters(1, 3))
    assert not mailbox.answer("c", Letter(3))
    assert mailbox.answer("c", Letter(1))
    assert not mailbox.answer("c", Letter(1))


def test_answers_are_kept_by_caller_until_they_are_acknowledged(mailbox: Any) -> None:
    for name in ("c", "d"):
        mailbox.take(name, 0, letters(1))
        mailbox.answer(name, Letter(1))
    mailbox.take("d", 1, [])
    assert [name for name, _ in mailbox.unacknowledged()] == ["c"]


def test_forgotten_caller_leaves_nothing(mailbox: Any) -> None:
    mailbox.take("c", 0, letters(1, 2))
    mailbox.answer("c", Letter(1))
    mailbox.forget("c")
    assert (mailbox.unacknowledged(), mailbox.find_open("c", [2]), mailbox.answer("c", Letter(2))) == ([], [], False)
    mailbox.forget("nobody")


# --- a desk


class Way:
    """A way back to a caller, and what went along it."""

    def __init__(self) -> None:
        self.sent: list[pb.ActorAnswers] = []

    def send(self, answers: pb.ActorAnswers) -> None:
        self.sent.append(answers)

    def take(self) -> list[pb.ActorAnswers]:
        sent, self.sent = self.sent, []
        return sent


class Host:
    """A worker with one actor, whose lease can be taken away."""

    def __init__(self, attempt: int = 1) -> None:
        self.lease = True
        self.attempt = attempt
        self.frames: list[tuple[int, frames.Frame]] = []
        self.desk = ActorDesk(lambda number, frame: self.frames.append((number, frame)), lambda: self.lease)
        self.item = wc.Item(TaskId("a"), attempt, "C", (), None, order=None, executor=EXECUTOR, actor=True)
        self.desk.open(self.item, EXECUTOR)

    def call(
        self, way: Way, *seqs: int, acked: int = 0, incarnation: int | None = None, caller: str = "c", **more: Any
    ) -> None:
        calls = [pb.ActorCall(seq=seq, method="m") for seq in seqs]
        number = self.attempt if incarnation is None else incarnation
        self.desk.take(
            pb.ActorCalls(actor_id="a", incarnation=number, caller=caller, acked_seq=acked, calls=calls, **more), way
        )

    def answer(self, *seqs: int, caller: str = "c", kind: str = "") -> None:
        self.desk.answered(TaskId("a"), [(caller, seq, kind, b"value", "") for seq in seqs])

    def carried_out(self) -> list[int]:
        """Return the numbers of the calls that went to the executor."""
        return [item[1] for _, frame in self.frames if frame[0] == frames.CALL for item in frame[1]]


def kinds(found: list[pb.ActorAnswers]) -> list[tuple[int, pb.ErrorKind]]:
    return [(answer.seq, answer.error_kind) for message in found for answer in message.answers]


OK, LOST = pb.ErrorKind.UNSPECIFIED, pb.ErrorKind.LOST


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
def host() -> Host:
    return Host()


def test_call_goes_to_the_executor_and_its_answer_back_the_way_it_came(host: Host, way: Way) -> None:
    host.call(way, 1)
    assert host.frames == [(EXECUTOR, (frames.CALL, [("c", 1, "m", b"", [])]))]
    host.answer(1)
    assert kinds(way.take()) == [(1, OK)]


def test_answer_goes_the_way_that_the_latest_calls_came(host: Host, way: Way) -> None:
    other = Way()
    host.call(way, 1)
    host.call(other, 2)
    host.answer(1)
    assert (kinds(way.take()), kinds(other.take())) == ([], [(1, OK)])


@pytest.mark.parametrize("incarnation", [1, 3])
def test_call_for_another_incarnation_is_told_that_it_is_gone(way: Way, incarnation: int) -> None:
    host = Host(attempt=2)
    host.call(way, 1, incarnation=incarnation)
    assert [message.gone for message in way.take()] == [True]
    assert host.carried_out() == []


def test_call_for_an_actor_that_has_ended_is_told_that_it_is_gone(host: Host, way: Way) -> None:
    host.desk.close([TaskId("a")])
    host.call(way, 1)
    assert [message.gone for message in way.take()] == [True]


def test_call_without_a_lease_is_not_taken_and_comes_again_when_there_is_one(host: Host, way: Way) -> None:
    host.lease = False
    host.call(way, 1)
    assert [message.gone for message in way.take()] == [True]
    host.lease = True
    host.call(way, 1)
    assert host.carried_out() == [1]


def test_answer_without_a_lease_is_kept_and_given_when_there_is_one(host: Host, way: Way) -> None:
    host.call(way, 1, 2)
    host.lease = False
    host.answer(1)
    assert way.take() == []
    host.lease = True
    host.desk.renew()
    assert kinds(way.take()) == [(1, OK)]
    host.desk.renew()
    assert way.take() == []


def test_answers_of_an_actor_that_has_ended_go_nowhere(host: Host, way: Way) -> None:
    host.call(way, 1)
    host.desk.close([TaskId("a")])
    host.answer(1)
    assert way.take() == []


def test_late_word_of_an_executor_that_was_killed_answers_no_call_of_the_next_life(way: Way) -> None:
    host = Host(attempt=1)
    host.attempt = 2
    host.desk.open(wc.Item(TaskId("a"), 2, "C", (), None, order=None, executor=EXECUTOR + 1, actor=True), EXECUTOR + 1)
    host.call(way, 1)
    host.desk.answered(TaskId("a"), [("c", 1, "", b"of the life before", "")], EXECUTOR)
    assert kinds(way.take()) == []
    host.desk.answered(TaskId("a"), [("c", 1, "", b"its own", "")], EXECUTOR + 1)
    assert [answer.payload for message in way.take() for answer in message.answers] == [b"its own"]


def test_retiring_actor_refuses_calls_that_it_has_not_taken(host: Host, way: Way) -> None:
    host.call(way, 1)
    host.desk.retire(host.item)
    host.call(way, 2, 3)
    assert kinds(way.take()) == [(2, LOST), (3, LOST)]
    assert host.carried_out() == [1]


def test_retiring_actor_that_is_sent_a_call_again_that_runs_does_not_refuse_it(host: Host, way: Way) -> None:
    host.call(way, 1)
    host.desk.retire(host.item)
    host.call(way, 1)
    assert kinds(way.take()) == []
    host.answer(1)
    assert kinds(way.take()) == [(1, OK)]


def test_retiring_actor_that_is_sent_a_call_again_that_is_answered_gives_the_answer_again(host: Host, way: Way) -> None:
    host.call(way, 1)
    host.answer(1)
    way.take()
    host.desk.retire(host.item)
    host.call(way, 1, 2)
    assert sorted(kinds(way.take())) == [(1, OK), (2, LOST)]


def test_cancelled_calls_that_are_not_answered_are_told_to_the_executor(host: Host, way: Way) -> None:
    host.call(way, 1, 2)
    host.answer(1)
    host.call(way, cancel=[1, 2])
    assert host.frames[-1] == (EXECUTOR, (frames.FORGET, "c", [2]))


def test_forgotten_caller_gets_no_answers(host: Host, way: Way) -> None:
    host.call(way, 1)
    host.call(way, 1, caller="d")
    host.desk.forget(["c"])
    host.answer(1)
    host.answer(1, caller="d")
    assert [message.caller for message in way.take()] == ["d"]


# --- caller and worker, joined by a channel that loses, repeats and reorders


class Life:
    """One incarnation: its worker's desk, and an executor that carries out one call after the other."""

    def __init__(self, number: int) -> None:
        self.host = Host(number)
        self.way = Way()
        self.executed: list[str] = []
        self.unsent: list[tuple[str, int, str, bytes, str]] = []
        self._begun = 0
        self.retiring = False

    def queue(self) -> list[tuple[int, str]]:
        """Return the calls that the executor has and has not begun."""
        items = [item for _, frame in self.host.frames if frame[0] == frames.CALL for item in frame[1]]
        return [(item[1], item[3].decode()) for item in items[self._begun :]]

    def execute(self) -> None:
        """Carry out one call; its answer waits for others."""
        for seq, name in self.queue()[:1]:
            self._begun += 1
            self.executed.append(name)
            self.unsent.append(("caller", seq, "", name.encode(), ""))

    def flush(self) -> None:
        """Send the answers that wait."""
        answers, self.unsent = self.unsent, []
        self.host.desk.answered(TaskId("a"), answers)

    def refuse_rest(self) -> None:
        """Say what was not begun."""
        self.unsent += [("caller", seq, "lost", b"", "") for seq, _ in self.queue()]
        self.flush()


class Channel(RuleBasedStateMachine):
    """One caller and the lives of one actor; messages are picked from a bag, any number of times, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.book = CallBook()
        self.made: list[str] = []
        self.retries: dict[str, int] = {}
        self.ends: dict[str, list[str]] = {}
        self.lives: list[Life] = []
        self.to_worker: list[pb.ActorCalls] = []
        self.to_caller: list[pb.ActorAnswers] = []
        self._begin()

    @property
    def life(self) -> Life:
        """The latest one."""
        return self.lives[-1]

    @rule(
        what=st.sampled_from(
            ["calls arrive"] * 5
            + ["make calls", "execute", "answers arrive"] * 3
            + ["send again", "retire", "leave"] * 2
            + ["lose lease", "renew lease", "die"]
        ),
        number=st.integers(0, 11),
    )
    def step(self, what: str, number: int) -> None:
        """Do one thing: few rules that are often met find more than many."""
        getattr(self, "_" + what.replace(" ", "_"))(number)

    # --- the caller

    def _make_calls(self, number: int) -> None:
        """Make up to three calls, and send them one by one, in twos, or later."""
        for _ in range(1 + number % 3):
            name = f"c{len(self.made)}"
            self.made.append(name)
            self.retries[name], self.ends[name] = [0, 0, 1, -1][number // 3], []
            self.book.waiting.append(Call(name, "m", name.encode(), retries_left=self.retries[name]))
        limit = [1, 1, 2, 0][number % 4]
        while limit and (batch := self.book.take_batch(limit, MANY)):
            self._send(batch)

    def _send_again(self, number: int) -> None:
        """Send what is not answered, as after a broken connection."""
        if self.book.is_alive:
            self._send(list(self.book.sent.items()))

    def _answers_arrive(self, number: int) -> None:
        for _ in range(min(1 + number % 3, len(self.to_caller))):
            self._settle(self._pick(self.to_caller, number))

    # --- the worker

    def _calls_arrive(self, number: int) -> None:
        for _ in range(min(1 + number % 3, len(self.to_worker))):
            self._take(self._pick(self.to_worker, number))

    def _execute(self, number: int) -> None:
        for _ in range(0 if self.life.retiring else 1 + number % 2):
            self.life.execute()
        if number % 4:
            self.life.flush()
        self._collect()

    def _lose_lease(self, number: int) -> None:
        self.life.host.lease = number % 3 > 0

    def _renew_lease(self, number: int) -> None:
        self.life.host.lease = True
        self.life.host.desk.renew()
        self._collect()

    def _retire(self, number: int) -> None:
        """Retire, with calls that are not begun and one that runs."""
        if self.life.queue() and not self.life.retiring:
            self.life.execute()
            self.life.host.desk.retire(self.life.host.item)
            self.life.retiring = True

    def _leave(self, number: int) -> None:
        """End a life that retires, in order."""
        if self.life.retiring:
            self.life.refuse_rest()
            self._collect()
            self._next_life()

    def _die(self, number: int) -> None:
        if number % 3 == 0:
            self._next_life()

    # --- what must hold

    @invariant()
    def each_call_ends_once(self) -> None:
        assert all(len(ends) <= 1 for ends in self.ends.values()), self.ends

    @invariant()
    def each_life_carries_out_a_call_once_and_in_order(self) -> None:
        for life in self.lives:
            numbers = [self.made.index(name) for name in life.executed]
            assert numbers == sorted(set(numbers)), life.executed

    @invariant()
    def calls_that_must_not_be_made_again_are_not(self) -> None:
        for name in self.made:
            if self.retries[name] >= 0:
                lives = sum(name in life.executed for life in self.lives)
                assert lives <= 1 + self.retries[name], f"{name} was carried out by {lives} lives"

    @invariant()
    def answered_calls_were_carried_out(self) -> None:
        done = {name for life in self.lives for name in life.executed}
        assert {name for name, ends in self.ends.items() if ends == ["answered"]} <= done

    def teardown(self) -> None:
        """Let everything be good for a while: every call must end."""
        if self.life.retiring:
            self._next_life()
        self.life.host.lease = True
        for _ in range(3):
            self._send(list(self.book.sent.items()))
            self._send(self.book.take_batch(MANY, MANY))
            self._empty(self.to_worker, self._take)
            while self.life.queue():
                self.life.execute()
            self.life.flush()
            self._collect()
            self._empty(self.to_caller, self._settle)
        assert all(len(ends) == 1 for ends in self.ends.values()), self.ends
        assert not self.book.sent and not self.book.waiting

    # --- steps

    def _empty(self, bag: list[Any], take: Any) -> None:
        messages = bag.copy()
        bag.clear()
        for message in messages:
            take(message)

    def _pick(self, bag: list[Any], number: int) -> Any:
        """Return one of the oldest messages; it stays, to come again, or goes."""
        at = [0, 0, 1][number // 4] % len(bag)
        return bag[at] if number % 4 == 3 else bag.pop(at)

    def _begin(self) -> None:
        self.lives.append(Life(len(self.lives) + 1))
        self._end(self.book.began(len(self.lives), 0.0), "died")

    def _next_life(self) -> None:
        self.life.host.desk.close([TaskId("a")])
        self._end(self.book.ended(len(self.lives), 0.0), "died")
        self._begin()

    def _send(self, batch: list[tuple[int, Call]]) -> None:
        calls = [pb.ActorCall(seq=seq, method=found.method, payload=found.payload) for seq, found in batch]
        self.book.acked_seq = self.book.find_acked_seq()
        self.to_worker.append(
            pb.ActorCalls(
                actor_id="a", incarnation=self.book.incarnation, caller="caller", acked_seq=self.book.acked_seq, calls=calls
            )
        )

    def _take(self, calls: pb.ActorCalls) -> None:
        self.life.host.desk.take(calls, self.life.way)
        self._collect()

    def _collect(self) -> None:
        self.to_caller += self.life.way.take()

    def _settle(self, message: pb.ActorAnswers) -> None:
        if message.gone and message.incarnation == self.book.incarnation:
            self._send_again(0)
        refused = [answer.seq for answer in message.answers if answer.error_kind == LOST]
        if refused:
            self.book.not_begun(message.incarnation, refused, 0.0)
        for answer in message.answers:
            found = self.book.answered(message.incarnation, answer.seq)
            if found is not None:
                assert answer.payload.decode() == found.future
                self._end([found], "answered")

    def _end(self, calls: list[Call], how: str) -> None:
        for found in calls:
            self.ends[found.future].append(how)


TestChannel = Channel.TestCase
TestChannel.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
