"""Inputs of several benchmarks: the models of `quickstart` or of `stand-in-long`, and real answers to AlpacaEval's prompts."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import click

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = {"encoder": "reward", "causal": "base"}
"""What `--model` or `--reward` calls the models of the recipe `stand-in-long`, and where it names them."""
Conversations = list[list[dict[str, str]]]


def data_folder() -> Path:
    return Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")


data_option = click.option("--data", type=Path, default=data_folder, help="Default: $GSHF_TEST_DATA or ../shared/data.")


def prepared(model: str | None, folder: Path) -> Path:
    """Return a checkpoint folder: that of `--model`, or the quickstart's model written to one in BF16."""
    if model is not None:
        return Path(model).resolve()
    from gshf_release import recipe
    from gshf_release.models import checkpoints

    base = recipe.load("quickstart").base
    source = checkpoints.fetch(base.model, sha256=base.sha256)
    checkpoints.load_model(source, "bf16").save_pretrained(folder)
    checkpoints.load_tokenizer(source).save_pretrained(folder)
    return folder


def classifier(name: str, folder: Path) -> Path:
    """Return a checkpoint folder: a given one, or a model of the recipe `stand-in-long` written there with a new head."""
    if name not in MODELS:
        return Path(name)
    import torch

    from gshf_release import recipe
    from gshf_release.models import checkpoints

    stand_in = recipe.load("stand-in-long")
    chosen: Any = stand_in.base if MODELS[name] == "base" else stand_in.reward.contrasts
    source = checkpoints.fetch(chosen.model if MODELS[name] == "base" else chosen.base, sha256=chosen.sha256)
    torch.manual_seed(0)
    model = checkpoints.load_model(source, "fp32", head="reward", new_head=True)
    checkpoints.save(model, checkpoints.load_tokenizer(source), folder / name)
    return folder / name


def answered(data: Path) -> list[Conversations]:
    """Return, for each prompt, its conversations with the answer of every model."""
    found: dict[str, Conversations] = {}
    for path in sorted((data / "alpaca_eval" / "annotations").glob("*.json.gz")):
        for row in json.loads(gzip.decompress(path.read_bytes())):
            turns = [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output_2"]}]
            found.setdefault(row["instruction"], []).append(turns)
    if not found:
        raise click.ClickException(f"{data} has no alpaca_eval/annotations/*.json.gz.")
    return [found[prompt] for prompt in sorted(found)]
