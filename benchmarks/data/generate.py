"""Make the inputs of the data workloads: the same bytes for the same scale and seed.

``python generate.py SCALE D1|D2|D2s FOLDER`` runs in the ``data`` environment. Every input is 16 files, so that two slots have
something to share.

- D1: ``{id, url, text, score, n, lang, tags}`` in ``.jsonl.gz`` (zlib, level 6), 1 GiB raw at scale 1. Word counts are
  log-normal, words are Zipf over a vocabulary of 30,000, every fifth text is that of a record in another file.
- D2: ``{bucket, n, payload}`` in ``.jsonl``, 64 bytes a line, 10 million lines over 1 million buckets at scale 1. Every ``n``
  is there once, so that there is one right order in a bucket.
- D2s: the same, the buckets Zipf with exponent 1.1, and one more bucket with every fifth line.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20_251_125
SHARDS = 16
DOCUMENTS, ROWS, BUCKETS = 726_000, 10_000_000, 1_000_000
"""At scale 1."""
VOCABULARY = 30_000
MEDIAN_WORDS, SIGMA_WORDS = 180, 0.8
N_LIMIT = 100_000
"""``n`` of D1 is below it; reading those with ``n < 1000`` is to find one in a hundred."""
SYLLABLES = [
    *("ba", "co", "de", "fi", "gu", "ha", "jo", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wa", "xe", "yi", "zu"),
    *("sté", "för", "não", "über", "œu"),
]
LANGUAGES = ["en", "de", "fr", "es", "pt", "it", "nl", "pl"]
ROW_BYTES = 64


def main() -> None:
    """Write one input into a folder that is there."""
    scale, name, folder = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    rng = np.random.default_rng([SEED, len(name)])
    if name == "D1":
        write_documents(rng, max(SHARDS * 4, round(DOCUMENTS * scale)), folder)
    else:
        write_rows(rng, max(SHARDS * 4, round(ROWS * scale)), max(8, round(BUCKETS * scale)), name == "D2s", folder)


def write_documents(rng: np.random.Generator, count: int, folder: Path) -> None:
    """Write D1."""
    texts = make_texts(rng, count)
    score, n = rng.random(count).round(4).tolist(), rng.integers(0, N_LIMIT, count).tolist()
    lang, tags = rng.integers(0, len(LANGUAGES), count).tolist(), rng.integers(0, 40, (count, 4)).tolist()
    many = rng.integers(0, 5, count).tolist()
    for shard, numbers in enumerate(np.array_split(np.arange(count), SHARDS)):
        with gzip.GzipFile(folder / f"{shard:05d}.jsonl.gz", "wb", 6, mtime=0) as file:
            for i in numbers.tolist():
                record = {
                    "id": f"d{i:08d}",
                    "url": f"https://site{i % 997}.example/page/{i}",
                    "text": texts[i],
                    "score": score[i],
                    "n": n[i],
                    "lang": LANGUAGES[lang[i]],
                    "tags": [f"tag{tag}" for tag in tags[i][: many[i]]],
                }
                file.write(dump_line(record))


def make_texts(rng: np.random.Generator, count: int) -> list[str]:
    """Return texts in the order of records; every fifth is a copy of one in another file."""
    words, shares = make_words(), 1 / np.arange(1, VOCABULARY + 1)
    ladder = np.cumsum(shares / shares.sum())
    lengths = np.maximum(1, np.exp(np.log(MEDIAN_WORDS) + SIGMA_WORDS * rng.standard_normal(count)).astype(int))
    texts = []
    for length in lengths.tolist():
        picked = np.minimum(np.searchsorted(ladder, rng.random(length)), VOCABULARY - 1)
        texts.append(" ".join([words[i] for i in picked.tolist()]))
    shard_of = np.repeat(np.arange(SHARDS), [len(part) for part in np.array_split(np.arange(count), SHARDS)])
    copies = rng.permutation(count)[: count // 5]
    originals = np.setdiff1d(np.arange(count), copies)
    chosen = rng.choice(originals, len(copies))
    while len(same := np.flatnonzero(shard_of[chosen] == shard_of[copies])):
        chosen[same] = rng.choice(originals, len(same))
    for copy, original in zip(copies.tolist(), chosen.tolist(), strict=True):
        texts[copy] = texts[original]
    return texts


def make_words() -> list[str]:
    """Return the vocabulary, all different, short words first: frequent words are short."""
    base, words = len(SYLLABLES), []
    for rest in range(VOCABULARY):
        word = SYLLABLES[rest % base]
        while rest := rest // base:
            word += SYLLABLES[rest % base]
        words.append(word)
    return words


def write_rows(rng: np.random.Generator, count: int, buckets: int, skewed: bool, folder: Path) -> None:
    """Write D2 or D2s."""
    bucket = skewed_buckets(rng, count, buckets) if skewed else rng.integers(0, buckets, count)
    n = rng.permutation(count)
    letters = "".join(map(chr, rng.integers(97, 123, 1_000_000).tolist()))
    offsets = rng.integers(0, len(letters) - ROW_BYTES, count)
    for shard, numbers in enumerate(np.array_split(np.arange(count), SHARDS)):
        with (folder / f"{shard:05d}.jsonl").open("w") as file:
            for b, i, at in zip(bucket[numbers].tolist(), n[numbers].tolist(), offsets[numbers].tolist(), strict=True):
                head = f'{{"bucket":{b},"n":{i},"payload":"'
                file.write(f'{head}{letters[at : at + ROW_BYTES - 3 - len(head)]}"}}\n')


def skewed_buckets(rng: np.random.Generator, count: int, buckets: int) -> np.ndarray:
    """Return bucket numbers: Zipf 1.1 over all but the last, which has every fifth line."""
    shares = np.arange(1, buckets, dtype=float) ** -1.1
    ladder = np.cumsum(shares / shares.sum())
    ranks = np.minimum(np.searchsorted(ladder, rng.random(count)), buckets - 2)
    found = rng.permutation(buckets - 1)[ranks]
    found[rng.permutation(count)[: count // 5]] = buckets - 1
    return found


def dump_line(record: dict[str, Any]) -> bytes:
    """Return a line of compact JSON, not escaped beyond need."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


if __name__ == "__main__":
    main()
