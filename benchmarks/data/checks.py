"""Say what the outputs of the data workloads must be, and whether one is. Runs in the ``data`` environment.

``python checks.py compute INPUT`` reads an input and writes ``expected.json`` beside it (and ``expected.bin``, for D1).
``python checks.py verify WORK INPUT OUTPUT FILES`` prints what the output holds, as JSON, or ends with a message and code 1.
``FILES`` is how many files it must be, or ``any``.
Hashes of many records are sums, so that their order does not matter. Everything is read record by record, with nothing of the
engines but the codecs.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

EXPECTED = "expected.json"
RECORDS = "expected.bin"
ENCODER = msgspec.json.Encoder(order="sorted")
COLUMNS = {
    "id": pa.types.is_string,
    "url": pa.types.is_string,
    "text": pa.types.is_string,
    "score": pa.types.is_floating,
    "n": pa.types.is_integer,
    "lang": pa.types.is_string,
    "tags": pa.types.is_list,
}
"""What each column of the Parquet files must be; large and view types count as the plain ones."""


class Sum:
    """Adds up hashes, and counts them."""

    def __init__(self) -> None:
        self.rows, self.total = 0, 0

    def add(self, value: bytes) -> None:
        """Add the hash of a value."""
        self.rows += 1
        self.total = (self.total + hash_of(value)) % 2**64

    def result(self) -> dict[str, Any]:
        """Return both; the hash as text, since JSON has no such integers everywhere."""
        return {"rows": self.rows, "hash": f"{self.total:016x}"}


def hash_of(value: bytes) -> int:
    """Return 64 bits."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")


def main() -> None:
    """Compute or verify."""
    if sys.argv[1] == "compute":
        source = Path(sys.argv[2])
        expected = compute_documents(source) if source.name == "D1" else compute_rows(source)
        (source.parent / f"{source.name}.{EXPECTED}").write_text(json.dumps(expected, indent=2) + "\n")
        return
    work, source, output = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    if output.is_dir() and sys.argv[5] not in ("any", str(len(list_files(output)))):
        fail(f"{len(list_files(output))} files were written, not {sys.argv[5]}")
    print(json.dumps(VERIFY[work](source, output)))


def compute_documents(source: Path) -> dict[str, Any]:
    """Return what W1 to W4 must make of D1."""
    rewritten, everything, ids, first, texts, words, seen = Sum(), Sum(), Sum(), Sum(), Sum(), Counter[str](), set[str]()
    lengths, ns, hashes = 0, 0, array("Q")
    for record in read_lines(source):
        encoded, text = ENCODER.encode(record), record["text"]
        everything.add(encoded)
        hashes.append(hash_of(encoded))
        ns += record["n"]
        words.update(text.split(" "))
        if record["n"] % 10:
            rewritten.add(ENCODER.encode(record | {"len": len(text)}))
            lengths += len(text)
        if record["n"] < 1000:
            ids.add(record["id"].encode())
        if text not in seen:
            seen.add(text)
            first.add(encoded)
            texts.add(text.encode())
    (source.parent / f"{source.name}.{RECORDS}").write_bytes(hashes.tobytes())
    return {
        "rewrite": rewritten.result() | {"lengths": lengths},
        "to_parquet": everything.result() | {"ns": ns},
        "read_ids": ids.result(),
        "count_words": describe_words(words.items()),
        "deduplicate": {"first": first.result(), "texts": texts.result()},
    }


def compute_rows(source: Path) -> dict[str, Any]:
    """Return what W5 must make of D2 or D2s."""
    rows = sorted((row["bucket"], row["n"], row["payload"]) for row in read_lines(source))
    ranked, rank, last = Sum(), 0, None
    for bucket, n, payload in rows:
        rank = rank + 1 if bucket == last else 0
        last = bucket
        ranked.add(encode_row(bucket, n, rank, payload))
    return {"sort_groups": ranked.result()}


def verify_rewrite(source: Path, output: Path) -> dict[str, Any]:
    """W1: rows, sum of lengths, hash."""
    found, lengths = Sum(), 0
    for record in read_lines(output):
        found.add(ENCODER.encode(record))
        lengths += record["len"]
    return expect(source, "rewrite", found.result() | {"lengths": lengths})


def verify_parquet(source: Path, output: Path) -> dict[str, Any]:
    """W2: schema, compression, rows, sum of ``n``, hash."""
    found, ns = Sum(), 0
    for path in list_files(output):
        file = pq.ParquetFile(path)
        check_schema(file, path.name)
        for batch in file.iter_batches():
            for record in batch.to_pylist():
                found.add(ENCODER.encode(record))
                ns += record["n"]
    return expect(source, "to_parquet", found.result() | {"ns": ns})


def verify_ids(source: Path, output: Path) -> dict[str, Any]:
    """W2, reading: the ids, in a file of JSON."""
    found = Sum()
    for name in json.loads(output.read_text()):
        found.add(name.encode())
    return expect(source, "read_ids", found.result())


def verify_words(source: Path, output: Path) -> dict[str, Any]:
    """W3: the total, the number of different words, the top 20, the hash of all."""
    tables = [pq.read_table(path, columns=["word", "count"]) for path in list_files(output)]
    counts = [(row["word"], row["count"]) for table in tables for row in table.to_pylist()]
    return expect(source, "count_words", describe_words(counts))


def verify_duplicates(source: Path, output: Path) -> dict[str, Any]:
    """W4: each text once, and either the first record of each, or at least one that was there, unchanged."""
    records, texts, known = Sum(), Sum(), array("Q")
    known.frombytes((source.parent / f"{source.name}.{RECORDS}").read_bytes())
    inputs = set(known)
    for record in read_lines(output):
        encoded = ENCODER.encode(record)
        if hash_of(encoded) not in inputs:
            fail(f"{record['id']} is not in the input, or was changed")
        records.add(encoded)
        texts.add(record["text"].encode())
    wanted = read_expected(source, "deduplicate")
    if texts.result() != wanted["texts"]:
        fail(f"texts: expected {wanted['texts']}, got {texts.result()}")
    return {"rows": records.rows, "kept": "first" if records.result() == wanted["first"] else "any"}


def verify_groups(source: Path, output: Path) -> dict[str, Any]:
    """W5: rows and hash, ranks counted up inside each bucket, every bucket in one piece."""
    found, done = Sum(), set[int]()
    for path in list_files(output):
        last, rank = None, -1
        for row in read_file(path):
            bucket = row["bucket"]
            if bucket != last:
                if bucket in done:
                    fail(f"{path.name}: bucket {bucket} is in several pieces")
                done.add(bucket)
                last, rank = bucket, -1
            rank += 1
            if row["rank"] != rank:
                fail(f"{path.name}: bucket {bucket} is out of order: rank {row['rank']} where {rank} belongs")
            found.add(encode_row(bucket, row["n"], rank, row["payload"]))
    return expect(source, "sort_groups", found.result())


VERIFY: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "rewrite": verify_rewrite,
    "to_parquet": verify_parquet,
    "read_ids": verify_ids,
    "count_words": verify_words,
    "deduplicate": verify_duplicates,
    "sort_groups": verify_groups,
}


def describe_words(counts: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Return what is compared of word counts."""
    found, ordered = Sum(), sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    for word, count in ordered:
        found.add(f"{word} {count}".encode())
    return found.result() | {"total": sum(count for _, count in ordered), "top": [list(pair) for pair in ordered[:20]]}


def encode_row(bucket: int, n: int, rank: int, payload: str) -> bytes:
    """Return a row of W5 as bytes."""
    return b"%d %d %d %s" % (bucket, n, rank, payload.encode())


def check_schema(file: pq.ParquetFile, name: str) -> None:
    """Compare columns, types and compression."""
    schema = file.schema_arrow
    if sorted(schema.names) != sorted(COLUMNS):
        fail(f"{name}: columns are {schema.names}, not {list(COLUMNS)}")
    wrong = [field for field in schema if not COLUMNS[field.name](plain(field.type))]
    if wrong:
        fail(f"{name}: wrong types: {wrong}")
    if file.metadata.num_row_groups and file.metadata.row_group(0).column(0).compression != "ZSTD":
        fail(f"{name}: compressed by {file.metadata.row_group(0).column(0).compression}, not ZSTD")


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the plain type for a large or view one."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.list_(kind.value_type) if pa.types.is_large_list(kind) else kind


def list_files(folder: Path) -> list[Path]:
    """Return the files with records, in order of name; names that begin with ``.`` or ``_`` are notes of the engines."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")) and path.is_file())
    if not found:
        fail("nothing was written")
    return found


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of all files."""
    for path in list_files(folder):
        yield from read_file(path)


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file."""
    decoder = msgspec.json.Decoder()
    with igzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        yield from map(decoder.decode, file)


def read_expected(source: Path, work: str) -> Any:
    """Return what ``compute`` found."""
    return json.loads((source.parent / f"{source.name}.{EXPECTED}").read_text())[work]


def expect(source: Path, work: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found if it is what must be."""
    wanted = read_expected(source, work)
    different = [key for key in wanted if found[key] != wanted[key]]
    if different:
        fail("; ".join(f"{key}: expected {str(wanted[key])[:80]}, got {str(found[key])[:80]}" for key in different))
    return found


def fail(message: str) -> None:
    """End with a message."""
    sys.exit(message)


if __name__ == "__main__":
    main()
