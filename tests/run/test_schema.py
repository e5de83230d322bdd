"""What a run says about itself is checked before it is used: shapes, and paths that stay inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import DataError
from gshf_release.run import schema
from gshf_release.run.directory import RunDirectory, seed_runs
from gshf_release.run.stage import Input, Stage, Task

PLAIN = Stage("a", "m:f", outputs=("x.json",)).as_json()


def planned(tmp_path: Path, *entries: Any) -> RunDirectory:
    (tmp_path / "plan.json").write_text(json.dumps({"stages": list(entries)}), encoding="utf-8")
    return RunDirectory(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../outside"},
        {"name": "/etc"},
        {"name": "a/../../b"},
        {"name": ""},
        {"outputs": ["../../x"]},
        {"outputs": ["/dev/zero"]},
        {"outputs": ["a\u0000b"]},
        {"name": "a\u001b[31m"},
        {"shards": 10**12},
        {"shards": 0},
        {"shards": "2"},
        {"parameters": []},
        {"work": 3},
        {"inputs": [{"stage": "../b", "file": "x"}]},
        {"inputs": [{"stage": "b", "file": "x"}]},
        {"inputs": [3]},
        {"surprise": 1},
    ],
)
def test_a_stage_of_another_shape_or_outside_the_run_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"plan\.json is damaged: ") as caught:
        _ = planned(tmp_path, PLAIN | changes).plan
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"stages": 3}', '{"stages": [3]}', "[" * 9999, "\udcff"])
def test_a_plan_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"plan\.json is damaged"):
        _ = RunDirectory(tmp_path).plan


def test_a_declared_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    reader = Stage("b/c d", "m:g", inputs=(Input("a", "x.json"),), outputs=("y",), keys=("seed",), numbers="m:n")
    assert planned(tmp_path, PLAIN, reader.as_json()).plan == [Stage.from_json(PLAIN), reader]


@pytest.mark.parametrize(
    "document",
    [
        {"stage": "a"},
        {"stage": "a", "fingerprint": "f", "inputs": [], "outputs": {}, "cells": None},
        {"stage": "a", "fingerprint": "f", "inputs": {}, "outputs": {"x": 3}, "cells": None},
        {
            "stage": "a",
            "fingerprint": "f",
            "inputs": {},
            "outputs": {"../x": {"sha256": "", "files": {}}},
            "cells": None,
        },
        {"stage": "a", "fingerprint": "f", "inputs": {}, "outputs": {"x": {"sha256": "", "files": {"../y": ""}}}},
        {"stage": "a", "fingerprint": "f", "inputs": {}, "outputs": {}, "cells": 3},
        {"stage": "a", "fingerprint": "f", "inputs": {}, "outputs": {}, "cells": None, "pruned": [3]},
    ],
)
def test_a_manifest_of_another_shape_counts_as_none(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    assert RunDirectory(tmp_path).manifest(Task(Stage("a", "m:f"))) is None


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {"time": 1},
        {"event": "started", "time": 1},
        {"event": "finished", "time": 1, "stage": "a"},
        {"event": "finished", "time": 1, "stage": "a", "seconds": [3]},
        {"event": "finished", "time": 1, "stage": "\ud800", "seconds": 3},
        {"event": "finished", "time": "$(id)", "stage": "a", "seconds": 3},
        {"event": "finished", "time": 1, "stage": "a", "seconds": 3, "parts": {"loading": "x"}},
        {"event": "judged", "time": 1, "cost": "free"},
        {"event": "started", "time": 1e300, "stage": "a"},
        {"event": "started", "time": True, "stage": "a"},
    ],
)
def test_a_line_of_the_journal_that_is_no_entry_is_skipped(tmp_path: Path, entry: Any) -> None:
    assert not schema.is_journal_entry(entry)
    run = RunDirectory(tmp_path)
    run.log("finished", stage="a", seconds=1.5, parts={"loading": 0.5})
    with (tmp_path / "journal.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n" + '{"a":' * 5000 + "\n")
    run.log("judged", cost=None, asked=3)
    assert [found["event"] for found in run.journal()] == ["finished", "judged"]


def test_only_numbers_of_plain_digits_are_seeds(tmp_path: Path) -> None:
    for name in ("seed-1", "seed-²", "seed-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}", encoding="utf-8")
    assert list(seed_runs(tmp_path)) == [1]
