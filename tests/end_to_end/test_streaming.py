"""Several workers on the graph of a real recipe: what may overlap does, and what must wait waits.

The works are stand-ins that write empty outputs; each waits, where a test says so, for a task that must run beside it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gshf_release import pipeline
from gshf_release.data.records import ReferenceLogProbability
from gshf_release.data.results import Cell
from gshf_release.errors import RunBusyError
from gshf_release.optimization import reference_logprobs
from gshf_release.planning.makespan import makespan
from gshf_release.preference.pairs import Pair
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run import execution
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Execution, execute
from gshf_release.run.stage import Stage, Task, chain_lengths, check_graph, predecessors, tasks
from gshf_release.run.task import run_task
from tests import tiny
from tests.conftest import Outcome
from tests.run.work import made, stage, wait

TWO = Profile(parallel_workers=2, device="cpu")
WAITS: dict[str, str] = {}
"""Label of a task -> that of one which must finish while the first runs."""


def stand_in(context: StageContext) -> None:
    """Write every output, having waited for the task that this one is to overlap with."""
    awaited = WAITS.get(context.task.label)
    if awaited is not None:
        wait(lambda: awaited in made(context.run))
    for file in context.task.stage.outputs:
        context.output(file).write_text(context.task.label, encoding="utf-8")


def no_cells(context: StageContext) -> list[Cell]:
    """Return nothing."""
    return []


def without_works(stages: list[Stage]) -> list[Stage]:
    """Return the graph with stand-ins for the works."""
    here = f"{__name__}:"
    return [
        replace(each, work=f"{here}stand_in", numbers=f"{here}no_cells" if each.numbers else "", runs_in="")
        for each in stages
    ]


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers be threads: starting processes takes longer than all the stand-ins."""

    def work(walk: Execution, task: Task, progress: object, lock: int) -> None:
        run_task(StageContext(walk.run, walk.recipe, walk.profile, task))

    monkeypatch.setattr(execution, "_work_in_worker", work)


def whole(recipe: Recipe, profile: Profile = TWO) -> list[Stage]:
    graph = pipeline.streamed(pipeline.build(recipe), recipe, profile)
    return without_works([*graph.train, *graph.evaluation])


def finish(recipe: Recipe, path: Path, waits: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the order in which two workers finished the tasks."""
    monkeypatch.setattr("tests.end_to_end.test_streaming.WAITS", dict(waits))
    run = RunDirectory.create(path, recipe, TWO)
    execute(whole(recipe), run, recipe, TWO)
    return made(run)


def ancestors(task: Task, stages: Mapping[str, Stage]) -> set[str]:
    """Return the labels of everything that must be finished before a task starts."""
    found: set[str] = set()
    for needed in predecessors(task, stages):
        if needed.label not in found:
            found |= {needed.label} | ancestors(needed, stages)
    return found


@pytest.mark.usefixtures("in_threads")
def test_a_shard_is_scored_chosen_and_referenced_while_the_next_is_sampled(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"iteration-1/samples 2/2": "iteration-1/reference-ahead 1/2"}
    order = finish(tiny_recipe, tmp_path / "run", waits, monkeypatch)
    streamed = ["samples 1/2", "rewards 1/2", "reference-ahead 1/2", "samples 2/2"]
    assert [label for label in order if label.removeprefix("iteration-1/") in streamed][:4] == [
        f"iteration-1/{name}" for name in streamed
    ]


@pytest.mark.usefixtures("in_threads")
def test_an_iteration_is_evaluated_while_the_next_one_samples(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"iteration-2/samples 2/2": "iteration-1/test/judgments"}
    order = finish(tiny_recipe, tmp_path / "run", waits, monkeypatch)
    assert order.index("iteration-1/test/judgments") < order.index("iteration-2/samples 2/2")
    assert len(order) == len(tasks(whole(tiny_recipe)))


@pytest.mark.parametrize(
    ("task", "beside"),
    [
        ("iteration-1/samples 2/2", "iteration-1/reference-ahead 1/2"),
        ("iteration-2/samples 1/2", "iteration-1/validation/measure"),
        ("iteration-2/policy", "iteration-1/test/judgments"),
        ("iteration-1/policy", "base/test/answers 1/2"),
        ("reward/model", "base/validation/answers"),
    ],
)
def test_what_may_overlap(tiny_recipe: Recipe, task: str, beside: str) -> None:
    stages = check_graph(whole(tiny_recipe))
    by_label = {each.label: each for each in tasks(list(stages.values()))}
    task, beside = (name if name in by_label else name.partition(" ")[0] for name in (task, beside))
    assert beside not in ancestors(by_label[task], stages)
    assert task not in ancestors(by_label[beside], stages)


@pytest.mark.parametrize(
    ("task", "needed"),
    [
        ("iteration-1/pairs", "iteration-1/rewards 2/2"),
        ("iteration-1/reference", "iteration-1/reference-ahead 2/2"),
        ("iteration-1/policy", "iteration-1/reference"),
        ("iteration-2/samples 1/2", "iteration-1/policy"),
        ("iteration-1/rewards 1/2", "reward/model"),
    ],
)
def test_what_must_wait(tiny_recipe: Recipe, task: str, needed: str) -> None:
    stages = check_graph(whole(tiny_recipe))
    by_label = {each.label: each for each in tasks(list(stages.values()))}
    assert needed in ancestors(by_label[task], stages)


@pytest.mark.parametrize("profile", [Profile(), Profile(parallel_workers=2, processes=2)])
def test_one_worker_and_training_processes_compute_the_reference_at_once(tiny_recipe: Recipe, profile: Profile) -> None:
    graph = pipeline.build(tiny_recipe)
    assert pipeline.streamed(graph, tiny_recipe, profile) == graph


def test_nothing_that_was_finished_without_streaming_is_redone(tiny_recipe: Recipe) -> None:
    """The stages that a run has either way are declared alike but for what goes first."""
    plain = pipeline.build(tiny_recipe).train
    streamed = {each.name: each for each in pipeline.streamed(pipeline.build(tiny_recipe), tiny_recipe, TWO).train}
    assert [replace(streamed[each.name], after=()) for each in plain] == plain
    added = set(streamed) - {each.name for each in plain}
    assert added == {"iteration-1/reference-ahead", "iteration-2/reference-ahead"}


def test_other_commands_keep_the_plan_of_several_workers(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """`eval` beside a `train` that streams has a profile of its own, and must not take the plan for another recipe's."""
    run = RunDirectory.create(tmp_path / "run", tiny_recipe, TWO)
    assert pipeline.as_trained(run, tiny_recipe) == pipeline.build(tiny_recipe, run)
    streamed = pipeline.streamed(pipeline.build(tiny_recipe, run), tiny_recipe, TWO)
    with run.work_on(tiny_recipe, TWO, streamed.stages):
        graph = pipeline.as_trained(run, tiny_recipe)
        assert graph == streamed
        with run.work_on(tiny_recipe, Profile(), graph.stages):
            assert run.plan == streamed.stages
        with (
            pytest.raises(RunBusyError, match="another recipe"),
            run.work_on(tiny_recipe, Profile(), pipeline.build(tiny_recipe).stages),
        ):
            pass


MEASURED = {
    "prompts/pool": 12.2, "base": 22.2, "iteration-1/prompts": 12.5, "reward/model": 17.8,
    "iteration-1/samples": 39.0, "iteration-1/rewards": 39.8, "iteration-1/reference-ahead": 42.5,
    "iteration-1/pairs": 9.7, "iteration-2/prompts": 13.1, "prompts/validation": 14.4, "iteration-1/reference": 14.1,
    "prompts/test": 14.8, "iteration-1/policy": 28.9, "base/validation/answers": 25.1, "iteration-2/samples": 62.0,
    "iteration-2/rewards": 42.3, "iteration-2/pairs": 13.1, "iteration-2/reference-ahead": 49.2,
    "iteration-1/validation/answers": 22.7, "iteration-2/reference": 9.8, "prompts/eval": 10.2,
    "iteration-2/policy": 28.7, "base/validation/scores": 25.6, "iteration-2/validation/answers": 24.8,
    "iteration-1/validation/scores": 24.6, "iteration-2/validation/scores": 20.2, "second-scorer/model": 20.6,
    "base/eval/answers": 23.0, "iteration-1/eval/answers": 21.9, "iteration-2/eval/answers": 19.3,
    "base/test/answers": 20.0, "iteration-1/test/answers": 20.5, "iteration-2/test/answers": 20.6,
    "prompts/reward": 10.1, "prompts/second-scorer": 10.2, "base/validation/measure": 18.0,
    "iteration-1/validation/measure": 17.7, "iteration-2/validation/measure": 12.4, "base/eval/reward-scores": 12.4,
    "base/eval/second-scorer-scores": 18.0, "iteration-1/eval/reward-scores": 17.5,
    "iteration-1/eval/second-scorer-scores": 22.4, "iteration-2/eval/reward-scores": 23.2,
    "base/test/reward-scores": 20.0, "iteration-2/eval/second-scorer-scores": 21.7,
    "base/test/second-scorer-scores": 20.2, "iteration-1/test/reward-scores": 20.6,
    "iteration-1/test/second-scorer-scores": 18.9, "iteration-2/test/reward-scores": 20.8, "rendering": 11.6,
    "iteration-2/test/second-scorer-scores": 19.3, "prompts/used": 9.8, "iteration-1/exploration": 12.2,
    "iteration-2/exploration": 12.2, "final": 10.7, "base/eval/judgments": 10.5, "iteration-1/eval/judgments": 10.3,
    "iteration-2/eval/judgments": 9.7, "base/test/judgments": 10.3, "iteration-1/test/judgments": 10.0,
    "iteration-2/test/judgments": 8.1,
}  # fmt: skip
"""Seconds of this very graph's stages, shards added up, in one run of `train --eval` with two workers on two busy CPU cores, by
a version that started a process for each task and imported torch there, which most of the seconds went into."""
MEASURED_WALL = 604.5
"""Of that run, in seconds; its tasks one after the other would have taken 1,204."""


def test_the_schedule_of_two_workers_is_that_of_a_measured_run(tiny_recipe: Recipe) -> None:
    graph = pipeline.streamed(pipeline.build(tiny_recipe), tiny_recipe, TWO)
    stages, hours = [*graph.train, *graph.evaluation], {name: seconds / 3600 for name, seconds in MEASURED.items()}
    newer = {"prompts/contamination"}  # came after that run; without benchmark files it takes no time to speak of
    assert {each.name for each in stages} == set(MEASURED) | newer
    assert makespan(stages, hours, TWO) * 3600 == pytest.approx(MEASURED_WALL, rel=0.02)
    assert makespan(stages, hours, Profile()) * 3600 == pytest.approx(1204, abs=1)


def test_the_longest_chain_goes_first() -> None:
    stages = [stage("a"), stage("aside", "a"), stage("b", "a"), stage("c", "b"), stage("d", "c", "aside")]
    assert chain_lengths(stages) == {"a": 4, "aside": 2, "b": 3, "c": 2, "d": 1}


def test_train_evaluates_on_request_and_status_shows_where_the_time_went(
    command: Callable[..., Outcome], tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(tiny.recipe(tiny_folder, loop={"iterations": 1})), encoding="utf-8"
    )
    outcome = command("train", tmp_path / "recipe.yaml", "--run", tmp_path / "run", "--eval")
    assert outcome.code == 0, outcome.err
    assert "iteration-1/test/judgments" in made(RunDirectory.open(tmp_path / "run"))
    shown = command("status", tmp_path / "run").out.splitlines()
    assert shown[-1].startswith("Loop efficiency ")
    document = json.loads(command("status", tmp_path / "run", "--json").out)["efficiency"]
    assert {"preparation", "iteration 1", "evaluation", "all iterations", "whole run"} == set(document["parts"])


def test_what_was_computed_ahead_is_what_is_computed_at_once(
    finished: RunDirectory, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard by shard the batches are others, so the values agree to rounding; the pairs are the very same."""
    shutil.copytree(finished.path, tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    before = ReferenceLogProbability.read(run.path / "iteration-1" / "reference" / "reference.parquet")
    (run.path / "iteration-1" / "reference" / "manifest.json").unlink()
    graph = pipeline.streamed(pipeline.build(tiny_recipe, run), tiny_recipe, TWO)
    by_name = {each.name: each for each in graph.stages}
    ahead, at_once = by_name["iteration-1/reference-ahead"], by_name["iteration-1/reference"]
    one_worker = Profile(device="cpu", inference_precision="fp32", threads=1)
    execute(graph.stages, run, tiny_recipe, one_worker, goal=[ahead])
    shards = [run.folder(task) / "pairs.parquet" for task in tasks([ahead])]
    assert Pair.read(*shards) == Pair.read(run.path / "iteration-1" / "pairs" / "pairs.parquet")
    monkeypatch.setattr(reference_logprobs, "load_model", None)
    execute(graph.stages, run, tiny_recipe, one_worker, goal=[at_once])
    after = ReferenceLogProbability.read(run.path / "iteration-1" / "reference" / "reference.parquet")
    assert [row.prompt_id for row in after] == [row.prompt_id for row in before]
    for mine, plain in zip(after, before, strict=True):
        assert (mine.chosen_logp, mine.rejected_logp) == pytest.approx(
            (plain.chosen_logp, plain.rejected_logp), abs=1e-4
        )
