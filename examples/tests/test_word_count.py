from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from fray import create_job_ctx
from zephyr import Backend, Dataset

SCRIPT = Path(__file__).parents[1] / "word_count.py"
SAMPLE = f"{sysconfig.get_path('stdlib')}/{{json,email,test/encoded_modules}}/*.py"


def count_words(paths: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path in paths:
        counts.update(re.findall("[A-Za-z_]+", Path(path).read_text("utf-8", "replace").lower()))
    return counts


def read_counts(output: Path) -> dict[str, int]:
    records = [json.loads(line) for path in sorted(output.glob("words-*.jsonl")) for line in path.read_text().splitlines()]
    assert len({record["word"] for record in records}) == len(records)
    return {record["word"]: record["count"] for record in records}


@pytest.mark.integration
@pytest.mark.parametrize("context", ["sync", "threadpool", "fray"])
def test_the_script_counts_as_a_plain_loop_does(context: str, tmp_path: Path) -> None:
    options = [] if context == "sync" else ["--workers", "2"]
    output = tmp_path / "words"
    command = [sys.executable, str(SCRIPT), "--context", context, "--input", SAMPLE, "--output", str(output), "--top", "3"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    paths = Dataset.from_files(SAMPLE).source.items
    expected = count_words(paths)
    assert read_counts(output) == expected
    assert f"{len(paths):,} files, {expected.total():,} words, {len(expected):,} distinct" in done.stdout
    assert [int(line.split()[0].replace(",", "")) for line in done.stdout.splitlines()[:3]] == [
        count for _, count in expected.most_common(3)
    ]


@pytest.mark.unit
def test_the_pipeline_gives_the_same_files_on_sync_and_threads(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("word_count", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    outputs = []
    for kind in ("sync", "threadpool"):
        with create_job_ctx(kind, max_workers=None if kind == "sync" else 2) as ctx:
            paths = Backend.execute(script.count_words(Dataset.from_files(SAMPLE), str(tmp_path / kind)), ctx)
        outputs.append([Path(path).read_bytes() for path in paths])
    assert outputs[0] == outputs[1]
