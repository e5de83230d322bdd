"""Made-up judgments of models of chosen strength, and a stub judge of known agreement."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release.data.hashing import seed_from
from gshf_release.evaluation.calibration.replay import Comparison, Verdict, model_first

STRENGTHS = {"weak": 0.05, "poor": 0.12, "fair": 0.2, "good": 0.35, "strong": 0.5, "best": 0.65}


def official_rows(prompts: int = 200, strengths: dict[str, float] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return `{model: rows of annotations.json}`; an easy prompt is easy for all."""
    generator = np.random.default_rng(11)
    ease = generator.normal(0, 1.2, prompts)
    found = {}
    for model, strength in (strengths or STRENGTHS).items():
        chance = 1 / (1 + np.exp(-(math.log(strength / (1 - strength)) * 1.3 + ease)))
        wins = generator.random(prompts) < chance
        found[model] = [row(k, model, float(win), generator) for k, win in enumerate(wins)]
    return found


def row(number: int, model: str, win: float, generator: np.random.Generator) -> dict[str, Any]:
    return {
        "instruction": f"made-up task {number}",
        "output_1": "b" * (50 + number * 37 % 100),
        "generator_1": "gpt4_1106_preview",
        "output_2": f"{model} " + "m" * int(generator.integers(50, 150)),
        "generator_2": model,
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "preference": 1.0 + win,
    }


def write(rows: dict[str, list[dict[str, Any]]], folder: Path) -> list[Path]:
    """Write one annotations.json a model."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for model, own in rows.items():
        paths.append(folder / f"{model}.json")
        paths[-1].write_text(json.dumps(own), encoding="utf-8")
    return paths


@dataclass
class StubJudge:
    """Agrees with the official judge on a chosen share of pairs, drawn from the pair alone; may lean."""

    rows: dict[str, list[dict[str, Any]]]
    agreement: float = 1.0
    longer: float = 0.0
    """Share of pairs on which the longer answer wins whatever it says."""
    first: float = 0.0
    """Share on which the answer shown first wins."""
    fails: frozenset[str] = frozenset()
    name: str = "stub"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        known = {
            (own["instruction"], own["output_2"]): own["preference"] - 1 for each in self.rows.values() for own in each
        }
        found = []
        for one in comparisons:
            if one.instruction in self.fails:
                found.append(Verdict(None))
                continue
            draw = np.random.default_rng(seed_from("stub", one.instruction, one.model)).random(3)
            win = known[one.instruction, one.model_answer]
            win = win if draw[0] < self.agreement else 1 - win
            shown_first = model_first(one)
            if draw[1] < self.longer:
                win = float(len(one.model_answer) > len(one.baseline_answer))
            if draw[2] < self.first:
                win = float(shown_first)
            found.append(Verdict(win, shown_first))
        return found
