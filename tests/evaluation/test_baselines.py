"""The answers that a benchmark names as its baseline: beside its file, in another run, or in the run itself once it moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gshf_release import external_files
from gshf_release.data.hashing import sha256_file
from gshf_release.errors import DataError
from gshf_release.evaluation.request_builder import EvaluationOptions, request_evaluation
from gshf_release.evaluation.requests import read_requests
from gshf_release.recipe import Base, Evaluation, Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from tests.evaluation import own


def answers(path: Path, model: str = "rival") -> Path:
    """Write a model's answers to the benchmark of our own."""
    rows = [{"instruction": text, "output": "A rival says so.", "generator": model} for text in own.INSTRUCTIONS]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def begun(folder: Path, baseline: str) -> tuple[RunDirectory, EvaluationOptions]:
    """Return a run whose recipe names a benchmark in `folder`, and the wish to be judged on it."""
    folder.mkdir(exist_ok=True)
    judge = own.judge(folder, "alpaca_eval_2", "http://127.0.0.1:9/v1")
    benchmark = str(own.alpaca_benchmark(folder, baseline=baseline, judge=str(judge)))
    evaluation = Evaluation(only=True, prompts=None, benchmarks=(benchmark,))
    recipe = Recipe(name="eval-mine", base=Base(model="somebody/mine"), evaluation=evaluation)
    return RunDirectory.create(folder.parent / "run", recipe, Profile()), EvaluationOptions(
        benchmarks=(benchmark,), rows=("mine",)
    )


def baseline_of(run: RunDirectory, wish: EvaluationOptions) -> str | None:
    """Return the hash of the answers that a judge is asked to compare with."""
    request_evaluation(run, wish, ["mine"])
    (request,) = read_requests(run).benchmarks["own-alpaca"].judges.values()
    return request.baseline


def test_a_file_is_found_beside_the_benchmark(tmp_path: Path) -> None:
    run, wish = begun(tmp_path / "files", "rival.json")
    expected = sha256_file(answers(tmp_path / "files" / "rival.json"))
    assert baseline_of(run, wish) == expected


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("where", ["rival.json", "a run"])
def test_a_moved_run_has_them_still(
    where: str, asked_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    other = files / "other"
    run, wish = begun(files, str(other) if where == "a run" else where)
    if where == "a run":
        RunDirectory.create(other, run.recipe, Profile())
        expected = sha256_file(answers(other / "base" / "own-alpaca" / "answers" / "model_outputs.json"))
    else:
        expected = sha256_file(answers(files / where))
    external_files.keep_external_files(run, run.recipe)
    if asked_before:
        assert baseline_of(run, wish) == expected
    shutil.move(run.path, tmp_path / "moved")
    shutil.rmtree(files)
    monkeypatch.chdir(tmp_path)
    assert baseline_of(RunDirectory.open(tmp_path / "moved"), wish) == expected


def test_answers_that_are_nowhere_are_named_only_when_a_judge_needs_them(tmp_path: Path) -> None:
    run, wish = begun(tmp_path / "files", "rival.json")
    external_files.keep_external_files(run, run.recipe)
    with pytest.raises(DataError, match=r"--baseline rival\.json: it is no file of answers"):
        request_evaluation(run, wish, ["mine"])
