"""Reward scoring against plain loops over the same model. Not a test: run it by hand, on a CPU or a GPU.

    python -m tests.benchmarks.scoring                                     # the two models of the recipe `stand-in-long`
    python -m tests.benchmarks.scoring --model FOLDER --prompts 805 --device cuda

By default the models are the encoder from which `stand-in-long` trains its reward, and its base SmolLM2-135M, each with one
logit; the head is untrained, which costs as much as a trained one. The conversations are real: prompts of AlpacaEval with
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

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from gshf_release.models import packing
from gshf_release.models.batching import by_length
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests.benchmarks.inputs import MODELS, Conversations, answered, classifier, data_option
from tests.benchmarks.machine import hardware
from tests.benchmarks.sides import in_turns, processed, ratios, report, spread, timed

OURS, BATCHES, ALONE = "SequenceClassificationReward", "batches of 16 by length", "one by one"
TOLERANCE = 2e-3
"""By which a reward may differ from side to side, for the batches are others."""


def plain(ours: SequenceClassificationReward, tokenizer: Any, texts: Any, batch: int) -> npt.NDArray[np.float32]:
    """Return the rewards by the library's own calls, in padded batches, sorted by length where a batch has several."""
    import torch

    ids = rendered(ours, texts)
    rewards = np.zeros(len(ids), dtype=np.float32)
    for chosen in plain_batches(ids, batch):
        rows = tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt").to(ours.model.device)
        with torch.inference_mode():
            rewards[chosen] = ours.model(**rows).logits[:, 0].float().cpu().numpy()
    return rewards


def rendered(ours: SequenceClassificationReward, conversations: Any) -> list[list[int]]:
    return [ours.renderer.ids(conversation) for conversation in conversations]


def plain_batches(ids: Sequence[Sequence[int]], batch: int) -> list[list[int]]:
    order = sorted(range(len(ids)), key=lambda index: len(ids[index])) if batch > 1 else list(range(len(ids)))
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def padded(ids: Sequence[Sequence[int]]) -> float:
    """Return how many tokens batches of 16 compute for one of the conversations."""
    computed = sum(len(rows) * max(len(ids[index]) for index in rows) for rows in plain_batches(ids, 16))
    return computed / sum(map(len, ids))


def computed_by(ours: SequenceClassificationReward, ids: Sequence[list[int]]) -> float:
    """Return how many tokens the package computes for one of the conversations."""
    if packing.can_pack(ours.model, max(map(len, ids))):
        batches = packing.batches(ids, ours.batch, ours.workers, ours.tokens)
        computed = sum(len(packing.pack([ids[index] for index in rows]).ids) for rows in batches)
    else:
        lengths = [len(row) for row in ids]
        batches = list(by_length(lengths, ours.batch, ours.workers, ours.tokens))
        computed = sum(len(rows) * lengths[rows[0]] for rows in batches)
    return computed / sum(map(len, ids))


@click.command()
@click.option("--model", "models", multiple=True, default=list(MODELS), help="encoder, causal, or a folder.")
@data_option
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

    from gshf_release.models.checkpoints import device_of, quiet_libraries

    quiet_libraries()
    chosen["device"] = device_of(chosen["device"])
    torch.set_num_threads(chosen["threads"])
    groups = answered(chosen["data"])
    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, classifier(name, Path(folder)), groups, chosen)


def measure(name: str, checkpoint: Path, groups: list[Conversations], chosen: dict[str, Any]) -> None:
    """Measure the sides with one model, and print."""
    device, precision = chosen["device"], chosen["precision"]
    ours = SequenceClassificationReward(
        checkpoint, precision=precision, device=device, batch=chosen["batch"], workers=chosen["workers"]
    )
    prompts = chosen["prompts"] or (16 if name == "encoder" else 4)
    drawn = random.Random(0).sample(groups, min(prompts, len(groups)))
    wanted: Any = [conversation for group in drawn for conversation in group]
    texts = [conversation for conversation in wanted if ours.reads(conversation)]
    seconds, differ = measured(ours, checkpoint, texts, chosen)
    ids = rendered(ours, texts)
    tokens = sum(map(len, ids))
    click.echo(
        f"{name}: {len(texts)} conversations to {len(drawn)} prompts ({len(wanted) - len(texts)} too long), mean"
        f" {tokens / len(texts):.0f} tokens"
    )
    parameters = ours.model.num_parameters(exclude_embeddings=True)
    rates = hardware(device, ours.model.dtype)
    for label, values in seconds.items():
        median = spread(values)["median"]
        click.echo(f"{label}: {tokens / median:,.0f} tokens/s; {rates.used(2 * parameters * tokens, median)}")
    every = [row for group in groups for row in rendered(ours, group) if ours.limit is None or len(row) <= ours.limit]
    (theirs, own), (their_all, own_all) = ((padded(rows), computed_by(ours, rows)) for rows in (ids, every))
    ratio = ratios(seconds[OURS], seconds[BATCHES])["median"]
    carried_over = ratio * their_all / own_all / (theirs / own)
    click.echo(
        f"computed tokens for one: {theirs:.3f} in batches of 16, {own:.3f} here; with all {len(groups)} prompts"
        f" {their_all:.3f} and {own_all:.3f}, which makes {ratio:.2f} {carried_over:.2f}"
    )
    facts = {"model": name, "conversations": len(texts), "tokens": tokens, "parameters": parameters, "differ": differ}
    report("scoring", seconds, **facts, with_all_prompts=carried_over, device=device)


def measured(
    ours: SequenceClassificationReward, checkpoint: Path, texts: Any, chosen: dict[str, Any]
) -> tuple[dict[str, list[float]], float]:
    """Return the seconds of each side, and by how much their rewards differ at most."""
    from gshf_release.models.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    scores: dict[str, Callable[[], npt.NDArray[np.float32]]] = {OURS: lambda: ours.score(texts)}
    scores |= {side: partial(plain, ours, tokenizer, texts, batch) for side, batch in ((BATCHES, 16), (ALONE, 1))}
    rewards: dict[str, npt.NDArray[np.float32]] = {}
    seconds_of = processed if chosen["device"] == "cpu" else timed

    def score(side: str) -> float:
        return seconds_of(lambda: rewards.__setitem__(side, scores[side]()))

    ours.score(texts[:2])
    seconds = in_turns({side: partial(score, side) for side in scores}, chosen["repeats"])
    differ = max(float(np.abs(values - rewards[OURS]).max()) for values in rewards.values())
    if differ > TOLERANCE:
        raise click.ClickException(f"The sides give other rewards: they differ by {differ:.2g}.")
    return seconds, differ


if __name__ == "__main__":
    main()
