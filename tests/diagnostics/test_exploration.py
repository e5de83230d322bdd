"""Cells of an iteration's samples and pairs, by hand."""

from __future__ import annotations

import pytest

from gshf_release.data.records import Pair, Sample, Score, Spread
from gshf_release.data.results import Cell, find, read_cells, select
from gshf_release.diagnostics import exploration
from gshf_release.diagnostics.exploration import LENGTH_REWARD, Shard, pair_cells, sample_cells, spread, spread_cells
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.run.directory import RunDirectory
from tests.diagnostics.rows import answer

PLACE = {"table": "training", "row": "iteration-1"}


def one(cells: list[Cell], metric: str, decoding: str = "") -> Cell:
    (found,) = select(cells, metric=metric, decoding=decoding)
    return found


def test_reward_by_temperature_is_clustered_by_prompt() -> None:
    samples = [answer(prompt, index=i, decoding="T=1") for prompt in "pq" for i in (0, 1)]
    samples += [answer("p", index=2, decoding="T=0.7")]
    rewards = {("p", 0): 1.0, ("p", 1): 3.0, ("q", 0): 5.0, ("q", 1): 7.0, ("p", 2): 9.0}
    cells = sample_cells([Shard(samples[:3], rewards), Shard(samples[3:], rewards)], **PLACE)
    # Mean 4, residuals -3, -1, 1, 3; clusters sum to -4 and 4: sqrt(2/1 * 32) / 4 = 2.
    assert (one(cells, "reward of samples", "T=1").value, one(cells, "reward of samples", "T=1").standard_error) == (
        4,
        2,
    )
    assert one(cells, "reward of samples", "T=0.7").value == 9


def test_length_cut_and_variety_of_samples() -> None:
    samples = [
        answer("p", "a b", tokens=2, decoding="T=1"),
        answer("q", "a c", tokens=6, decoding="T=1", reason="length"),
    ]
    cells = sample_cells([Shard(samples, {("p", 0): 0.0, ("q", 0): 0.0})], **PLACE)
    assert one(cells, "length of samples", "T=1").value == 4
    assert one(cells, "samples cut", "T=1").value == 50
    assert one(cells, "distinct-1 of samples", "T=1").value == 0.75
    assert one(cells, "distinct-3 of samples", "T=1").value is None


def test_variety_is_that_of_the_first_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """More text has less variety, and takes more memory."""
    monkeypatch.setattr(exploration, "COMPARED", 2)
    samples = [answer(prompt, text, decoding="T=1") for prompt, text in (("p", "a b"), ("q", "a c"), ("r", "d"))]
    cells = sample_cells([Shard(samples, {(prompt, 0): 0.0 for prompt in "pqr"})], **PLACE)
    variety = one(cells, "distinct-1 of samples", "T=1")
    assert (variety.value, variety.n) == (0.75, 2)
    assert one(cells, "reward of samples", "T=1").n == 3


def test_correlation_is_within_a_prompt() -> None:
    samples = [answer("p", str(tokens), tokens=tokens, index=i) for i, tokens in enumerate((1, 2, 3))]
    assert spread(samples, {("p", 0): 5.0, ("p", 1): 4.0, ("p", 2): 3.0}) == Spread("p", 3, 0, pytest.approx(-1.0))
    assert spread(samples, {("p", 0): 1.0, ("p", 1): 3.0, ("p", 2): 2.0}).length_reward == pytest.approx(0.5)


def test_prompts_without_a_correlation_are_left_out_of_the_mean() -> None:
    alike = [answer("p", "same", index=i) for i in range(3)]
    row = spread(alike, {("p", 0): 1.0, ("p", 1): 2.0, ("p", 2): 3.0})
    assert row == Spread("p", 3, 3, None)
    cells = spread_cells([row, Spread("q", 4, 0, 0.25), Spread("r", 4, 0, 0.75)], **PLACE)
    assert (one(cells, LENGTH_REWARD).value, one(cells, LENGTH_REWARD).n) == (0.5, 2)
    assert one(cells, "repeated samples").value == pytest.approx(100 / 3)
    alone = one(spread_cells([row], **PLACE), LENGTH_REWARD)
    assert (alone.value, alone.n) == (None, 0)


def pair(chosen: int, rejected: int) -> Pair:
    return Pair("p", 1, [1], [5] * chosen, [6] * rejected, "", "", 0, 1, 1.0, 0.0, "f" * 64)


def test_length_alone_is_right_where_the_longer_was_chosen() -> None:
    cells = pair_cells([pair(3, 1), pair(3, 2), pair(2, 2), pair(1, 4)], **PLACE)
    assert one(cells, "length-only accuracy of pairs").value == 62.5  # 1 + 1 + 1/2 of 4
    assert pair_cells([], **PLACE) == []


def test_a_run_has_these_cells_for_every_iteration(finished: RunDirectory) -> None:
    cells = read_cells(finished.path / "results.json")
    for row in ("iteration-1", "iteration-2"):
        for decoding in ("T=1", "T=0.7"):
            assert find(cells, table="training", row=row, metric="reward of samples", decoding=decoding) is not None
        assert find(cells, table="training", row=row, metric="length-only accuracy of pairs") is not None
        for metric in (KL_TO_BASE, "KL to base (k1)", "KL to base (k3)", "best-of-n KL bound"):
            assert find(cells, table="validation", row=row, metric=metric, decoding="T=1") is not None


def test_the_cell_of_samples_is_the_mean_of_their_scores(finished: RunDirectory) -> None:
    folder = finished.path / "iteration-1"
    warm = {
        (s.prompt_id, s.sample_index) for s in Sample.read(*folder.rglob("samples.parquet")) if s.decoding == "T=0.7"
    }
    scores = [
        s.reward for s in Score.read(*folder.glob("rewards/*/scores.parquet")) if (s.prompt_id, s.sample_index) in warm
    ]
    cells = read_cells(finished.path / "results.json")
    found = find(cells, row="iteration-1", metric="reward of samples", decoding="T=0.7")
    assert found is not None
    assert found.value == pytest.approx(sum(scores) / len(scores))
