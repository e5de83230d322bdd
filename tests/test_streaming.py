"""Several workers on the graph of a real recipe: what may overlap does, and what must wait waits.

The works are stand-ins that write empty outputs; each waits, where a test says so, for a task that must run beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.optimization import reference
from gshf_release.preference.pairs import Pair
from gshf_release.profile import Profile
from gshf_release.recipe import Recipe
from gshf_release.records import ReferenceLogProbability
from gshf_release.results import Cell
from gshf_release.run import execution
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import Execution, execute, run_task
from gshf_release.run.stage import Stage, Task, chain_lengths, check_graph, predecessors, tasks
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
    monkeypatch.setattr("tests.test_streaming.WAITS", dict(waits))
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


def test_the_longest_chain_goes_first() -> None:
    stages = [stage("a"), stage("aside", "a"), stage("b", "a"), stage("c", "b"), stage("d", "c", "aside")]
    assert chain_lengths(stages) == {"a": 4, "aside": 2, "b": 3, "c": 2, "d": 1}


def test_what_was_computed_ahead_is_what_is_computed_at_once(
    finished: RunDirectory, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard by shard the batches are others, so the values agree to rounding; the pairs are the very same."""
    import shutil

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
    monkeypatch.setattr(reference, "load_model", None)
    execute(graph.stages, run, tiny_recipe, one_worker, goal=[at_once])
    after = ReferenceLogProbability.read(run.path / "iteration-1" / "reference" / "reference.parquet")
    assert [row.prompt_id for row in after] == [row.prompt_id for row in before]
    for mine, plain in zip(after, before, strict=True):
        assert (mine.chosen_logp, mine.rejected_logp) == pytest.approx(
            (plain.chosen_logp, plain.rejected_logp), abs=1e-4
        )
