"""What a command asks for: checked before anything runs, and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.errors import CheckpointError, EngineError, RecipeError, RunError
from gshf_release.evaluation.request_builder import EvaluationOptions, prefetch, request_evaluation
from gshf_release.evaluation.requests import ascii_slug, read_requests, slug
from gshf_release.prompts import benchmark_files
from gshf_release.recipe import Base, Evaluation, Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from tests.evaluation import own

ADDRESS = "http://127.0.0.1:9/v1"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    recipe = Recipe(name="eval-mine", base=Base(model="somebody/mine"), evaluation=Evaluation(only=True, prompts=None))
    return RunDirectory.create(tmp_path / "run", recipe, Profile())


def options(folder: Path, judge: Path, **changes: object) -> EvaluationOptions:
    benchmark = own.mt_benchmark(folder) if "single" in judge.name else own.alpaca_benchmark(folder)
    return EvaluationOptions(benchmarks=(str(benchmark),), rows=("mine",), judge=str(judge), **changes)  # type: ignore[arg-type]


def test_a_wish_becomes_stages_of_the_run(run: RunDirectory, tmp_path: Path) -> None:
    judge = own.judge(tmp_path, "alpaca_eval_2", ADDRESS)
    wanted = request_evaluation(run, options(tmp_path, judge), ["mine"])
    assert wanted == ["mine/own-alpaca/own-alpaca-eval-2-stub/scores"]
    graph = pipeline.build(run.recipe, run)
    assert [stage.name for stage in graph.train] == ["base"]
    assert [stage.name for stage in graph.evaluation] == [
        "benchmarks/own-alpaca/questions",
        "benchmarks/own-alpaca/rendering",
        "mine/own-alpaca/turn-1",
        "mine/own-alpaca/answers",
        "mine/own-alpaca/own-alpaca-eval-2-stub/judgments",
        "mine/own-alpaca/own-alpaca-eval-2-stub/scores",
    ]


def test_a_limit_is_not_taken_over_from_an_earlier_request_and_what_differs_is_said(
    run: RunDirectory, tmp_path: Path
) -> None:
    judge = own.judge(tmp_path, "alpaca_eval_2", ADDRESS)
    said: list[str] = []
    whole = len(own.INSTRUCTIONS)

    def asked(**changes: Any) -> tuple[int, int | None, int | None]:
        said.clear()
        request_evaluation(run, options(tmp_path, judge, **changes), ["mine"], said.append)
        found = read_requests(run).benchmarks["own-alpaca"]
        return found.count, found.whole, found.limit

    assert asked() == (whole, whole, None)
    assert not said, "all of them is what everybody expects"
    assert asked(limit=2) == (2, whole, 2)
    assert said == ["own-alpaca: only the first 2 of 5 questions are asked. The last request was for all."]
    assert asked(limit=2) == (2, whole, 2)
    assert said == ["own-alpaca: only the first 2 of 5 questions are asked."]
    assert asked(limit=3) == (3, whole, 3)
    assert said == ["own-alpaca: only the first 3 of 5 questions are asked. The last request was for the first 2."]
    assert asked() == (whole, whole, None)
    assert said == ["own-alpaca: all 5 questions are asked. The last request was for the first 3."]
    assert asked(limit=9) == (whole, whole, None)


def test_another_judge_keeps_the_template_of_the_answers_and_says_so(run: RunDirectory, tmp_path: Path) -> None:
    judge = own.judge(tmp_path, "alpaca_eval_2", ADDRESS)
    said: list[str] = []
    request_evaluation(run, options(tmp_path, judge, template="fastchat:zephyr", limit=2), ["mine"])
    second = own.judge(tmp_path, "alpaca_eval_2", ADDRESS, name="second")
    request_evaluation(run, options(tmp_path, second, limit=2), ["mine"], said.append)
    assert any("template fastchat:zephyr, as in the last request" in line for line in said)
    asked = read_requests(run).benchmarks["own-alpaca"]
    assert (asked.template, asked.limit, asked.count, list(asked.judges)) == (
        "fastchat:zephyr",
        2,
        2,
        ["own-alpaca-eval-2-stub", "second-stub"],
    )
    request_evaluation(run, options(tmp_path, judge, template="tokenizer", limit=0), ["mine"])
    asked = read_requests(run).benchmarks["own-alpaca"]
    assert (asked.template, asked.limit, asked.count) == (None, None, len(own.INSTRUCTIONS))


def test_where_the_judge_is_may_change_without_judging_anew(run: RunDirectory, tmp_path: Path) -> None:
    plans = []
    for address in (ADDRESS, "http://127.0.0.1:10/v1"):
        request_evaluation(run, options(tmp_path, own.judge(tmp_path, "alpaca_eval_2", address)), ["mine"])
        plans.append(pipeline.build(run.recipe, run).stages)
    assert plans[0] == plans[1]


def test_a_judge_of_another_benchmark_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    benchmark = own.alpaca_benchmark(tmp_path)
    judge = own.judge(tmp_path, "mt_bench_single", ADDRESS)
    with pytest.raises(RecipeError, match="is one for mt_bench_single, the answers are those to own-alpaca"):
        request_evaluation(
            run, EvaluationOptions(benchmarks=(str(benchmark),), rows=("mine",), judge=str(judge)), ["mine"]
        )
    assert read_requests(run).benchmarks == {}


def test_a_judge_without_a_model_is_refused_before_any_answer_is_made(run: RunDirectory, tmp_path: Path) -> None:
    judge = own.judge(tmp_path, "alpaca_eval_2", ADDRESS, model=None)
    with pytest.raises(EngineError, match="which model"):
        request_evaluation(run, options(tmp_path, judge), ["mine"])


def test_a_rating_judge_takes_no_baseline(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="compares with no baseline"):
        request_evaluation(
            run, options(tmp_path, own.judge(tmp_path, "mt_bench_single", ADDRESS), baseline="x"), ["mine"]
        )


def test_a_model_that_is_not_here_begins_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a run directory nor a model that is here"):
        pipeline.evaluation_run(str(tmp_path / "nothing"), tmp_path / "run", Profile(), needs_model=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_evaluates_one_model(run: RunDirectory) -> None:
    with pytest.raises(RunError, match="Choose another folder with --run"):
        pipeline.evaluation_run("other", run.path, Profile(), needs_model=False)


def test_a_text_becomes_a_folder_name() -> None:
    assert slug("me/My Model: v1") == "me-My-Model-v1"
    assert slug("模型-α") == "模型-α"
    assert slug("हिंदी मॉडल") == "हिंदी-मॉडल"
    assert ascii_slug("me/My Model: v1") == "me-My-Model-v1"


def test_no_two_names_make_one_folder() -> None:
    names = [
        "模型-α",
        "模型-β",
        "🦙",
        "🐫",
        "///",
        "",
        "a🦙",
        "a🐫",
        "x" * 81,
        "x" * 82,
        "模" * 90,
        "模" * 91,
        "\ud83d",
        "a",
    ]
    for make in (slug, ascii_slug):
        made = [make(name) for name in names]
        assert len(set(made)) == len(names)
        assert all(0 < len(name.encode()) <= 80 and "/" not in name and name not in (".", "..") for name in made)
    assert all(name.isascii() for name in map(ascii_slug, names))


def test_prefetch_names_what_only_the_length_control_lacks(
    tmp_path: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not test_data.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = benchmark_files.find(benchmark_files.ALPACA_EVAL, test_data)
    assert found is not None
    (folder / "questions.json").symlink_to(found)
    monkeypatch.setenv("GSHF_BENCHMARK_DATA", str(folder))
    files, missing = prefetch(["alpaca_eval_2"], lambda line: None)
    assert files == {"alpaca_eval_2 questions": str(folder / "questions.json")}
    assert len(missing) == 1
    assert missing[0].startswith("df_gamed.csv")
