"""A whole run under two reward models that disagree: pairs by their mean, and a margin for what they disagree about."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Message, Pair, Prompt, Sample, Score
from gshf_release.data.results import find, read_cells
from gshf_release.recipe import Recipe, parse
from gshf_release.release.lineage import verify_lineage
from gshf_release.rewards import Inference
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests import tiny
from tests.end_to_end.train_tiny import EXACT

WEIGHT = 3.0
ROUNDED = Inference("rounded", batch=4)  # as the profile computes: BF16 weights, FP32 arithmetic
Rewards = dict[str, dict[int, tuple[float, float]]]


@pytest.fixture(scope="module")
def run(one_thread: None, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    members = [{"model": str(tiny_folder / name)} for name in ("reward", "second-scorer")]
    content = tiny.recipe(tiny_folder, reward={"models": members}, loop={"iterations": 1})
    content["training"] |= {"uncertainty_weight": WEIGHT, "batch_pairs": 8}
    chosen = parse(Recipe, content, "tiny")
    made = RunDirectory.create(tmp_path_factory.mktemp("ensemble") / "run", chosen, EXACT)
    pipeline.train(made, chosen, EXACT, allow_redo=False, observer=SilentObserver())
    return made


@pytest.fixture(scope="module")
def rewards(run: RunDirectory, tiny_folder: Path) -> Rewards:
    """Return `{prompt id: {sample index: rewards of both members}}`, each member asked alone."""
    asked = {row.prompt_id: row.messages for row in Prompt.read(run.path / "iteration-1/prompts/prompts.parquet")}
    samples = Sample.read(*sorted(run.path.glob("iteration-1/samples/**/samples.parquet")))
    turns = [[*asked[row.prompt_id], Message(role="assistant", content=row.text)] for row in samples]
    members = [SequenceClassificationReward.open(tiny_folder / name, ROUNDED) for name in ("reward", "second-scorer")]
    found: Rewards = {}
    for row, *pair in zip(samples, *(member.score(turns) for member in members), strict=True):
        found.setdefault(row.prompt_id, {})[row.sample_index] = (float(pair[0]), float(pair[1]))
    return found


@pytest.fixture(scope="module")
def pairs(run: RunDirectory) -> list[Pair]:
    return Pair.read(run.path / "iteration-1/pairs/pairs.parquet")


def test_best_and_worst_are_those_of_the_mean_and_not_of_either_member(pairs: list[Pair], rewards: Rewards) -> None:
    def ends(value: int | None) -> list[tuple[int, int]]:
        found = []
        for pair in pairs:
            of = {
                index: sum(both) / 2 if value is None else both[value]
                for index, both in rewards[pair.prompt_id].items()
            }
            found.append((max(of, key=of.__getitem__), min(of, key=of.__getitem__)))
        return found

    chosen = [(pair.chosen_index, pair.rejected_index) for pair in pairs]
    assert len(chosen) >= 6
    assert chosen == ends(None)
    assert chosen != ends(0)
    assert chosen != ends(1)


def test_the_first_step_holds_the_margin_of_the_disagreement(
    run: RunDirectory, pairs: list[Pair], rewards: Rewards
) -> None:
    """Policy and reference are the same there, so x is the margin alone: the weight times the difference of deviations."""

    def deviation(pair: Pair, index: int) -> float:
        one, other = rewards[pair.prompt_id][index]
        return abs(one - other) / math.sqrt(2)

    margins = [WEIGHT * (deviation(pair, pair.chosen_index) - deviation(pair, pair.rejected_index)) for pair in pairs]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)
    assert abs(expected - math.log(2)) > 1e-3
    loss = find(read_cells(run.path / "results.json"), metric="DPO loss, first step")
    assert loss is not None
    assert loss.value == pytest.approx(expected, abs=1e-5)


def test_the_lineage_of_an_ensemble_is_traced(run: RunDirectory, pairs: list[Pair]) -> None:
    scores = Score.read(*sorted(run.path.glob("iteration-1/rewards/**/scores.parquet")))
    assert len({row.scorer_sha256 for row in scores}) == 1
    assert verify_lineage(run) == (8 * 4, len(pairs), 0)
