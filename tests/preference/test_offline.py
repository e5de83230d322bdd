"""Preference pairs from elsewhere: their rows, and runs that train on them alone or beside their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.errors import DataError, RecipeError
from gshf_release.preference.offline import parse_preference
from gshf_release.recipe import Recipe, parse
from gshf_release.records import Pair
from gshf_release.release.lineage import Lineage, verify_lineage
from gshf_release.results import find, read_cells
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import Quiet
from tests import tiny
from tests.end_to_end.train_tiny import EXACT

ASKED = {"role": "user", "content": "why?"}


def turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why?", "chosen": "a", "rejected": "b"},
        {"messages": [ASKED], "chosen": [turn("a")], "rejected": [turn("b")]},
        {"chosen": [ASKED, turn("a")], "rejected": [ASKED, turn("b")]},
        {"prompt": "why?", "chosen": [ASKED, turn("a")], "rejected": "b"},
    ],
)
def test_the_usual_forms_of_a_row(row: dict[str, Any]) -> None:
    found = parse_preference(row)
    assert (found.prompt.messages, found.chosen, found.rejected) == ([ASKED], "a", "b")


@pytest.mark.parametrize(
    "row", [[], {}, {"prompt": "p", "chosen": "a"}, {"prompt": "p", "chosen": "a", "rejected": " "}]
)
def test_a_row_without_two_answers_is_bad(row: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_preference(row)


def offline_file(path: Path, count: int = 8) -> Path:
    rows = [{"prompt": f"offline {number}?", "chosen": "tea is good", "rejected": "a mat"} for number in range(count)]
    rows.append({"prompt": "same?", "chosen": "tea", "rejected": " tea "})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(folder: Path, file: Path, source: str, iterations: int) -> Recipe:
    changes = {"pairs": {"source": source, "offline": str(file)}, "loop": {"iterations": iterations}}
    return parse(Recipe, tiny.recipe(folder, **changes), "tiny")


def trained(path: Path, chosen: Recipe) -> RunDirectory:
    run = RunDirectory.create(path, chosen, EXACT)
    pipeline.train(run, chosen, EXACT, allow_redo=False, observer=Quiet())
    return run


def test_a_run_on_offline_pairs_alone(one_thread: None, tiny_folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", recipe(tiny_folder, offline_file(tmp_path / "pairs.jsonl"), "offline", 1))
    assert not (run.path / "iteration-1" / "samples").exists()
    pairs = Pair.read(run.path / "offline" / "pairs" / "pairs.parquet")
    assert len(pairs) == 8
    assert {ids[-1] for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)} == {2}, "each ends with EOS"
    cells = read_cells(run.path / "results.json")
    assert find(cells, metric="external pairs").value == 8  # type: ignore[union-attr]
    assert find(cells, metric="dropped: identical text").value == 1  # type: ignore[union-attr]
    assert find(cells, metric="DPO loss, first step").value == pytest.approx(0.693147, abs=1e-5)  # type: ignore[union-attr]
    assert verify_lineage(run) == Lineage(0, 0, 8)


def test_an_offline_pair_on_an_evaluation_prompt_is_dropped(
    one_thread: None, tiny_folder: Path, tmp_path: Path
) -> None:
    file = offline_file(tmp_path / "pairs.jsonl", count=2)
    asked = json.loads((tiny_folder / "eval.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asked | {"chosen": "tea", "rejected": "a mat"}) + "\n")
    run = trained(tmp_path / "run", recipe(tiny_folder, file, "offline", 1))
    assert read_json(run.path / "offline" / "pairs" / "dropped.json")["dropped"]["held-out prompt"] == 1


def test_a_hybrid_run_trains_on_both_and_says_so(one_thread: None, tiny_folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", recipe(tiny_folder, offline_file(tmp_path / "pairs.jsonl"), "hybrid", 1))
    own = len(Pair.read(run.path / "iteration-1" / "pairs" / "pairs.parquet"))
    assert read_json(run.path / "iteration-1" / "policy" / "training.json")["pairs"] == own + 8
    assert verify_lineage(run) == Lineage(8 * 4, own, 8)


def test_a_bad_row_is_named_by_file_and_line(one_thread: None, tiny_folder: Path, tmp_path: Path) -> None:
    file = offline_file(tmp_path / "pairs.jsonl")
    file.write_text(file.read_text(encoding="utf-8") + '{"prompt": "p"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.jsonl:10: expected an answer under"):
        trained(tmp_path / "run", recipe(tiny_folder, file, "offline", 1))


def test_offline_pairs_alone_have_one_iteration(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"set loop\.iterations to 1"):
        recipe(tiny_folder, tmp_path / "pairs.jsonl", "offline", 2)


def test_a_missing_file_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"pairs\.offline: .*gone\.jsonl does not exist"):
        pipeline.build(recipe(tiny_folder, tmp_path / "gone.jsonl", "offline", 1))
