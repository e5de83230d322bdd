"""Judgments made up for the tests: a small evaluation set with difficulties and gamed baselines of its own."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from gshf_release.evaluation.alpaca_eval.annotations import BASELINE, JUDGE, Annotation
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData, GamedBaselines

COUNT = 60
INSTRUCTIONS = tuple(f"Say {number} in words." for number in range(COUNT))


def annotation(preference: float | None = 2.0, **changes: object) -> Annotation:
    """One row; `changes` are its fields."""
    row = Annotation("Say it.", "long answer", "answer", BASELINE, "mine", JUDGE, preference, place="a.json row 1")
    return replace(row, **changes)  # type: ignore[arg-type]


def judged(seed: int = 0, instructions: tuple[str, ...] = INSTRUCTIONS) -> list[Annotation]:
    """A model that loses more the shorter its answer is."""
    draw = random.Random(seed)
    rows = []
    for number, instruction in enumerate(instructions, 1):
        ours, theirs = draw.randint(5, 60), draw.randint(5, 60)
        preference = 1 + 1 / (1 + np.exp(-(0.05 * (ours - theirs) + draw.gauss(-0.5, 1))))
        changes = {"instruction": instruction, "output_1": "a" * theirs, "output_2": "b" * ours}
        rows.append(annotation(float(preference), place=f"a.json row {number}", **changes))
    return rows


def borrowed(seed: int = 1, instructions: tuple[str, ...] = INSTRUCTIONS) -> AlpacaEvalData:
    """Difficulties and gamed baselines for the small set."""
    draw = np.random.default_rng(seed)
    difficulty = draw.normal(size=COUNT)
    length = draw.normal(size=2 * COUNT)
    gamed = GamedBaselines(1 / (1 + np.exp(length)), length, np.concatenate([difficulty, difficulty]))
    return AlpacaEvalData(gamed=gamed, difficulty=difficulty, instructions=instructions)
