"""The whole way from a recipe to results on the tiny model, and the same bytes after two kills. FP32, one thread, CPU."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.data.hashing import sha256_tree, tree
from gshf_release.data.records import Judgment, Pair, Prompt, ReferenceLogProbability, Sample, Score, Trace, Winner
from gshf_release.data.results import Cell, find, read_cells, select
from gshf_release.errors import RecipeError, RunError
from gshf_release.evaluation.stages import STAND_IN
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.prompts.split import read_prompts
from gshf_release.recipe import Recipe
from gshf_release.release.lineage import Lineage, verify_lineage
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from gshf_release.run.stage import Stage, Task, resolve
from tests.conftest import REPOSITORY
from tests.end_to_end.train_tiny import EXACT, evaluate, train
from tests.run.plans import content
from tests.run.work import made

ROWS = ("base", "iteration-1", "iteration-2")


@pytest.fixture(scope="session")
def cells(finished: RunDirectory) -> list[Cell]:
    return read_cells(finished.path / "results.json")


def before_release(recipe: Recipe) -> list[Stage]:
    graph = pipeline.build(recipe)
    return [stage for stage in graph.stages if stage not in graph.release]


def samples(run: RunDirectory, stage: str) -> list[Sample]:
    return Sample.read(*sorted((run.path / stage).rglob("samples.parquet")))


def test_evaluation_before_training_names_the_command(tiny_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", tiny_recipe, EXACT)
    with pytest.raises(RunError, match=r"base is not finished\. Run: gshf-release train .*recipe\.yaml --run "):
        evaluate(run)


def test_a_moved_run_goes_on_without_the_files_its_prompts_came_from(
    finished: RunDirectory, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    prompts = tiny_recipe.prompts.model_copy(update={"source": str(tmp_path / "gone.jsonl")})
    recipe = tiny_recipe.model_copy(update={"prompts": prompts})
    with pytest.raises(RecipeError, match="neither a file nor a name"):
        pipeline.build(recipe)
    assert pipeline.build(recipe, finished).stages == pipeline.build(tiny_recipe).stages


def test_training_again_redoes_nothing(finished: RunDirectory, tiny_folder: Path) -> None:
    before = made(finished)
    train(tiny_folder, finished.path)
    evaluate(finished)
    assert made(finished) == before


def test_results_are_the_pure_merge_of_the_stages(
    finished: RunDirectory, cells: list[Cell], tiny_recipe: Recipe
) -> None:
    merged = [
        cell for stage in before_release(tiny_recipe) if stage.numbers for cell in read_cells(finished.results(stage))
    ]
    assert cells == merged
    assert len({cell.key for cell in cells}) == len(cells), "no two cells answer the same question"


def test_every_number_is_recomputed_from_files_of_the_run(finished: RunDirectory, tiny_recipe: Recipe) -> None:
    for stage in before_release(tiny_recipe):
        if stage.numbers:
            context = StageContext(finished, tiny_recipe, EXACT, Task(stage), finished=True)
            assert resolve(stage.numbers)(context) == read_cells(finished.results(stage)), stage.name


def test_every_artefact_is_in_the_run(finished: RunDirectory, cells: list[Cell]) -> None:
    for cell in cells:
        assert (finished.path / cell.artefact).exists(), cell


@pytest.mark.parametrize("table", ["validation", "eval", "test"])
def test_every_policy_has_its_scores_at_equal_decoding(cells: list[Cell], table: str) -> None:
    for row in ROWS:
        for decoding in ("greedy", "T=0.7"):
            scores = select(cells, table=table, row=row, metric="score", decoding=decoding, judge="reward")
            assert len(scores) == 1
            assert scores[0].n == (2 if table == "eval" else 4)
            assert scores[0].standard_error is not None
    gains = select(cells, table=table, metric="gain over base", judge="reward", decoding="greedy")
    assert {cell.row for cell in gains} == {"iteration-1", "iteration-2"}


def test_a_gain_is_the_difference_of_the_scores(cells: list[Cell]) -> None:
    def value(row: str, metric: str) -> float:
        found = find(cells, table="test", row=row, metric=metric, decoding="T=0.7", judge="second-scorer")
        assert found is not None
        assert found.value is not None
        return found.value

    for row in ROWS[1:]:
        assert value(row, "gain over base") == pytest.approx(value(row, "score") - value("base", "score"), abs=1e-9)


def test_sharpening_alone_is_measured_as_a_control(cells: list[Cell]) -> None:
    controls = select(cells, table="test", row="base at T=0.3", metric="gain over base")
    assert {cell.judge for cell in controls} == {"reward", "second-scorer"}


def test_win_rates_come_from_the_stand_in_and_say_so(finished: RunDirectory, cells: list[Cell]) -> None:
    rates = select(cells, metric="win rate")
    assert {cell.judge for cell in rates} == {STAND_IN}
    assert {cell.row for cell in rates} == {"iteration-1", "iteration-2"}
    judgments = Judgment.read(finished.path / "iteration-2" / "test" / "judgments" / "judgments.parquet")
    greedy = [judgment.preference for judgment in judgments if judgment.decoding == "greedy"]
    (rate,) = select(rates, table="test", row="iteration-2", decoding="greedy")
    assert rate.value == pytest.approx(100 * sum(greedy) / len(greedy))


def test_the_base_does_not_diverge_from_itself(cells: list[Cell]) -> None:
    divergences = {cell.row: cell.value for cell in select(cells, table="validation", metric=KL_TO_BASE)}
    assert divergences["base"] == 0
    assert all(divergences[row] > 0 for row in ROWS[1:])  # type: ignore[operator]


def test_dpo_starts_at_log_two_and_learns(cells: list[Cell]) -> None:
    first = find(cells, row="iteration-1", metric="DPO loss, first step")
    last = find(cells, row="iteration-1", metric="DPO loss, last quarter")
    assert first is not None
    assert last is not None
    assert first.value == pytest.approx(0.693147, abs=1e-5)
    assert last.value < first.value  # type: ignore[operator]


def test_nothing_reported_is_among_the_measured(cells: list[Cell]) -> None:
    assert {cell.origin for cell in cells} == {"measured"}


def test_every_sample_names_the_policy_that_made_it(finished: RunDirectory) -> None:
    for t, source in ((1, "base"), (2, "iteration-1/policy")):
        model = sha256_tree(tree(finished.path / source / "model"))
        assert {sample.policy_sha256 for sample in samples(finished, f"iteration-{t}/samples")} == {model}


def test_every_pair_consists_of_its_best_and_worst_sample(finished: RunDirectory) -> None:
    for t in (1, 2):
        by_key = {(s.prompt_id, s.sample_index): s for s in samples(finished, f"iteration-{t}/samples")}
        scores = Score.read(*sorted((finished.path / f"iteration-{t}" / "rewards").rglob("scores.parquet")))
        pairs = Pair.read(finished.path / f"iteration-{t}" / "pairs" / "pairs.parquet")
        assert pairs
        for pair in pairs:
            rewards = [score.reward for score in scores if score.prompt_id == pair.prompt_id]
            assert (pair.chosen_reward, pair.rejected_reward) == (max(rewards), min(rewards))
            assert pair.chosen_ids == by_key[pair.prompt_id, pair.chosen_index].completion_ids
            assert pair.rejected_ids == by_key[pair.prompt_id, pair.rejected_index].completion_ids


def test_the_reference_is_the_base_in_both_iterations(finished: RunDirectory) -> None:
    model = sha256_tree(tree(finished.path / "base" / "model"))
    for t in (1, 2):
        rows = ReferenceLogProbability.read(finished.path / f"iteration-{t}" / "reference" / "reference.parquet")
        assert {row.reference_sha256 for row in rows} == {model}


def test_half_of_the_samples_are_drawn_at_each_temperature(finished: RunDirectory) -> None:
    drawn = [sample.temperature for sample in samples(finished, "iteration-1/samples")]
    assert len(drawn) == 8 * 4
    assert drawn.count(1.0) == drawn.count(0.7) == 16


def test_no_prompt_is_both_trained_on_and_evaluated(finished: RunDirectory) -> None:
    roles = [
        *finished.path.glob("prompts/*/prompts.parquet"),
        *finished.path.glob("iteration-*/prompts/prompts.parquet"),
    ]
    used = [
        prompt.prompt_id for path in roles if path.parent.name not in ("pool", "eval") for prompt in Prompt.read(path)
    ]
    assert len(used) == len(set(used)) == 8 + 8 + 4 + 4


def test_validation_traces_cover_every_explored_answer(finished: RunDirectory) -> None:
    traces = Trace.read(finished.path / "iteration-2" / "validation" / "measure" / "traces.parquet")
    assert len(traces) == 4
    assert all(0 < trace.kl_rounding < 1e-4 * trace.tokens for trace in traces), (
        "BF16 rounds little; measured 8e-6 a token"
    )


def test_the_run_holds_no_path_of_this_machine_but_those_the_user_wrote(finished: RunDirectory) -> None:
    written_by_user = {"recipe.yaml"}
    for name, data in content(finished).items():
        if name.endswith((".json", ".yaml", ".jinja")) and name not in written_by_user | {"plan.json"}:
            shown = data.replace(str(finished.recipe.base.model).encode(), b"")
            assert str(finished.path.parent).encode() not in shown, name


def test_the_evaluation_prompts_are_those_of_the_file(finished: RunDirectory, tiny_folder: Path) -> None:
    asked = read_prompts(tiny_folder / "eval.jsonl")
    assert Prompt.read(finished.path / "prompts" / "eval" / "prompts.parquet") == asked


def kill_in_the_middle(tiny_folder: Path, path: Path, tasks: int, delay: float) -> None:
    """Train in a process that is killed `delay` seconds after that many tasks have finished."""
    words = [str(word) for word in (tiny_folder, path, tasks, delay)]
    command = [sys.executable, "-m", "tests.end_to_end.train_tiny", *words]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, timeout=600, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_killed_twice_and_resumed_is_bit_equal(finished: RunDirectory, tiny_folder: Path, tmp_path: Path) -> None:
    seed = time.time_ns()
    print(f"moments of the kills drawn with the seed {seed}")
    draw = random.Random(seed)
    path = tmp_path / "run"
    total = len(made(finished))
    for low, high in ((3, 14), (15, 24)):
        kill_in_the_middle(tiny_folder, path, draw.randint(low, high), draw.uniform(0, 0.5))
    run = RunDirectory.open(path)
    assert len(made(run)) < total
    run = train(tiny_folder, path)
    evaluate(run)
    expected, found = content(finished), content(run)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_raft_goes_the_whole_way_with_one_key_changed(tiny_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe.model_copy(update={"loop": tiny_recipe.loop.model_copy(update={"algorithm": "raft"})})
    run = RunDirectory.create(tmp_path / "run", recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=SilentObserver())
    evaluate(run)
    cells = read_cells(run.path / "results.json")
    for t in (1, 2):
        winners = Winner.read(run.path / f"iteration-{t}" / "winners" / "winners.parquet")
        assert find(cells, row=f"iteration-{t}", metric="winners").value == len(winners) == 8  # type: ignore[union-attr]
        best: dict[str, float] = {}
        for path in (run.path / f"iteration-{t}" / "rewards").rglob("scores.parquet"):
            for score in Score.read(path):
                best[score.prompt_id] = max(score.reward, best.get(score.prompt_id, score.reward))
        assert {winner.prompt_id: winner.reward for winner in winners} == best
    assert verify_lineage(run) == Lineage(2 * 8 * 4, 2 * 8, 0)
    assert find(cells, table="test", row="iteration-2", metric="gain over base") is not None
