"""The published recipe: its values, and a twin of it that goes through on a tiny Mistral with the real zephyr format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gshf_release import recipe as recipes
from gshf_release.data.records import Message, Sample
from gshf_release.models.chat_tokenizer import render
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.run.directory import RunDirectory
from tests import tiny
from tests.conftest import Outcome

PUBLISHED = "fsfairx-zephyr-7b"
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
"""Renders the format of the zephyr models: a line that names the role, the turn, and </s>."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with a tiny Mistral in the zephyr format, two tiny reward models, and prompts."""
    folder = tmp_path_factory.mktemp("twin")
    tiny.save(folder / "base")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = ZEPHYR
    tokenizer.save_pretrained(folder / "base")
    for seed, name in ((1, "reward"), (2, "second-scorer")):
        tiny.save_reward_model(folder / name, seed)
    tiny.prompts_file(folder / "prompts.jsonl", 40)
    return folder


def overrides(folder: Path) -> list[str]:
    """Return what makes the published recipe small enough for a test: other models and sizes, the same method."""
    return [
        f"base.model={folder / 'base'}",
        f"prompts.source={folder / 'prompts.jsonl'}",
        "prompts.roles={per_iteration: 8, validation: 4, test: 4}",
        "sampling.max_new_tokens=12",
        f"reward.model={folder / 'reward'}",
        f"evaluation.second_scorer.model={folder / 'second-scorer'}",
        "evaluation.max_new_tokens=12",
    ]


def flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_the_published_values_are_those_of_the_sources() -> None:
    recipe = recipes.load(PUBLISHED)
    assert recipe.base.model == "HuggingFaceH4/mistral-7b-sft-beta"
    assert recipe.reward.model == "hendrydong/Mistral-RM-for-RAFT-GSHF-v0"
    assert (recipe.loop.iterations, recipe.prompts.roles.per_iteration, recipe.loop.reference) == (3, 20_000, "base")
    assert (recipe.sampling.n, recipe.sampling.temperatures) == (8, (1.0, 0.7))
    assert (recipe.sampling.top_p, recipe.sampling.top_k, recipe.sampling.max_new_tokens) == (1.0, 0, 2048)
    training = recipe.training
    assert (training.beta, training.learning_rate, training.schedule, training.warmup_share) == (
        0.1,
        5e-7,
        "cosine",
        0.03,
    )
    assert (training.epochs, training.batch_pairs, training.loss) == (2, 128, "sigmoid")


def test_every_value_of_the_published_recipe_has_its_source_or_says_that_it_is_an_assumption() -> None:
    from gshf_release.data import assets

    text = assets.find(PUBLISHED, "training/recipes", ".yaml").read_text(encoding="utf-8")
    for section in ("loop", "sampling", "pairs", "training"):
        lines = text.split(f"\n{section}:\n")[1].split("\n\n")[0].splitlines()
        for line in lines:
            needs_none = line.strip().startswith(("algorithm: gshf", "prompts_per_shard: "))
            assert needs_none or "[P]" in line or "[card]" in line or "# assumption: " in line, line


def test_zephyrs_format_is_rendered_to_the_letter(twin: Path) -> None:
    tokenizer = load_tokenizer(twin / "base")
    turns = [Message(role="system", content="Be brief."), Message(role="user", content="Why is tea good?")]
    assert tokenizer.decode(render(tokenizer, turns)) == (
        "<|system|>\nBe brief.</s>\n<|user|>\nWhy is tea good?</s>\n<|assistant|>\n"
    )
    assert tokenizer.decode(render(tokenizer, turns[1:])) == "<|user|>\nWhy is tea good?</s>\n<|assistant|>\n"


def test_a_twin_of_the_published_recipe_trains(command: Callable[..., Outcome], twin: Path) -> None:
    changed = overrides(twin)
    settings = [part for override in changed for part in ("--set", override)]
    outcome = command("train", PUBLISHED, *settings, "--run", twin / "run")
    assert outcome.code == 0, outcome.err
    run = RunDirectory.open(twin / "run")
    assert [(run.path / f"iteration-{t}" / "policy" / "manifest.json").is_file() for t in (1, 2, 3)] == [True] * 3
    first = Sample.read(run.path / "iteration-1" / "samples" / "samples.parquet")[0]
    shown = load_tokenizer(twin / "base").decode(first.prompt_ids)
    assert shown.startswith("<|user|>\n")
    assert shown.endswith("?</s>\n<|assistant|>\n")
    steps = json.loads((run.path / "iteration-1" / "policy" / "training.json").read_text(encoding="utf-8"))["steps"]
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_the_twin_differs_from_the_published_recipe_only_where_it_says_so(twin: Path) -> None:
    published, small = (recipes.load(PUBLISHED, chosen) for chosen in ((), tuple(overrides(twin))))
    before, after = (flat(one.model_dump(mode="json")) for one in (published, small))
    keys = [override.partition("=")[0] for override in overrides(twin)]
    differing = [key for key in before if before[key] != after[key]]
    assert [key for key in differing if not any(key == named or key.startswith(f"{named}.") for named in keys)] == []
    assert len(differing) == 9
