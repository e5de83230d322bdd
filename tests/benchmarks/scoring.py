"""Reward scoring against plain loops over the same model. Not a test: run it by hand, on a CPU or a GPU.

    python -m tests.benchmarks.scoring                                     # the two models of the recipe `learn`
    python -m tests.benchmarks.scoring --model FOLDER --prompts 805 --device cuda

By default the models are the encoder from which `learn` trains its reward, and its base SmolLM2-135M, each as a classifier with
one logit; the head is untrained, which costs as much as a trained one. The conversations are real: prompts of AlpacaEval with
the answers of all models that are at hand (`GSHF_TEST_DATA` or ../shared/data; eight of them), none cut; those longer than the
model reads are left out.

The sides score the same conversations to the same numbers, each with its tokenizer, templates and forward passes:

- `SequenceClassificationReward`, which the package uses, with batches of `--batch` and `--workers` side by side;
- transformers alone: sorted by length, padded batches of 16;
- transformers alone: one conversation at a time.

On a CPU seconds are the processor's, which a busy machine stretches less than the clock's. Tokens are the conversations', the
prompt once for each answer, without padding. MFU counts two operations for each of them and each parameter outside the
embeddings, over the rate of large matrix products measured here, which is the limit too.

Few conversations pad more than many do, which would flatter whoever pads less. So the tokens that the two sides with batches
compute, padding counted and what is shared counted once, are printed for one token of the conversations, here and if all
prompts were taken; with them the ratio is carried over to all prompts, as if a computed token cost the same in both.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from gshf_release import packing
from gshf_release.batches import by_length
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests.benchmarks.sampling import hardware
from tests.benchmarks.sides import in_turns, processed, ratios, report, spread, timed
from tests.conftest import REPOSITORY

GOALS = {"batches of 16 by length": 1.2, "one by one": 5.0}
TOLERANCE = 2e-3
"""By which a reward may differ from side to side, for the batches are others."""
MODELS = {"encoder": "reward", "causal": "base"}
"""What `--model` calls the models of the recipe `learn`, and where it names them."""
Conversations = list[list[dict[str, str]]]


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


def plain(model: Any, tokenizer: Any, ids: list[list[int]], batch: int, device: str) -> npt.NDArray[np.float32]:
    """Return the rewards by the library's own calls, in padded batches, sorted by length where a batch has several."""
    import torch

    rewards = np.zeros(len(ids), dtype=np.float32)
    for chosen in plain_batches(ids, batch):
        padded = tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt").to(device)
        with torch.inference_mode():
            rewards[chosen] = model(**padded).logits[:, 0].float().cpu().numpy()
    return rewards


def plain_batches(ids: Sequence[Sequence[int]], batch: int) -> list[list[int]]:
    order = sorted(range(len(ids)), key=lambda index: len(ids[index])) if batch > 1 else list(range(len(ids)))
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def padded(ids: Sequence[Sequence[int]]) -> float:
    """Return how many tokens batches of 16 compute for one of the conversations."""
    computed = sum(len(rows) * max(len(ids[index]) for index in rows) for rows in plain_batches(ids, 16))
    return computed / sum(map(len, ids))


def computed_by(ours: SequenceClassificationReward, ids: Sequence[list[int]]) -> float:
    """Return how many tokens the package computes for one of the conversations."""
    if packing.can_pack(ours.model):
        batches = packing.batches(ids, ours.batch, ours.workers, ours.tokens)
        computed = sum(len(packing.pack([ids[index] for index in rows]).ids) for rows in batches)
    else:
        lengths = [len(row) for row in ids]
        batches = list(by_length(lengths, ours.batch, ours.workers, ours.tokens))
        computed = sum(len(rows) * lengths[rows[0]] for rows in batches)
    return computed / sum(map(len, ids))


def checkpoint_of(name: str, folder: Path) -> Path:
    """Return a checkpoint folder: a given one, or a model of the recipe `learn` written there with a new head."""
    if name not in MODELS:
        return Path(name)
    import torch

    from gshf_release import checkpoints, recipe

    learn = recipe.load("learn")
    chosen: Any = learn.base if MODELS[name] == "base" else learn.reward.contrasts
    source = checkpoints.fetch(chosen.model if MODELS[name] == "base" else chosen.base, sha256=chosen.sha256)
    torch.manual_seed(0)
    model = checkpoints.load_model(source, "fp32", head="reward", new_head=True)
    checkpoints.save(model, checkpoints.load_tokenizer(source), folder / name)
    return folder / name


@click.command()
@click.option("--model", "models", multiple=True, default=list(MODELS), help="encoder, causal, or a folder.")
@click.option("--data", type=click.Path(path_type=Path), help="Default: $GSHF_TEST_DATA or ../shared/data.")
@click.option("--prompts", type=int, help="Each with an answer of every model. Default: 16 for encoder, else 4.")
@click.option("--batch", default=32, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(models: tuple[str, ...], **chosen: Any) -> None:
    """Measure and print."""
    import torch

    from gshf_release.checkpoints import device_of, quiet_libraries

    quiet_libraries()
    chosen["device"] = device_of(chosen["device"])
    torch.set_num_threads(chosen["threads"])
    data = chosen["data"] or Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    groups = answered(data)
    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, checkpoint_of(name, Path(folder)), groups, chosen)


def measure(name: str, checkpoint: Path, groups: list[Conversations], chosen: dict[str, Any]) -> None:
    """Measure the sides with one model, and print."""
    from gshf_release.checkpoints import load_tokenizer

    device = chosen["device"]
    ours = SequenceClassificationReward(
        checkpoint, precision=chosen["precision"], device=device, batch=chosen["batch"], workers=chosen["workers"]
    )
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    prompts = chosen["prompts"] or (16 if name == "encoder" else 4)
    drawn = random.Random(0).sample(groups, min(prompts, len(groups)))
    wanted = [conversation for group in drawn for conversation in group]
    texts: Any = [conversation for conversation in wanted if ours.reads(conversation)]  # type: ignore[arg-type]
    rewards: dict[str, npt.NDArray[np.float32]] = {}
    seconds_of = processed if device == "cpu" else timed

    def side(label: str, score: Callable[[], npt.NDArray[np.float32]]) -> Callable[[], float]:
        return lambda: seconds_of(lambda: rewards.__setitem__(label, score()))

    def rendered(conversations: Any) -> list[list[int]]:
        return [ours.renderer.ids(conversation) for conversation in conversations]

    sides = {"SequenceClassificationReward": side("ours", lambda: ours.score(texts))}
    for label, batch in (("batches of 16 by length", 16), ("one by one", 1)):
        sides[label] = side(label, lambda batch=batch: plain(ours.model, tokenizer, rendered(texts), batch, device))  # type: ignore[misc]
    ours.score(texts[:2])
    seconds = in_turns(sides, chosen["repeats"])
    worst = max(float(np.abs(values - rewards["ours"]).max()) for values in rewards.values())
    if worst > TOLERANCE:
        raise click.ClickException(f"The sides give other rewards: they differ by {worst:.2g}.")
    ids = rendered(texts)
    tokens = sum(map(len, ids))
    every = [row for group in groups for row in rendered(group) if ours.limit is None or len(row) <= ours.limit]
    click.echo(
        f"{name}: {len(texts)} conversations to {len(drawn)} prompts ({len(wanted) - len(texts)} too long), mean"
        f" {tokens / len(texts):.0f} tokens"
    )
    parameters = ours.model.num_parameters(exclude_embeddings=True)
    peak = hardware(device, ours.model.dtype)["flops"]
    for label, values in seconds.items():
        speed = tokens / spread(values)["median"]
        click.echo(
            f"{label}: {speed:,.0f} tokens/s; MFU, and of the limit, {2 * parameters * speed / peak:.0%} of"
            f" {peak / 1e9:.0f} GFLOP/s"
        )
    here, there = padded(ids) / computed_by(ours, ids), padded(every) / computed_by(ours, every)
    ratio = ratios(seconds["SequenceClassificationReward"], seconds["batches of 16 by length"])["median"]
    click.echo(
        f"computed tokens for one: {padded(ids):.3f} in batches of 16, {computed_by(ours, ids):.3f} here; with all"
        f" {len(groups)} prompts {padded(every):.3f} and {computed_by(ours, every):.3f}, which makes {ratio:.2f}"
        f" {ratio * there / here:.2f}"
    )
    facts = {"model": name, "conversations": len(texts), "tokens": tokens, "parameters": parameters, "differ": worst}
    report("scoring", GOALS, seconds, **facts, with_all_prompts=ratio * there / here, device=device)


if __name__ == "__main__":
    main()
