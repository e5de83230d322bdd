"""Preference pairs from elsewhere: their rows, and runs that train on them alone or beside their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Pair
from gshf_release.data.results import find, read_cells
from gshf_release.errors import DataError, RecipeError
from gshf_release.preference import offline
from gshf_release.preference.offline import parse_preference
from gshf_release.prompts import contamination
from gshf_release.prompts.split import PromptFileParameters
from gshf_release.prompts.usage import content_id, excluded
from gshf_release.recipe import Recipe, parse
from gshf_release.release.lineage import Lineage, verify_lineage
from gshf_release.report.tables import results_document
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import Observer, SilentObserver, execute
from tests import tiny
from tests.end_to_end.train_tiny import EXACT
from tests.prompts import benchmarks
from tests.run.plans import Heard

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


def recipe(folder: Path, file: Path, source: str, iterations: int, **more: Any) -> Recipe:
    changes = {"pairs": {"source": source, "offline": str(file)}, "loop": {"iterations": iterations}} | more
    return parse(Recipe, tiny.recipe(folder, **changes), "tiny")


def trained(path: Path, chosen: Recipe) -> RunDirectory:
    run = RunDirectory.create(path, chosen, EXACT)
    pipeline.train(run, chosen, EXACT, allow_redo=False, observer=SilentObserver())
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


def divided(path: Path, chosen: Recipe, observer: Observer) -> RunDirectory:
    """Return a run with its prompts divided, its offline pairs read, and both compared with the benchmarks."""
    run = RunDirectory.create(path, chosen, EXACT)
    stages = pipeline.build(chosen, run).train
    ready = [stage.name for stage in stages].index(contamination.STAGE) + 1
    execute(stages, run, chosen, EXACT, goal=stages[:ready], observer=observer)
    return run


def add(file: Path, *rows: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def dropped(run: RunDirectory) -> dict[str, int]:
    found: dict[str, int] = read_json(run.path / "offline" / "pairs" / "dropped.json")["dropped"]
    return {reason: count for reason, count in found.items() if count}


def test_an_offline_pair_on_a_held_out_prompt_is_dropped_whatever_its_system_turn(
    one_thread: None, tiny_folder: Path, tmp_path: Path
) -> None:
    """Of 28 prompts, one serves each of validation and test; the pairs bring all of them, with a system turn of their own."""
    file = offline_file(tmp_path / "pairs.jsonl", count=2)
    roles = {"per_iteration": 26, "validation": 1, "test": 1}
    pool = tiny.prompts_file(tmp_path / "prompts.jsonl", count=28)
    chosen = recipe(tiny_folder, file, "offline", 1, prompts={"source": str(pool), "roles": roles})
    asked = [json.loads(line)["prompt"] for line in pool.read_text(encoding="utf-8").splitlines()]
    asked.append(json.loads((tiny_folder / "eval.jsonl").read_text(encoding="utf-8").splitlines()[0])["prompt"])
    briefed = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}] for text in asked]
    add(file, *({"messages": messages, "chosen": "tea", "rejected": "a mat"} for messages in briefed))
    run = divided(tmp_path / "run", chosen, SilentObserver())
    assert dropped(run) == {"held-out prompt": 3, "identical text": 1}
    assert len(Pair.read(run.path / "offline" / "pairs" / "pairs.parquet")) == 2 + 26


def test_two_texts_of_the_same_ids_are_no_pair(one_thread: None, tiny_folder: Path, tmp_path: Path) -> None:
    """To a tokenizer that composes letters, e with an accent and the accented letter are the same."""
    from tokenizers import Tokenizer, normalizers

    base = tmp_path / "composing"
    shutil.copytree(tiny_folder / "tiny", base)
    composing = Tokenizer.from_file(str(base / "tokenizer.json"))
    composing.normalizer = normalizers.NFC()
    composing.save(str(base / "tokenizer.json"))
    file = offline_file(tmp_path / "pairs.jsonl", count=2)
    add(file, {"prompt": "where?", "chosen": "caf\u00e9", "rejected": "cafe\u0301"})
    run = divided(
        tmp_path / "run", recipe(tiny_folder, file, "offline", 1, base={"model": str(base)}), SilentObserver()
    )
    assert dropped(run) == {"identical ids": 1, "identical text": 1}
    cells = read_cells(run.results(offline.declare_offline_pairs(PromptFileParameters(source_sha256="", count=0))))
    assert find(cells, metric="dropped: identical ids").value == 1  # type: ignore[union-attr]


def test_offline_prompts_are_compared_with_the_benchmarks_and_left_alone_by_later_runs(
    one_thread: None, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks.give(tmp_path, monkeypatch, "Offline 1!", "something else")
    heard = Heard()
    run = divided(tmp_path / "run", recipe(tiny_folder, offline_file(tmp_path / "pairs.jsonl"), "hybrid", 1), heard)
    cells = read_cells(run.results(contamination.declare_contamination()))
    own, given = (find(cells, row=row, metric="too close to alpaca-eval") for row in ("prompts", "offline pairs"))
    assert own is not None
    assert given is not None
    assert (own.value, own.n, given.value, given.n, given.note) == (0, 16, 1, 8, "alpaca-eval/0")
    assert find(cells, row="offline pairs", metric="too close to mt-bench").note.startswith("NOT CHECKED")  # type: ignore[union-attr]
    listed = run.path / contamination.STAGE / contamination.CONTAMINATED
    said = "1 of 8 prompts of pairs.offline are too close to a benchmark's; take their pairs out of its file"
    assert f"{said}, they are listed in {listed}." in heard.notices
    assert "| offline pairs: too close to alpaca-eval | 1 | 8 | alpaca-eval/0 |" in results_document("mine", cells)
    later = recipe(tiny_folder, tmp_path / "pairs.jsonl", "hybrid", 1, prompts={"exclude": [str(run.path)]})
    assert content_id([{"role": "user", "content": "offline 1?"}]) in excluded(later).ids


def test_a_hybrid_run_trains_on_both_and_says_so(one_thread: None, tiny_folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", recipe(tiny_folder, offline_file(tmp_path / "pairs.jsonl"), "hybrid", 1))
    own = len(Pair.read(run.path / "iteration-1" / "pairs" / "pairs.parquet"))
    assert read_json(run.path / "iteration-1" / "policy" / "training.json")["pairs"] == own + 8
    assert verify_lineage(run) == Lineage(8 * 4, own, 8)


def test_a_bad_row_is_named_by_file_and_line(one_thread: None, tiny_folder: Path, tmp_path: Path) -> None:
    file = offline_file(tmp_path / "pairs.jsonl")
    file.write_text(file.read_text(encoding="utf-8") + '{"prompt": "p"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.jsonl:10: expected a text or turns under 'chosen'"):
        trained(tmp_path / "run", recipe(tiny_folder, file, "offline", 1))


def test_offline_pairs_alone_have_one_iteration(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"set loop\.iterations to 1"):
        recipe(tiny_folder, tmp_path / "pairs.jsonl", "offline", 2)


def test_a_missing_file_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"pairs\.offline: .*gone\.jsonl does not exist"):
        pipeline.build(recipe(tiny_folder, tmp_path / "gone.jsonl", "offline", 1))
