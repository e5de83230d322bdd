"""Methods side by side: means over seeds, and the best of n at equal divergence."""

from __future__ import annotations

from pathlib import Path

from gshf_release.data.results import Cell
from gshf_release.diagnostics.validation import BOUND
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.recipe import Recipe
from gshf_release.report.figures import reward_against_divergence
from gshf_release.report.methods import BEST_OF, TEMPERATURES, equal_divergence, labels, method_table, points


def gain(value: float, row: str) -> Cell:
    place = {"metric": "gain over base", "judge": "reward", "decoding": "T=1", "baseline": "base"}
    return Cell(table="test", row=row, value=value, n=8, **place)  # type: ignore[arg-type]


def divergence(value: float, row: str) -> Cell:
    if row.startswith("base"):
        return Cell(table="test", row=row, metric=BOUND, value=value)
    return Cell(table="validation", row=row, metric=KL_TO_BASE, value=value)


def model(row: str, reward: float, kl: float) -> list[Cell]:
    return [gain(reward, row), divergence(kl, row)]


ROLES = {"roles": {"reward": 8, "second_scorer": 8}}
METHODS = {
    "GSHF x1": {
        4: [*model("iteration-1", 2.0, 0.5), *model("base, best of 4", 1.0, 1.0)],
        5: [*model("iteration-1", 4.0, 0.5), *model("base, best of 4", 3.0, 1.0)],
    },
    "RAFT x1": {4: model("iteration-1", 1.0, 3.0), 5: model("iteration-1", 1.0, 3.0)},
}


def test_a_point_is_the_mean_over_seeds_with_the_error_across_them() -> None:
    found = next(point for point in points(METHODS) if point.method == "GSHF x1")
    assert found.gains["reward", "T=1"] == (3.0, 1.0, 2)
    assert found.divergence == (0.5, 0.0, 2)


def test_what_no_training_made_stands_first_and_once() -> None:
    assert [(point.method, point.row) for point in points(METHODS)] == [
        (BEST_OF, "base, best of 4"),
        ("GSHF x1", "iteration-1"),
        ("RAFT x1", "iteration-1"),
    ]


def test_the_best_of_n_is_compared_at_equal_divergence() -> None:
    base, gshf, raft = points(METHODS)
    assert equal_divergence([base, gshf, raft], gshf) == "1.00"
    assert equal_divergence([base, gshf, raft], raft) == "beyond the largest n"
    assert equal_divergence([base, gshf, raft], base) == "–"


def test_a_measure_that_a_seed_lacks_is_a_dash() -> None:
    table = method_table({"GSHF x1": {4: model("iteration-1", 2.0, 0.5), 5: [gain(1.0, "iteration-1")]}})
    assert table.rows[0][table.header.index("KL, nats")] == "–"


def test_equal_points_draw_equal_bytes(tmp_path: Path) -> None:
    texts = [reward_against_divergence(points(METHODS), tmp_path / name) for name in ("a.png", "b.png")]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (
        texts[0]
        == "Gain over the base at temperature 1 against the divergence from it: best of n of the base, GSHF x1, RAFT x1"
    )


def test_methods_of_one_name_are_told_apart_by_what_differs() -> None:
    def recipe(**training: float) -> Recipe:
        return Recipe.model_validate({"name": "x", "base": {"model": "m"}, "prompts": ROLES, "training": training})

    once = Recipe.model_validate({"name": "x", "base": {"model": "m"}, "prompts": ROLES, "loop": {"resample": False}})
    assert labels([recipe(), recipe(sft_weight=0.5), once]) == ["GSHF x3, NLL 0", "GSHF x3, NLL 0.5", "offline DPO"]
    assert labels([recipe(beta=0.05), recipe(beta=0.1, sft_weight=0.5)]) == [
        "GSHF x3, beta 0.05, NLL 0",
        "GSHF x3, beta 0.1, NLL 0.5",
    ]


def test_the_base_at_lower_temperatures_is_a_method_with_its_own_divergence() -> None:
    cells = [gain(0.5, "base, T=0.5"), Cell(table="test", row="base, T=0.5", metric=KL_TO_BASE, value=2.0)]
    found = points({"GSHF x1": {4: [*METHODS["GSHF x1"][4], *cells]}})
    assert [point.method for point in found] == [TEMPERATURES, BEST_OF, "GSHF x1"]
    assert found[0].divergence is not None
    assert found[0].divergence.value == 2.0
