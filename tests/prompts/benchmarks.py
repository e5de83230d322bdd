"""Benchmarks of a test's own under the real names: alpaca-eval has the given prompts, the file of mt-bench is nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gshf_release.data.hashing import sha256_file
from gshf_release.prompts.benchmark_files import BENCHMARKS, BenchmarkFile


def give(folder: Path, monkeypatch: pytest.MonkeyPatch, *prompts: str) -> Path:
    """Write the file of alpaca-eval into a new folder, which is returned, and let nothing else be found."""
    place = folder / "benchmarks"
    place.mkdir()
    path = place / "own.json"
    path.write_text(json.dumps([{"instruction": prompt} for prompt in prompts]), encoding="utf-8")
    own = BenchmarkFile(path.name, sha256_file(path), path.stat().st_size, ())
    gone = BenchmarkFile("gone.jsonl", "0" * 64, 1, ())
    for name, file in (("alpaca-eval", own), ("mt-bench", gone)):
        monkeypatch.setitem(BENCHMARKS, name, (file, BENCHMARKS[name][1]))
    monkeypatch.setenv("GSHF_CACHE", str(folder / "cache"))
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(place))
    return place
