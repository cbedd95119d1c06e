"""Random pipelines: sources, verbs with what they must do (see ``naive``), and a check that runs both.

Everything here can be imported by the processes that run tasks.
"""

from __future__ import annotations

import math
import operator
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import naive
from hypothesis import strategies as st
from naive import Shards
from zephyr import Dataset, ExecutionHint, expr

THRESHOLDS = [0, 1, math.inf, None]
HINTS = [ExecutionHint(1), ExecutionHint(3), ExecutionHint(-1), ExecutionHint()]
MAX_ITEMS = 150
"""When a pipeline has made this many items, its remaining steps are left out."""

Build = Callable[[Dataset[Any]], Dataset[Any]]
Look = Callable[[Build], Shards]
Run = Callable[[Dataset[Any]], list[Any]]


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any = 0


@dataclass
class Box:
    """Not hashable."""

    content: Any


class Ordered:
    """Has an order and nothing else: two of them are never equal."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __lt__(self, other: Ordered) -> bool:
        return self.number < other.number


class Refused(Exception):
    """What a user's function raises."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Step:
    """A verb with its arguments."""

    name: str
    build: Callable[[Dataset[Any], str], Dataset[Any]]
    """Dataset and a directory for files to the dataset with the verb."""
    expect: Callable[[Shards, Look], Shards]
    """The shards after it. ``Look`` shows what a continuation of the same dataset gives, for what the meaning leaves open."""

    def __repr__(self) -> str:
        return self.name


def exact(name: str, build: Build, model: Callable[[Shards], Shards]) -> Step:
    """Return a step whose result is determined."""
    return Step(name, lambda dataset, _: build(dataset), lambda before, _: model(before))


def checked(name: str, build: Build, check: Callable[[Shards, Shards], None]) -> Step:
    """Return a step whose result is checked and then taken as it is."""

    def expect(before: Shards, look: Look) -> Shards:
        after = look(build)
        check(before, after)
        return after

    return Step(name, lambda dataset, _: build(dataset), expect)


def source_of(shards: Shards) -> Dataset[Any]:
    return Dataset.from_list(shards).flat_map(iter)


def shards_of(dataset: Dataset[Any]) -> Dataset[Any]:
    return dataset.map_shard(whole)


def whole(items: Iterator[Any]) -> list[Any]:
    return [list(items)]


def check(shards: Shards, steps: Sequence[Step], run: Run, look_run: Run | None = None) -> list[Any]:
    """Check every step, and that the items and the shards of the whole pipeline are the expected ones; return the items."""
    dataset, expected = source_of(shards), shards
    with tempfile.TemporaryDirectory() as directory:
        for number, step in enumerate(steps):
            before = dataset

            def look(build: Build, before: Dataset[Any] = before) -> Shards:
                return (look_run or run)(shards_of(build(before)))

            expected = step.expect(expected, look)
            dataset = step.build(dataset, f"{directory}/{number}")
            if sum(map(len, expected)) > MAX_ITEMS:
                break
        found, found_shards = run(dataset), run(shards_of(dataset))
    assert repr(found_shards) == repr(expected), f"shards:\n{found_shards}\ninstead of\n{expected}"
    assert repr(found) == repr(naive.items_of(expected)), f"items:\n{found}\ninstead of\n{naive.items_of(expected)}"
    return found


# Functions of items. Each takes items of any kind.


def identity(item: Any) -> Any:
    return item


def size(item: Any) -> int:
    return len(repr(item))


def size_mod(item: Any) -> Any:
    return [1, 1.0, True, None, "a", (1, "b"), [2], {"k": 1}][len(repr(item)) % 8]


def kind(item: Any) -> str:
    return type(item).__name__


def nothing(item: Any) -> None:
    return None


def boxed(item: Any) -> Box:
    return Box(type(item).__name__)


def is_odd(item: Any) -> int:
    return len(repr(item)) % 2


def twice(item: Any) -> Iterator[Any]:
    yield item
    yield (item,)


def as_record(item: Any) -> dict[str, Any]:
    text = repr(item)
    number = None if item is None else len(text) % 6
    return {
        "k": size_mod(item),
        "n": number,
        "s": None if number == 3 else text[:2],
        "f": None if number == 2 else len(text) / 4,
        "v": item,
    }


def as_ragged_record(item: Any) -> dict[str, Any]:
    record = as_record(item)
    return {name: value for name, value in record.items() if name in "ns" or value is not None}


def as_json(item: Any) -> dict[str, Any]:
    text = repr(item)
    return {"n": len(text), "s": text, "f": len(text) / 4, "b": item is None, "l": [text, "é\n\u2028"], "none": None}


def as_ragged_json(item: Any) -> dict[str, Any]:
    """Columns that are missing, None or of two types."""
    record: dict[str, Any] = as_ragged_record(item)
    record.pop("v", None)
    record.pop("k", None)
    if size(item) % 5 == 4:
        del record["n"]
    if record.get("f") == 1.0:
        record["f"] = 1
    return {"x": [record.get("n"), {"n": 1}], **record}


def as_row(item: Any) -> dict[str, Any]:
    text = repr(item)
    return {"n": len(text), "s": None if item is None else text, "f": len(text) / 4, "b": item is None, "l": [text]}


def as_flat_row(item: Any) -> dict[str, Any]:
    return {"n": size(item), "s": repr(item)}


def as_bytes(item: Any) -> bytes:
    return repr(item).encode() + b"\0"


def as_line(item: Any) -> str:
    return "" if item is None else f"é {item!r}"


def numbered(items: Iterator[Any]) -> Iterator[Any]:
    yield from enumerate(items)


def first_two_reversed(items: Iterator[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(2), strict=False)][::-1]


def in_order_of_n(items: Iterator[Any]) -> list[Any]:
    return sorted(items, key=lambda record: record["n"])


def budget(state: int, item: Any) -> tuple[bool, int]:
    return state + size(item) <= 12, state + size(item)


def same_kind(state: str | None, item: Any) -> tuple[bool, str]:
    return state in (None, kind(item)), kind(item)


def never(state: Any, item: Any) -> tuple[bool, None]:
    return False, None


def always(state: Any, item: Any) -> tuple[bool, None]:
    return True, None


def pairs(key: Any, values: Iterator[Any]) -> tuple[Any, list[Any]]:
    return key, list(values)


def number_of(key: Any, values: Iterator[Any]) -> int:
    return sum(1 for _ in values)


def none_of(key: Any, values: Iterator[Any]) -> None:
    return None


def list_of(key: Any, values: Iterator[Any]) -> list[Any]:
    return [key, *values]


def each_of(key: Any, values: Iterator[Any]) -> Iterator[Any]:
    yield key
    yield from values


def no_value_of(key: Any, values: Iterator[Any]) -> Iterator[Any]:
    yield from ()


def first_of(key: Any, values: Iterator[Any]) -> Any:
    return next(values)


def total_size(items: Iterator[Any]) -> int:
    return sum(map(size, items))


def longest(lists: Iterator[list[Any]]) -> list[Any]:
    return max(lists, key=len)


def flattened(lists: Iterator[list[Any]]) -> list[Any]:
    return [item for each in lists for item in each]


def pair(left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


def sides(left: Any, right: Any) -> tuple[bool, bool]:
    return left is None, right is None


def by_k(record: dict[str, Any]) -> Any:
    return record["k"]


def keyed(item: Any) -> tuple[Any, list[Any]]:
    return size_mod(item), [item]


def first(item: Any) -> Any:
    return item[0]


def second(item: Any) -> Any:
    return item[1]


def concatenate(key: Any, values: Iterator[Any]) -> tuple[Any, list[Any]]:
    return key, [item for _, items in values for item in items]


def concatenate_twice(key: Any, values: Iterator[Any]) -> Iterator[Any]:
    """Yield no more than there was."""
    everything = [item for _, items in values for item in items]
    yield key, everything[:1]
    if everything[1:]:
        yield key, everything[1:]


def refuse(*_: Any) -> Any:
    raise Refused(7, "not today")


def stop(*_: Any) -> Any:
    raise StopIteration("nothing more")


def refuse_late(*_: Any) -> Iterator[Any]:
    yield 1
    raise Refused(7, "not today")


KEYS = [identity, size_mod, kind, size, nothing, boxed, lambda item: (kind(item), len(repr(item)) % 2)]


def number_for(item: Any) -> Any:
    return [1, True, 1.0, 0.0, -0.0, 2.5, -1, 2**70, -math.inf][len(repr(item)) % 9]


def ordered(item: Any) -> Ordered:
    return Ordered(number_for(item))


ORDERS = [size, repr, kind, number_for, lambda item: (number_for(item), kind(item))]
REDUCERS = [pairs, number_of, none_of, list_of, each_of, no_value_of, first_of]


# Steps.


def map_step(fn: Any) -> Step:
    return exact(f"map({fn.__name__})", lambda d: d.map(fn), lambda s: naive.map_(s, fn))


def flat_map_step(fn: Any) -> Step:
    return exact(f"flat_map({fn.__name__})", lambda d: d.flat_map(fn), lambda s: naive.flat_map(s, fn))


def filter_step(fn: Any) -> Step:
    return exact(f"filter({fn.__name__})", lambda d: d.filter(fn), lambda s: naive.filter_(s, fn))


def map_shard_step(fn: Any) -> Step:
    return exact(f"map_shard({fn.__name__})", lambda d: d.map_shard(fn), lambda s: naive.map_shard(s, fn))


def take_step(n: int) -> Step:
    return exact(f"take_per_shard({n})", lambda d: d.take_per_shard(n), lambda s: naive.take_per_shard(s, n))


def window_step(size: int, verb: str = "window") -> Step:
    return exact(f"{verb}({size})", lambda d: getattr(d, verb)(size), lambda s: naive.window(s, size))


def window_by_step(folder: Any, initial: Any) -> Step:
    return exact(
        f"window_by({folder.__name__}, {initial})",
        lambda d: d.window_by(folder, initial),
        lambda s: naive.window_by(s, folder, initial),
    )


def select_step(ragged: bool, columns: Sequence[str]) -> Step:
    make = as_ragged_record if ragged else as_record
    return exact(
        f"map({make.__name__}).select({columns})",
        lambda d: d.map(make).select(*columns),
        lambda s: naive.select(naive.map_(s, make), *columns),
    )


def reduce_step(local: Any, global_: Any = None) -> Step:
    return exact(
        f"reduce({local.__name__}, {getattr(global_, '__name__', None)})",
        lambda d: d.reduce(local, global_),
        lambda s: naive.reduce(s, local, global_),
    )


def count_step() -> Step:
    return exact("count()", lambda d: d.count(), naive.count)


def union_step(*others: Shards) -> Step:
    return exact(f"union(*{others})", lambda d: d.union(*map(source_of, others)), lambda before: naive.union(before, *others))


def reshard_step(n: int) -> Step:
    return checked(f"reshard({n})", lambda d: d.reshard(n), lambda a, b: naive.check_reshard(a, b, n))


def deduplicate_step(key: Any, n: int | None) -> Step:
    return checked(
        f"deduplicate({key.__name__}, {n})",
        lambda d: d.deduplicate(key, n),
        lambda a, b: naive.check_deduplicate(a, b, key, n),
    )


def sort_step(key: Any, n: int | None, reverse: bool) -> Step:
    return checked(
        f"sort({key.__name__}, {n}, {reverse})",
        lambda d: d.sort(key, num_output_shards=n, reverse=reverse),
        lambda a, b: naive.check_sort(a, b, key, n, reverse),
    )


def shuffle_step(seed: int) -> Step:
    return checked(f"shuffle({seed})", lambda d: d.shuffle(seed), naive.check_shuffle)


def sample_step(fraction: float, seed: int) -> Step:
    return checked(
        f"sample({fraction}, {seed})",
        lambda d: d.sample(fraction, seed),
        lambda a, b: naive.check_sample(a, b, fraction),
    )


def group_by_step(key: Any, reducer: Any, n: int | None, sort_by: Any = None) -> Step:
    def expect(before: Shards, look: Look) -> Shards:
        layout = look(lambda d: d.group_by(key, pairs, n, sort_by=sort_by))
        naive.check_groups(before, layout, key, n, sort_by)
        return naive.reduce_groups(layout, reducer)

    name = f"group_by({key.__name__}, {reducer.__name__}, {n}, sort_by={getattr(sort_by, '__name__', None)})"
    return Step(name, lambda d, _: d.group_by(key, reducer, n, sort_by=sort_by), expect)


def combine_step(combiner: Any, n: int | None) -> Step:
    def build(dataset: Dataset[Any], combiner: Any) -> Dataset[Any]:
        return dataset.map(keyed).group_by(first, concatenate, n, combiner=combiner)

    def expect(before: Shards, look: Look) -> Shards:
        layout = look(lambda d: d.map(keyed).group_by(first, pairs, n))
        naive.check_groups(naive.map_(before, keyed), layout, first, n)
        return naive.reduce_groups(layout, concatenate)

    return Step(
        f"map(keyed).group_by(first, concatenate, {n}, combiner={combiner.__name__})", lambda d, _: build(d, combiner), expect
    )


def union_with_itself_step() -> Step:
    return exact("union(itself)", lambda d: d.union(d.map(kind)), lambda s: naive.union(s, naive.map_(s, kind)))


RIGHT_SIDES: dict[str, tuple[Build, Callable[[list[Any]], list[Any]]]] = {
    "plain": (lambda d: d, list),
    "resharded": (lambda d: d.reshard(3), list),
    "sorted": (lambda d: d.sort(repr, 2), lambda items: sorted(items, key=repr)),
    "grouped": (lambda d: d.group_by(nothing, each_of, 2), lambda items: [None, *items] if items else []),
    "doubled": (lambda d: d.union(d), lambda items: items * 2),
}
"""What is done to the right side of a join, and what it does to the items in their order."""


def join_step(right: Shards, on: Any, how: str, combiner: Any = None, side: str = "plain") -> Step:
    """``side`` names one of ``RIGHT_SIDES``."""
    prepare, prepared = RIGHT_SIDES[side]
    rights = [list(map(as_record, prepared(naive.items_of(right))))]
    key = by_k if on == "k" else on
    alone = how in ("semi", "anti")

    def build(dataset: Dataset[Any], combiner: Any) -> Dataset[Any]:
        options = {} if combiner is None else {"combiner": combiner}
        return dataset.map(as_record).join(prepare(source_of(right)).map(as_record), on=on, how=how, **options)

    def expect(before: Shards, look: Look) -> Shards:
        found = look(lambda d: build(d, None if alone else pair))
        layout = naive.map_(found, lambda item: (item, None)) if alone else found
        naive.check_join(naive.map_(before, as_record), rights, key, key, how, layout)
        return found if alone else naive.map_(layout, lambda both: (combiner or naive.merge)(*both))

    names = [getattr(each, "__name__", each) for each in (on, combiner)]
    name = f"map(as_record).join({side} {right}, on={names[0]}, how={how}, combiner={names[1]})"
    return Step(name, lambda d, _: build(d, None if alone else combiner), expect)


def merge_join_step(right: Shards, how: str, combiner: Any = None) -> Step:
    """An empty shard is put before the dataset, so that it has shards to be spread over."""
    rights = [in_order_of_n(iter(map(as_line_record, shard))) for shard in right]

    def spread(dataset: Dataset[Any]) -> Dataset[Any]:
        return source_of([[]]).union(dataset).reshard(len(right))

    def build(dataset: Dataset[Any]) -> Dataset[Any]:
        left = spread(dataset).map(as_line_record).map_shard(in_order_of_n)
        return left.sorted_merge_join(source_of(rights), by_n, by_n, combiner, how=how)

    def expect(before: Shards, look: Look) -> Shards:
        shards = look(spread)
        naive.check_reshard([[], *before], shards, len(right))
        lefts = naive.map_shard(naive.map_(shards, as_line_record), in_order_of_n)
        return naive.sorted_merge_join(lefts, rights, by_n, by_n, combiner, how)

    name = f"sorted_merge_join({right}, how={how}, combiner={getattr(combiner, '__name__', None)})"
    return Step(name, lambda d, _: build(d), expect)


def as_line_record(item: Any) -> dict[str, Any]:
    return {"n": size(item) % 4, kind(item): item}


def by_n(record: dict[str, Any]) -> int:
    number: int = record["n"]
    return number


def file_step(verb: str, make: Any, suffix: str) -> Step:
    """Write and load again: nothing changes."""

    def build(dataset: Dataset[Any], directory: str) -> Dataset[Any]:
        written = getattr(dataset.map(make), f"write_{verb}")(f"{directory}-{{shard:03d}}-of-{{total:03d}}{suffix}")
        loaded: Dataset[Any] = getattr(written, f"load_{verb}")()
        return loaded

    return Step(f"map({make.__name__}).write_{verb}(*{suffix}).load", build, lambda before, _: naive.map_(before, make))


def read_step(verb: str, make: Any, suffix: str, reading: Sequence[tuple[str, Any]]) -> Step:
    """Write, load, and look at some of what was loaded, as far as possible while it is read."""
    files = file_step(verb, make, suffix)

    def build(dataset: Dataset[Any], directory: str) -> Dataset[Any]:
        loaded = files.build(dataset, directory)
        for kind, argument in reading:
            if kind == "select":
                loaded = loaded.select(*argument)
            else:
                loaded = loaded.filter(argument.build() if kind == "where" else argument)
        return loaded

    def expect(before: Shards, look: Look) -> Shards:
        found = files.expect(before, look)
        for kind, argument in reading:
            if kind == "select":
                found = naive.select(found, *argument)
            else:
                found = naive.filter_(found, argument.holds if kind == "where" else argument)
        return found

    return Step(f"{files.name}.{reading}", build, expect)


@dataclass(frozen=True)
class Condition:
    """An expression over ``as_record``'s columns, and what it means."""

    text: str
    build: Callable[[], Any]
    holds: Callable[[dict[str, Any]], bool]

    def __repr__(self) -> str:
        return self.text


OPERATORS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


CHANGES: dict[str, Callable[[Any], Any]] = {
    "x": lambda x: x,
    "x + 1": lambda x: x + 1,
    "5 - x": lambda x: 5 - x,
    "x * 2.5": lambda x: x * 2.5,
    "x * 2**62": lambda x: x * 2**62,
    "x / 2": lambda x: x / 2,
    "(x - 4) // 3": lambda x: (x - 4) // 3,
    "(x - 4) % 3": lambda x: (x - 4) % 3,
    "-x": lambda x: -x,
}


def compare(column: str, sign: str, value: Any, change: str = "x") -> Condition:
    """``change`` names one of ``CHANGES``."""
    op, changed = OPERATORS[sign], CHANGES[change]

    def build() -> Any:
        return op(changed(expr.col(column)), expr.lit(value))

    def holds(record: dict[str, Any]) -> bool:
        left = record.get(column)
        return left is not None and bool(op(changed(left), value))

    return Condition(f"({change.replace('x', f'col({column!r})')} {sign} {value!r})", build, holds)


def is_null(column: str) -> Condition:
    return Condition(f"col({column!r}).is_null()", lambda: expr.col(column).is_null(), lambda r: r.get(column) is None)


def is_in(column: str, values: list[Any]) -> Condition:
    return Condition(
        f"col({column!r}).is_in({values})", lambda: expr.col(column).is_in(values), lambda r: r.get(column) in values
    )


def both(one: Condition, other: Condition) -> Condition:
    return Condition(f"({one} & {other})", lambda: one.build() & other.build(), lambda r: one.holds(r) and other.holds(r))


def either(one: Condition, other: Condition) -> Condition:
    return Condition(f"({one} | {other})", lambda: one.build() | other.build(), lambda r: one.holds(r) or other.holds(r))


def negated(one: Condition) -> Condition:
    return Condition(f"~{one}", lambda: ~one.build(), lambda r: not one.holds(r))


def where_step(condition: Condition, make: Any = as_record) -> Step:
    return exact(
        f"map({make.__name__}).filter({condition})",
        lambda d: d.map(make).filter(condition.build()),
        lambda s: naive.filter_(naive.map_(s, make), condition.holds),
    )


words: list[Any] = ["apple", "pear", "fig", None, 1, 1.0, True, ("a", 2), ["a"], b"x", 2.5, Point("a"), Box("b"), {"a": 1}]
words += [f"word {number}" for number in range(20)]
wordy = source_of([words, [], words[::-1], words[:5]])
SHOWCASE: dict[str, Callable[[], Dataset[Any]]] = {
    "group_by": lambda: wordy.group_by(identity, pairs, 3),
    "group_by with sort_by": lambda: wordy.map(repr).group_by(identity, pairs, 5, sort_by=repr),
    "group_by with combiner": lambda: wordy.map(keyed).group_by(first, concatenate, combiner=concatenate).reshard(2),
    "deduplicate": lambda: wordy.deduplicate(identity),
    "join": lambda: wordy.map(as_record).join(source_of([words]).map(as_record), on="k", how="outer"),
    "sort": lambda: wordy.sort(repr, num_output_shards=3),
    "sort in reverse": lambda: wordy.sort(kind, reverse=True),
    "shuffle": lambda: wordy.shuffle(7),
    "sample": lambda: wordy.sample(0.5, 7),
}
"""Datasets whose order must come from nothing but their items."""


# Strategies.

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.sampled_from([0.0, 1.0, 2.5, -1.0, "", "a", "b", "1", b"a", 2**70])
)
items = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        st.builds(Point, inner, inner),
        st.builds(Box, inner),
    ),
    max_leaves=4,
)
sources = st.lists(st.lists(items, max_size=5), max_size=6)
small_sources = st.lists(st.lists(items, max_size=3), max_size=3)
numbers_of_shards = st.none() | st.integers(1, 5)

conditions: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(
        st.builds(
            compare,
            st.just("n"),
            st.sampled_from(list(OPERATORS)),
            st.integers(-2, 6) | st.sampled_from([0.5, 2.0, 2**62, 2**63, 2**64]),
            st.sampled_from(list(CHANGES)),
        ),
        st.builds(
            compare,
            st.just("f"),
            st.sampled_from(list(OPERATORS)),
            st.sampled_from([0.5, 1.0, 2]),
            st.sampled_from(list(CHANGES)),
        ),
        st.builds(compare, st.just("s"), st.sampled_from(list(OPERATORS)), st.sampled_from(["", "[", "1"])),
        st.builds(compare, st.sampled_from("nsfbv"), st.sampled_from(["==", "!="]), st.sampled_from([1, True, "1", 1.0, ""])),
        st.builds(is_null, st.sampled_from("nsf")),
        st.builds(is_in, st.sampled_from("nsfb"), st.lists(st.sampled_from([0, 1, 2, 3.0, True, "1", "", 2**70]), max_size=3)),
    ),
    lambda inner: st.one_of(st.builds(both, inner, inner), st.builds(either, inner, inner), st.builds(negated, inner)),
    max_leaves=3,
)

FILES = [
    ("jsonl", as_json, ".jsonl"),
    ("jsonl", as_ragged_json, ".jsonl.gz"),
    ("jsonl", as_json, ".jsonl.zst"),
    ("parquet", as_row, ".parquet"),
    ("vortex", as_row, ".vortex"),
    ("text", as_line, ".txt"),
]
columns = st.lists(st.sampled_from(["s", "f", "n", "l", "missing"]), min_size=1, unique=True)
readings = st.lists(
    st.one_of(
        st.tuples(st.just("where"), conditions),
        st.tuples(st.just("select"), columns),
        st.tuples(st.just("filter"), st.sampled_from([is_odd])),
    ),
    min_size=1,
    max_size=3,
)

steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(map_step, st.sampled_from([identity, size, kind, as_record, boxed, nothing, lambda item: (item, [item])])),
    st.builds(flat_map_step, st.sampled_from([twice, lambda item: [], lambda item: [item] * (len(repr(item)) % 3)])),
    st.builds(filter_step, st.sampled_from([is_odd, identity, nothing, lambda item: item is not None])),
    st.builds(where_step, conditions),
    st.builds(select_step, st.booleans(), st.lists(st.sampled_from(["v", "n", "k", "f", "missing"]), min_size=1, unique=True)),
    st.builds(map_shard_step, st.sampled_from([numbered, first_two_reversed, whole, lambda items: ()])),
    st.builds(take_step, st.integers(1, 4)),
    st.builds(window_step, st.integers(1, 4), st.sampled_from(["window", "batch"])),
    st.sampled_from([(budget, 0), (budget, 9), (same_kind, None), (never, None), (always, None)]).map(
        lambda each: window_by_step(*each)
    ),
    st.builds(reshard_step, st.integers(1, 7)),
    st.builds(group_by_step, st.sampled_from(KEYS), st.sampled_from(REDUCERS), numbers_of_shards),
    st.builds(
        group_by_step, st.sampled_from(KEYS), st.sampled_from(REDUCERS), numbers_of_shards, st.none() | st.sampled_from(ORDERS)
    ),
    st.builds(combine_step, st.sampled_from([concatenate, concatenate_twice]), numbers_of_shards),
    st.builds(deduplicate_step, st.sampled_from(KEYS), numbers_of_shards),
    st.sampled_from([(total_size, sum), (total_size,), (list, longest), (list, flattened), (list,)]).map(
        lambda each: reduce_step(*each)
    ),
    st.builds(count_step),
    st.builds(union_with_itself_step),
    st.builds(
        merge_join_step, st.lists(st.lists(items, max_size=4), min_size=1, max_size=4), st.sampled_from(["inner", "left"])
    ),
    st.builds(
        join_step,
        small_sources,
        st.sampled_from(["k", by_k, lambda record: record["n"]]),
        st.sampled_from(["inner", "left", "right", "outer", "semi", "anti"]),
        st.sampled_from([None, sides]),
        st.sampled_from(list(RIGHT_SIDES)),
    ),
    st.builds(sort_step, st.sampled_from([*ORDERS, ordered]), numbers_of_shards, st.booleans()),
    st.builds(shuffle_step, st.integers(0, 3)),
    st.builds(sample_step, st.sampled_from([0, 0.3, 0.5, 1]), st.integers(0, 3)),
    st.lists(small_sources, min_size=1, max_size=2).map(lambda others: union_step(*others)),
    st.sampled_from(FILES).map(lambda each: file_step(*each)),
    st.builds(
        lambda each, reading: read_step(*each, reading),
        st.sampled_from(FILES[:-1]),
        readings,
    ),
)
pipelines = st.lists(steps, min_size=1, max_size=6)
