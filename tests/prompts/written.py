"""A writer for tests: lists that follow from the request's seed alone, with everything in them that must be dropped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from tests.run.plans import recipe

NOUNS = [
    f"{left}{right}"
    for left in ("sea", "wood", "moon", "hill", "iron", "rain")
    for right in ("bird", "path", "lamp", "song")
]
VERBS = ["explain", "compare", "describe", "sketch", "praise", "question", "count", "sort"]
BENCHMARK_PROMPT = "Why do US coins carry small letters?"


def entry(draw: random.Random) -> str:
    """Return a prompt that is seldom like another."""
    words = [draw.choice(NOUNS) for _ in range(draw.randrange(4, 9))]
    return f"{draw.choice(VERBS).title()} the {' '.join(words)} {draw.randrange(10_000)}?"


def list_of(seed: int, first: int = 9) -> str:
    """Return a numbered list."""
    draw = random.Random(seed)
    entries = [entry(draw) for _ in range(7)]
    entries += [entries[0].upper(), entries[1].replace("the", "a"), "Hm?", "Draw me a picture of it", BENCHMARK_PROMPT]
    draw.shuffle(entries)
    return "\n".join(f"{number}. {text}" for number, text in enumerate(entries, first))


def answer(body: dict[str, Any]) -> str:
    """Answer a chat request: as in `list_of`."""
    return f"Here you are:\n\n{list_of(body['seed'])}\n\nAnything else?"


def prompts_recipe(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe whose writer is served, and whose seeds and evaluation prompts lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds, evaluation = folder / "seeds.jsonl", folder / "evaluation.jsonl"
    draw = random.Random(5)
    seeds.write_text("".join(f'{{"prompt": "{entry(draw)}"}}\n' for _ in range(30)), encoding="utf-8")
    evaluation.write_text('{"prompt": "What would you evaluate with this?"}\n', encoding="utf-8")
    settings = {
        "target": 60,
        "seeds": str(seeds),
        "writer": {"model": "served:some-model"},
        "requests_per_round": 4,
        "max_new_tokens": 400,
        "decontaminate": [],
    }
    return recipe(
        prompts={"augmentation": settings | changes},
        evaluation={"prompts": str(evaluation), "second_scorer": {"model": "s"}},
    )


def files(run: RunDirectory) -> dict[str, bytes]:
    """Return what a run has put out."""
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for folder in ("prompts", "results")
        for path in (run.path / folder).rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def serving(address: str, **settings: Any) -> Profile:
    """Return a profile with a server."""
    return Profile.model_validate({"server": {"address": address} | settings})
