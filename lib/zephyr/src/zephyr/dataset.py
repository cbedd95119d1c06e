"""``Dataset``: an immutable, lazy list of operations over a source. Nothing runs before ``Backend.execute``.

An item is any picklable value. Items are never changed in place by Zephyr, and functions should not change them either.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from zephyr import verbs
from zephyr.errors import PlanError
from zephyr.expr import Expr
from zephyr.io.binary import BinaryWriter
from zephyr.io.csv import CsvReader
from zephyr.io.files import absolute_path, list_files
from zephyr.io.formats import Reader, Writer
from zephyr.io.jsonl import JsonlReader, JsonlWriter
from zephyr.io.load import FileReader
from zephyr.io.text import TextReader, TextWriter
from zephyr.ops import (
    FilterOp,
    FlatMapOp,
    GroupByOp,
    JoinHow,
    JoinOp,
    LoadOp,
    LogicalOp,
    MapOp,
    MapShardOp,
    PathPattern,
    ReduceOp,
    ReshardOp,
    SelectOp,
    SortOp,
    TakeOp,
    UnionOp,
    WindowByOp,
    WindowOp,
    WriteOp,
)
from zephyr.plan import compute_plan
from zephyr.stage import count_items

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Source:
    """What a dataset starts from; each item is a shard."""

    items: tuple[Any, ...]
    """The values, or the paths of files."""
    sizes_bytes: tuple[int, ...] | None = None
    """Sizes of the files; None when the items are no files."""
    versions: tuple[str, ...] | None = None
    """What changes when a file does: its time of change or its tag; None when the items are no files."""


@dataclass(frozen=True, slots=True)
class Dataset(Generic[T]):
    """Items in shards, and what is to be done with them. Every method returns a new dataset.

    Example:
        >>> from fray import create_job_ctx
        >>> from zephyr import Backend, Dataset
        >>> Backend.execute(Dataset.from_list([1, 2, 3]).map(lambda x: x * x), create_job_ctx("sync"))
        [1, 4, 9]
    """

    source: Source
    """What it starts from."""
    operations: tuple[LogicalOp, ...] = ()
    """What is to be done, in order."""

    @staticmethod
    def from_list(items: Iterable[U]) -> Dataset[U]:
        """Return a dataset with a shard per item."""
        return Dataset(Source(tuple(items)))

    @staticmethod
    def from_iterable(items: Iterable[U]) -> Dataset[U]:
        """Return a dataset with a shard per item; ``items`` is read to its end now."""
        return Dataset(Source(tuple(items)))

    @staticmethod
    def from_files(pattern: str, empty_glob_ok: bool = False) -> Dataset[str]:
        """Return the sorted paths of the files that match, a shard each. Looks for them now.

        Args:
            pattern: path or fsspec URL with ``*``, ``**``, ``?``, ``[...]`` and ``{a,b}``.
            empty_glob_ok: return an empty dataset when nothing matches.

        Raises:
            FileNotFoundError: naming the pattern, when nothing matches.
        """
        found = list_files(pattern)
        if not found and not empty_glob_ok:
            raise FileNotFoundError(f"no file matches {pattern!r}; pass empty_glob_ok=True if that is fine")
        paths, sizes, versions = zip(*found, strict=True) if found else ((), (), ())
        return Dataset(Source(paths, sizes, versions))

    def map(self, fn: Callable[[T], U]) -> Dataset[U]:
        """Replace every item by ``fn(item)``."""
        return self._with(MapOp(_function("map", fn)))

    def flat_map(self, fn: Callable[[T], Iterable[U]]) -> Dataset[U]:
        """Replace every item by the items of ``fn(item)``."""
        return self._with(FlatMapOp(_function("flat_map", fn)))

    def filter(self, condition: Callable[[T], Any] | Expr) -> Dataset[T]:
        """Keep the items for which ``condition(item)`` is true, or the expression holds.

        An expression, such as ``col("n") > 3``, is evaluated while files are read where that cannot change the result.
        """
        if isinstance(condition, Expr):
            return self._with(FilterOp(expr=condition))
        return self._with(FilterOp(_function("filter", condition)))

    def select(self, *columns: str) -> Dataset[dict[str, Any]]:
        """Reduce records to these columns, in this order; a record that lacks one goes on without it."""
        for column in columns:
            if not isinstance(column, str):
                raise TypeError(f"select takes names of columns, not {type(column).__name__}: {column!r:.80}")
        return self._with(SelectOp(columns))

    def map_shard(self, fn: Callable[[Iterator[T]], Iterable[U]]) -> Dataset[U]:
        """Replace the items of each shard by those of ``fn(iterator over the shard)``; also for shards without items."""
        return self._with(MapShardOp(_function("map_shard", fn)))

    def take_per_shard(self, count: int) -> Dataset[T]:
        """Keep the first ``count`` items of each shard, and read no more of it.

        Raises:
            ValueError: if ``count`` is negative.
        """
        if operator.index(count) < 0:
            raise PlanError(f"take_per_shard({count}) must not be negative")
        return self._with(TakeOp(count))

    def window(self, size: int) -> Dataset[list[T]]:
        """Replace consecutive items by lists of ``size``; the last list of a shard may be shorter.

        Raises:
            ValueError: if ``size`` is not positive.
        """
        return self._with(WindowOp(_positive("size", size)))

    batch = window

    def window_by(self, folder: Callable[[Any, T], tuple[Any, Any]], initial_state: Any) -> Dataset[list[T]]:
        """Replace consecutive items by lists whose ends ``folder`` decides; none goes beyond its shard.

        Args:
            folder: ``folder(state, item)`` returns (whether the item joins the current list, the new state). An item that does
                not begins a list of its own, whose state is that of ``folder(initial_state, item)``.
            initial_state: the state of an empty list.
        """
        return self._with(WindowByOp(_function("window_by", folder), initial_state))

    def load_file(self, columns: Sequence[str] | None = None) -> Dataset[Any]:
        """Replace every path by the records of its file, in the format that its suffix names.

        Known are .jsonl, .ndjson, .parquet, .vortex, .csv, .tsv, .txt and .text, the text formats also with .gz, .zst, .zstd,
        .bz2 or .xz behind. ``columns`` keeps only these, where records have columns.
        """
        return self._load(FileReader(_columns(columns)))

    def load_jsonl(self, columns: Sequence[str] | None = None) -> Dataset[Any]:
        """Replace every path by the values of its lines of JSON; blank lines are skipped. See ``load_file``."""
        return self._load(JsonlReader(_columns(columns)))

    def load_parquet(self, columns: Sequence[str] | None = None) -> Dataset[dict[str, Any]]:
        """Replace every path by the rows of its Parquet file. See ``load_file``."""
        from zephyr.io.parquet import ParquetReader  # imports pyarrow

        return self._load(ParquetReader(_columns(columns)))

    def load_vortex(self, columns: Sequence[str] | None = None) -> Dataset[dict[str, Any]]:
        """Replace every path by the rows of its Vortex file; needs the extra ``zephyr[vortex]``. See ``load_file``."""
        from zephyr.io.vortex import VortexReader

        return self._load(VortexReader(_columns(columns)))

    def load_csv(
        self, columns: Sequence[str] | None = None, delimiter: str = ",", header: Literal[True] | Sequence[str] = True
    ) -> Dataset[dict[str, str]]:
        """Replace every path by the rows of its CSV file, as dicts of strings.

        Args:
            columns: see ``load_file``.
            delimiter: what stands between fields.
            header: True if the first line names the columns, else the names.
        """
        return self._load(CsvReader(_columns(columns), None, delimiter, header if header is True else tuple(header)))

    def load_text(self, errors: str = "strict") -> Dataset[str]:
        """Replace every path by the lines of its file, decompressed by suffix; see ``zephyr.load_text``."""
        return self._load(TextReader(errors))

    def reshard(self, num_shards: int | None) -> Dataset[T]:
        """Spread the items evenly over ``num_shards`` shards, in order; None changes nothing.

        Raises:
            ValueError: if ``num_shards`` is not positive.
        """
        return self if num_shards is None else self._with(ReshardOp(_positive("num_shards", num_shards)))

    def group_by(
        self,
        key: Callable[[T], K],
        reducer: Callable[[K, Iterator[Any]], Any],
        num_output_shards: int | None = None,
        *,
        sort_by: Callable[[Any], Any] | None = None,
        combiner: Callable[[K, Iterator[Any]], Any] | None = None,
    ) -> Dataset[Any]:
        """Bring equal keys together: each key once, in one shard.

        Keys are equal when Python says so (1, 1.0 and True are; None is a key), and may be lists and dicts too; objects of
        other types are told apart by type and content. Keys come in an order that depends on nothing but the keys.

        Args:
            key: item to key; must return the same for the same item.
            reducer: ``reducer(key, values)`` returns one value of any type, or is a generator of any number of values.
                ``values`` is an iterator, in source order: by shard, then by position.
            num_output_shards: exactly this many shards; None for as many as there are, at most 64.
            sort_by: the values of each key come in this order instead.
            combiner: ``combiner(key, values)`` is given some consecutive values, its own results among them, and returns
                or yields fewer that mean the same to the reducer. How often it is called depends on the data.

        Raises:
            ValueError: if ``num_output_shards`` is not positive.
        """
        shards = None if num_output_shards is None else _positive("num_output_shards", num_output_shards)
        for role, fn in (("key", key), ("reducer", reducer), ("sort_by", sort_by), ("combiner", combiner)):
            if fn is not None:
                _function(f"group_by {role}", fn)
        return self._with(GroupByOp(key, reducer, shards, sort_by, combiner))

    def deduplicate(self, key: Callable[[T], Any], num_output_shards: int | None = None) -> Dataset[T]:
        """Keep of all items with equal keys the first one in source order; see ``group_by`` for keys and shards."""
        return self.group_by(key, verbs.keep_first, num_output_shards, combiner=verbs.keep_first)

    def reduce(self, local: Callable[[Iterator[T]], U], global_: Callable[[Iterator[U]], Any] | None = None) -> Dataset[Any]:
        """Reduce all items to one: ``local`` each shard's (also one without items), ``global_`` the results of ``local``.

        ``global_=None`` uses ``local`` for both. A dataset without shards stays empty.
        """
        _function("reduce", local)
        return self._with(ReduceOp(local, local if global_ is None else _function("reduce", global_)))

    def count(self) -> Dataset[int]:
        """Replace all items by their number."""
        return self._with(ReduceOp(count_items, sum))

    def sorted_merge_join(
        self,
        right: Dataset[Any],
        left_key: Callable[[T], Any],
        right_key: Callable[[Any], Any],
        combiner: Callable[[T, Any], Any] | None = None,
        how: JoinHow = "inner",
    ) -> Dataset[Any]:
        """Join each shard with that of the same number of ``right``; both must be sorted by key. Streams, shuffles nothing.

        Args:
            right: as many shards as this dataset.
            left_key: item of this dataset to key.
            right_key: item of ``right`` to key.
            combiner: left item and right item (None if there is none) to an item; None for ``{**left, **right}``.
            how: ``inner`` or ``left``.

        Raises:
            ValueError: if ``how`` is another, and when the plan is computed, if the numbers of shards differ.
        """
        if how not in ("inner", "left"):
            raise PlanError(f"a sorted merge join can be 'inner' or 'left', not {how!r}; join() can be more")
        keys = _function("sorted_merge_join", left_key), _function("sorted_merge_join", right_key)
        return self._with(JoinOp(_dataset(right), *keys, how, _combiner(combiner), sorted=True))

    def join(
        self,
        right: Dataset[Any],
        on: str | Sequence[str] | Callable[[Any], Any],
        how: JoinHow = "inner",
        *,
        right_on: str | Sequence[str] | Callable[[Any], Any] | None = None,
        combiner: Callable[[Any, Any], Any] | None = None,
        num_output_shards: int | None = None,
    ) -> Dataset[Any]:
        """Bring items of two datasets together that have equal keys. Shuffles both.

        All pairs of a key come out, those of the first left item first. Keys are equal as in ``group_by``; None equals None.

        Args:
            right: the other dataset.
            on: a column, several, or a function from item to key.
            how: ``inner`` keeps pairs; ``left``, ``right`` and ``outer`` also what has no partner on that side or both;
                ``semi`` and ``anti`` keep the left items that have a partner, or none, unchanged.
            right_on: the same as ``on`` for ``right``, if it differs.
            combiner: left item and right item (None where there is none) to an item; None for ``{**left, **right}``.
            num_output_shards: exactly this many shards; None for as many as the side with more has, at most 64.

        Raises:
            ValueError: if ``how`` is none of these or ``num_output_shards`` not positive.
        """
        if how not in verbs.JOINS:
            raise PlanError(f"how={how!r} must be one of {', '.join(map(repr, verbs.JOINS))}")
        shards = None if num_output_shards is None else _positive("num_output_shards", num_output_shards)
        keys = verbs.key_of(on), verbs.key_of(on if right_on is None else right_on)
        return self._with(JoinOp(_dataset(right), *keys, how, _combiner(combiner), shards))

    def sort(
        self, key: Callable[[T], Any] | None = None, num_output_shards: int | None = None, reverse: bool = False
    ) -> Dataset[T]:
        """Put all items in order: shard after shard, and within each. Equal items keep their order, as with ``sorted``.

        Args:
            key: item to a value that can be compared; None for the item itself.
            num_output_shards: exactly this many shards; None for as many as there are, at most 64. Their sizes are about
                equal as long as no key is very frequent.
            reverse: largest first.
        """
        shards = None if num_output_shards is None else _positive("num_output_shards", num_output_shards)
        return self._with(SortOp(verbs.itself if key is None else _function("sort", key), shards, bool(reverse)))

    def shuffle(self, seed: int, num_output_shards: int | None = None) -> Dataset[T]:
        """Put all items in an order, and in shards, that depend on the seed and their position alone; see ``group_by``."""
        tagged = self._with(MapShardOp(verbs.Tagged(operator.index(seed)), numbered=True))
        return tagged.group_by(operator.itemgetter(0), verbs.untagged, num_output_shards)

    def sample(self, fraction: float, seed: int) -> Dataset[T]:
        """Keep each item with a probability, decided by the seed and its position alone.

        Raises:
            ValueError: if ``fraction`` is not between 0 and 1.
        """
        if not 0 <= fraction <= 1:
            raise PlanError(f"sample(fraction={fraction!r}) must be between 0 and 1")
        return self._with(MapShardOp(verbs.Sampled(float(fraction), operator.index(seed)), numbered=True))

    def union(self, *others: Dataset[Any]) -> Dataset[Any]:
        """Append the shards of other datasets."""
        return self._with(UnionOp(tuple(map(_dataset, others)))) if others else self

    def write_jsonl(self, pattern: PathPattern, skip_existing: bool = False, *, level: int | None = None) -> Dataset[str]:
        """Write each shard to a file of JSON lines, gzip or zstd by suffix, and replace its items by the file's path.

        A file appears whole or not at all, and replaces one that is there already. A shard without items writes its file too.
        Beside the files of a directory come ``_manifest.json``, which describes them, and ``_SUCCESS``.

        Args:
            pattern: path or fsspec URL with ``{shard}``, ``{total}`` and ``{basename}`` (of the input file, if a shard is
                one), such as ``out/{shard:05d}-of-{total:05d}.jsonl.gz``; or a function of the first two. It must name
                another file for each shard.
            skip_existing: leave out shards, their loading included, whose file is there and was, by the manifest, written by
                the same operations from the same input.
            level: of compression: for gzip 0 to 9, of which 0 to 3 are isal's (2 unless given); for zstd 1 to 22 (3).
        """
        return self._write(pattern, JsonlWriter(level), skip_existing)

    def write_parquet(self, pattern: PathPattern, schema: pa.Schema | None = None, skip_existing: bool = False) -> Dataset[str]:
        """Write each shard to a Parquet file; see ``write_jsonl`` for paths, and ``zephyr.io.parquet`` for types.

        Args:
            pattern: see ``write_jsonl``.
            schema: the columns; None infers them from the records, and widens them when later records need it.
            skip_existing: see ``write_jsonl``.
        """
        from zephyr.io.parquet import ParquetWriter  # imports pyarrow

        return self._write(pattern, ParquetWriter(schema), skip_existing)

    def write_vortex(self, pattern: PathPattern, schema: pa.Schema | None = None, skip_existing: bool = False) -> Dataset[str]:
        """Write each shard to a Vortex file; needs the extra ``zephyr[vortex]``. See ``write_parquet``."""
        from zephyr.io.vortex import VortexWriter

        return self._write(pattern, VortexWriter(schema), skip_existing)

    def write_text(self, pattern: PathPattern, skip_existing: bool = False) -> Dataset[str]:
        """Write each shard's strings to a file, one a line; see ``write_jsonl``."""
        return self._write(pattern, TextWriter(), skip_existing)

    def write_binary(self, pattern: PathPattern, skip_existing: bool = False) -> Dataset[str]:
        """Write each shard's bytes to a file, one behind the other; see ``write_jsonl``."""
        return self._write(pattern, BinaryWriter(), skip_existing)

    def explain(self) -> str:
        """Return the plan as text.

        Raises:
            PlanError: if the dataset cannot be carried out as written.
        """
        return str(compute_plan(self))

    def _load(self, reader: Reader) -> Dataset[Any]:
        return self._with(LoadOp(reader))

    def _write(self, pattern: PathPattern, writer: Writer, skip_existing: bool) -> Dataset[str]:
        place = absolute_path(pattern) if isinstance(pattern, str) else _function("write", pattern)
        return self._with(WriteOp(place, writer, bool(skip_existing)))

    def _with(self, operation: LogicalOp) -> Dataset[Any]:
        return cast("Dataset[Any]", replace(self, operations=(*self.operations, operation)))


def _function(verb: str, fn: Any) -> Any:
    if not callable(fn):
        raise TypeError(f"{verb} takes a function, not {type(fn).__name__}: {fn!r:.80}")
    return fn


def _dataset(value: Any) -> Dataset[Any]:
    if not isinstance(value, Dataset):
        raise TypeError(f"expected a Dataset, not {type(value).__name__}: {value!r:.80}")
    return value


def _combiner(combiner: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    return verbs.merge_records if combiner is None else cast("Callable[[Any, Any], Any]", _function("join combiner", combiner))


def _columns(columns: Any) -> tuple[str, ...] | None:
    if columns is None:
        return None
    if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
        raise TypeError(f"columns must be a list of names, not {columns!r:.80}")
    return tuple(columns)


def _positive(option: str, number: int) -> int:
    value = operator.index(number)
    if value <= 0:
        raise PlanError(f"{option}={value} must be at least 1")
    return value
