"""The card says all of the recipe that shaped the model, and shows no path of the machine that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gshf_release.recipe import Recipe, parse
from gshf_release.release import rules
from gshf_release.release.assumptions import Assumption
from gshf_release.release.card import render_card
from gshf_release.release.card_data import Card
from gshf_release.release.facts import Facts

REFERENCE = "/home/somebody/models/careful-reference"
ENSEMBLE = [{"model": "/home/somebody/models/first"}, {"model": "owner/second"}]


def recipe(**changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "made",
        "base": {"model": "/home/somebody/models/base-7b"},
        "reward": {"model": "owner/reward"},
        "evaluation": {"second_scorer": {"model": "owner/second-scorer"}},
    }
    return parse(Recipe, content | changes, "test")


def card(chosen: Recipe, **changes: Any) -> str:
    facts = Facts(license="apache-2.0", base_model="owner/base-7b")
    return render_card(Card(chosen, "tester/made", 1, [], facts, **changes))


def row(text: str, name: str) -> str:
    """Return the line of the recipe's table with that name; the table of licences comes after it."""
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


@pytest.mark.parametrize(
    ("changes", "name", "shown"),
    [
        ({"pairs": {"kl_weight": 0.25}}, "before the choice, the reward loses", "0.25 per nat"),
        (
            {"pairs": {"length_penalty": 0.01, "length_unit": "tokens"}},
            "before the choice, the reward loses",
            "0.01 per token of length",
        ),
        (
            {"pairs": {"kl_weight": 0.25}, "loop": {"algorithm": "raft"}},
            "before the choice, the reward loses",
            "0.25 per nat",
        ),
        ({"pairs": {"minimum_margin": 0.5}}, "pairs", "margin above 0.5"),
        ({"pairs": {"choice": "rejection-sampling", "etas": [2.0, 1.0]}}, "pairs", "etas 2.0, 1.0"),
        (
            {"training": {"uncertainty_weight": 0.75}, "reward": {"models": ENSEMBLE}},
            "loss",
            "uncertainty weight 0.75",
        ),
        ({"training": {"sft_weight": 0.2}}, "loss", "beta 0.1, plus 0.2 times the mean NLL of the chosen tokens |"),
        (
            {"pairs": {"source": "hybrid", "offline": "/home/somebody/given.jsonl"}},
            "external preference data",
            "given.jsonl, sha256 `0123456789abcdef` (beside its own pairs)",
        ),
        (
            {"pairs": {"source": "offline", "offline": "owner/given"}, "loop": {"iterations": 1}},
            "external preference data",
            "owner/given, sha256 `0123456789abcdef` (alone)",
        ),
        ({"training": {"adapter": {"rank": 8, "alpha": 16.0}}}, "adapter", "LoRA of rank 8, alpha 16.0"),
    ],
    ids=["kl", "length", "kl-raft", "margin", "etas", "uncertainty", "nll", "hybrid", "offline", "adapter"],
)
def test_what_the_recipe_uses_is_on_the_card(changes: dict[str, Any], name: str, shown: str) -> None:
    chosen = recipe(**changes)
    assert shown in row(card(chosen, hashes={"offline": "0123456789abcdef" * 4}), name)


def test_what_the_recipe_does_not_use_is_not_on_the_card() -> None:
    text = card(recipe())
    for word in ("before the choice", "per nat", "uncertainty", "external preference data", "adapter", "etas"):
        assert word not in text


def test_no_path_of_this_machine_reaches_the_card(tmp_path: Path) -> None:
    chosen = recipe(
        loop={"reference": REFERENCE},
        reward={"models": ENSEMBLE},
        prompts={"source": "/home/somebody/prompts.jsonl"},
        pairs={"source": "hybrid", "offline": "/home/somebody/given.jsonl"},
    )
    marked = [Assumption("loop.reference", REFERENCE, "nobody says")]
    hashes = {"reference": "ab" * 32, "reward": "cd" * 32, "offline": "ef" * 32}
    text = card(chosen, assumptions=marked, hashes=hashes)
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    rules.check_folder(tmp_path)
    assert "reference careful-reference (sha256 `abababababababab`)" in row(text, "algorithm")
    assert "mean of first, owner/second, sha256 `cdcdcdcdcdcdcdcd`" in row(text, "reward")
