"""What each verb means, over plain lists of lists: a list per shard. Written to be obvious, not fast.

Where the meaning leaves something open (which shard a key goes to, where a shard ends), there is a ``check_...`` that says what
is not open, instead of a function that computes the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

Shards = list[list[Any]]
Key = Callable[[Any], Any]


def items_of(shards: Shards) -> list[Any]:
    return [item for shard in shards for item in shard]


def map_(shards: Shards, fn: Callable[[Any], Any]) -> Shards:
    return [[fn(item) for item in shard] for shard in shards]


def flat_map(shards: Shards, fn: Callable[[Any], Any]) -> Shards:
    return [[each for item in shard for each in fn(item)] for shard in shards]


def filter_(shards: Shards, fn: Callable[[Any], Any]) -> Shards:
    return [[item for item in shard if fn(item)] for shard in shards]


def select(shards: Shards, *columns: str) -> Shards:
    return map_(shards, lambda record: {name: record[name] for name in columns if name in record})


def map_shard(shards: Shards, fn: Callable[[Iterator[Any]], Any]) -> Shards:
    return [list(fn(iter(shard))) for shard in shards]


def take_per_shard(shards: Shards, n: int) -> Shards:
    return [shard[:n] for shard in shards]


def window(shards: Shards, size: int) -> Shards:
    return [[shard[at : at + size] for at in range(0, len(shard), size)] for shard in shards]


def window_by(shards: Shards, folder: Callable[[Any, Any], tuple[bool, Any]], initial_state: Any) -> Shards:
    return [_windows(shard, folder, initial_state) for shard in shards]


def _windows(shard: list[Any], folder: Callable[[Any, Any], tuple[bool, Any]], initial_state: Any) -> list[Any]:
    windows: list[list[Any]] = []
    current: list[Any] = []
    state = initial_state
    for item in shard:
        keep_going, new_state = folder(state, item)
        if keep_going:
            current.append(item)
            state = new_state
        else:
            if current:
                windows.append(current)
            current = [item]
            _, state = folder(initial_state, item)
    return [*windows, current] if current else windows


def reduce(shards: Shards, local: Callable[[Any], Any], global_: Callable[[Any], Any] | None = None) -> Shards:
    if not shards:
        return []
    return [[(global_ or local)(iter([local(iter(shard)) for shard in shards]))]]


def count(shards: Shards) -> Shards:
    return [[len(items_of(shards))]] if shards else []


def union(shards: Shards, *others: Shards) -> Shards:
    return list(itertools.chain(shards, *others))


def sorted_merge_join(
    left: Shards,
    right: Shards,
    left_key: Key,
    right_key: Key,
    combiner: Callable[[Any, Any], Any] | None = None,
    how: str = "inner",
) -> Shards:
    assert len(left) == len(right)
    combine = combiner or merge
    joined: Shards = []
    for lefts, rights in zip(left, right, strict=True):
        joined.append([])
        for item in lefts:
            matches = [other for other in rights if right_key(other) == left_key(item)]
            joined[-1] += [combine(item, other) for other in matches]
            if not matches and how == "left":
                joined[-1].append(combine(item, None))
    return joined


def merge(left: Any, right: Any) -> Any:
    """Combine as ``join`` does when it is not told how."""
    if left is None or right is None:
        return right if left is None else left
    return {**left, **right}


def groups_of(items: list[Any], key: Key) -> list[tuple[list[Any], list[Any]]]:
    """Return (all forms of a key, its items), in order of first appearance; keys are the same when Python says so."""
    groups: list[tuple[list[Any], list[Any]]] = []
    for item in items:
        found = key(item)
        for keys, values in groups:
            if keys[0] == found:
                keys.append(found)
                values.append(item)
                break
        else:
            groups.append(([found], [item]))
    return groups


def reduce_groups(layout: Shards, reducer: Callable[[Any, Iterator[Any]], Any]) -> Shards:
    """Apply a reducer to shards of (key, values)."""
    reduced: Shards = []
    for shard in layout:
        reduced.append([])
        for key, values in shard:
            result = reducer(key, iter(values))
            reduced[-1] += result if isinstance(result, GeneratorType) else [result]
    return reduced


def check_number_of_shards(before: Shards, after: Shards, wanted: int | None) -> None:
    if not before:
        assert after == [], f"an empty source gives no shards, not {len(after)}"
    elif wanted is not None:
        assert len(after) == wanted, f"{len(after)} shards instead of {wanted}"
    else:
        assert after, "shards became none"


def check_groups(before: Shards, layout: Shards, key: Key, wanted: int | None, sort_by: Key | None = None) -> None:
    """``layout`` has every key once, as (key, values)."""
    check_number_of_shards(before, layout, wanted)
    found = items_of(layout)
    expected = groups_of(items_of(before), key)
    assert len(found) == len(expected), f"{len(found)} keys instead of {len(expected)}: {[key for key, _ in found]}"
    for keys, values in expected:
        matching = [each for each in found if each[0] == keys[0]]
        assert len(matching) == 1, f"the key {keys[0]!r} is there {len(matching)} times"
        found_key, found_values = matching[0]
        assert repr(found_key) in map(repr, keys), f"the key {found_key!r} was never given; {keys} were"
        wanted_values = values if sort_by is None else sorted(values, key=sort_by)
        assert repr(list(found_values)) == repr(wanted_values), f"{keys[0]!r}: {found_values!r} instead of {wanted_values!r}"


def check_deduplicate(before: Shards, after: Shards, key: Key, wanted: int | None) -> None:
    check_number_of_shards(before, after, wanted)
    expected = sorted(repr(values[0]) for _, values in groups_of(items_of(before), key))
    assert sorted(map(repr, items_of(after))) == expected


def check_reshard(before: Shards, after: Shards, wanted: int) -> None:
    check_number_of_shards(before, after, wanted)
    assert repr(items_of(after)) == repr(items_of(before)), "items or their order changed"
    sizes = [len(shard) for shard in after]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1, f"uneven shards: {sizes}"


def check_sort(before: Shards, after: Shards, key: Key, wanted: int | None, reverse: bool = False) -> None:
    check_number_of_shards(before, after, wanted)
    assert repr(items_of(after)) == repr(sorted(items_of(before), key=key, reverse=reverse)), "not the stable order"


def check_shuffle(before: Shards, after: Shards) -> None:
    assert sorted(map(repr, items_of(after))) == sorted(map(repr, items_of(before))), "not a permutation"


def check_sample(before: Shards, after: Shards, fraction: float) -> None:
    assert len(after) == len(before), "the number of shards changed"
    for all_items, some in zip(before, after, strict=True):
        rest = iter(map(repr, all_items))
        assert all(repr(item) in rest for item in some), f"{some} is no part of {all_items} in its order"
    if fraction in (0, 1):
        assert repr(items_of(after)) == repr(items_of(before) if fraction else [])


def check_join(left: Shards, right: Shards, left_key: Key, right_key: Key, how: str, pairs: Shards) -> None:
    """``pairs`` has (left item or None, right item or None), those of each key in one shard and left-major."""

    def key_of(pair: tuple[Any, Any]) -> Any:
        return right_key(pair[1]) if pair[0] is None else left_key(pair[0])

    lefts, rights = groups_of(items_of(left), left_key), groups_of(items_of(right), right_key)
    expected = []
    for keys, items in lefts:
        others = next((others for other, others in rights if other[0] == keys[0]), [])
        expected.append((keys[0], join_key(items, others, how)))
    for keys, others in rights:
        if not any(other[0] == keys[0] for other, _ in lefts):
            expected.append((keys[0], join_key([], others, how)))
    expected = [(key, found) for key, found in expected if found]
    groups = [group for shard in pairs for group in groups_of(shard, key_of)]
    assert len(groups) == len(expected), f"{len(groups)} keys in {pairs} instead of {len(expected)}: {expected}"
    for key, wanted in expected:
        matching = [found for keys, found in groups if keys[0] == key]
        assert len(matching) == 1, f"the key {key!r} is in {len(matching)} shards"
        assert repr(matching[0]) == repr(wanted), f"key {key!r}: {matching[0]} instead of {wanted}"


def join_key(lefts: list[Any], rights: list[Any], how: str) -> list[tuple[Any, Any]]:
    """Return the pairs of one key; ``semi`` and ``anti`` give left items without partners."""
    if how in ("semi", "anti"):
        return [(item, None) for item in lefts] if bool(rights) == (how == "semi") else []
    pairs = [(item, other) for item in lefts for other in rights]
    if not rights and how in ("left", "outer"):
        pairs = [(item, None) for item in lefts]
    if not lefts and how in ("right", "outer"):
        pairs = [(None, other) for other in rights]
    return pairs
