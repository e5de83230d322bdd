"""Benchmarks of our own sentences in the originals' forms, and answers to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

INSTRUCTIONS = (
    "Say why tea cools in a cup.",
    "Name a good mat for a cat.",
    "Read the rain near the banks.",
    "Write a line on gold.",
    "Tell a cat that it may sit.",
)
CATEGORIES = ("writing", "humanities", "stem")


def alpaca_questions(folder: Path) -> Path:
    """Write instructions with a baseline's answers, in the form of AlpacaEval's file."""
    rows = [
        {"instruction": text, "output": f"The baseline says {number}.", "generator": "own_baseline", "dataset": "own"}
        for number, text in enumerate(INSTRUCTIONS)
    ]
    path = folder / "instructions.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def mt_questions(folder: Path) -> Path:
    """Write questions of two turns, in the form of MT-Bench's file."""
    rows = [
        {"question_id": 501 + number, "category": name, "turns": [f"What is {name}, {number}?", f"And why {name}?"]}
        for number, name in enumerate(CATEGORIES)
    ]
    path = folder / "question.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def alpaca_benchmark(folder: Path, **changes: Any) -> Path:
    """Write the settings of `own-alpaca`, which FILE names with --benchmark."""
    alpaca_questions(folder)
    content: dict[str, Any] = {
        "name": "own-alpaca",
        "protocol": "alpaca_eval",
        "questions": "instructions.json",
        "judge": "no-default",
        "baseline": "questions",
        "decoding": {"temperature": 0.7, "max_new_tokens": 12},
    }
    return _write(folder / "own-alpaca.yaml", content | changes)


def mt_benchmark(folder: Path, **changes: Any) -> Path:
    """Write the settings of `own-mt`."""
    mt_questions(folder)
    content: dict[str, Any] = {
        "name": "own-mt",
        "protocol": "mt_bench",
        "questions": "question.jsonl",
        "judge": "no-default",
        "decoding": {"temperature": 0.7, "max_new_tokens": 12},
        "temperatures": {"humanities": 0.0, "stem": 0.1},
        "greedy_below": 1e-4,
    }
    return _write(folder / "own-mt.yaml", content | changes)


def judge(folder: Path, kind: str, address: str, **changes: Any) -> Path:
    """Write the settings of a judge at `address`."""
    content: dict[str, Any] = {
        "name": f"own-{kind.replace('_', '-')}",
        "benchmark": kind,
        "model": "stub",
        "endpoint": {"address": address, "key_variable": "OWN_JUDGE_KEY", "attempts": 3},
        "price": {"input": 1.0, "output": 1.0},
    }
    content |= changes
    return _write(folder / f"{content['name']}.yaml", content)


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
