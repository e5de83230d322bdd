"""Reward scoring against plain loops over the same model. Not a test: run it by hand, on a CPU or a GPU.

    python -m tests.benchmarks.scoring                                     # the tests' tiny reward model: overheads alone
    python -m tests.benchmarks.scoring --model FOLDER --count 805 --device cuda --peak-flops 989e12

The sides score the same conversations to the same numbers, each with its tokenizer, templates and forward passes:

- `SequenceClassificationReward`, which the package uses, with batches of `--batch` and `--workers` side by side;
- transformers alone: sorted by length, padded batches of 16;
- transformers alone: one conversation at a time.

Answers have the lengths of the 805 released answers of one model where the benchmark files are at hand (`GSHF_TEST_DATA`),
else lengths drawn from a log-normal; their words are the seed prompts'. Tokens count without padding. The share of the hardware
limit (MFU) takes two operations per parameter and token.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from tests.benchmarks.dedupe import seeds
from tests.benchmarks.sides import in_turns, report, spread, timed
from tests.conftest import REPOSITORY

GOALS = {"batches of 16 by length": 1.2, "one by one": 5.0}
ANSWERS = "model_outputs"
TOLERANCE = 2e-3
"""By which a reward may differ from side to side, for the batches are others."""
Conversations = list[list[dict[str, str]]]


def word_counts(count: int) -> tuple[list[int], str]:
    """Return how many words each answer gets, and where the lengths come from."""
    data = Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    files = sorted((data / "alpaca_eval" / ANSWERS).glob("*.json"))
    draw = random.Random(0)
    if files:
        rows = json.loads(files[0].read_text(encoding="utf-8"))
        lengths = [max(1, len(row["output"].split())) for row in rows]
        return [draw.choice(lengths) for _ in range(count)], f"answers of {files[0].stem}"
    return [max(1, min(900, round(draw.lognormvariate(5.5, 0.7)))) for _ in range(count)], "log-normal draws"


def conversations(count: int, longest: int) -> tuple[Conversations, str]:
    """Return prompts with answers of real lengths, of `longest` words at most."""
    prompts, (lengths, source) = seeds(), word_counts(count)
    words = cycle(word for prompt in prompts for word in prompt.split())
    found = [
        [
            {"role": "user", "content": prompts[number % len(prompts)]},
            {"role": "assistant", "content": " ".join(islice(words, min(length, longest)))},
        ]
        for number, length in enumerate(lengths)
    ]
    return found, source


def plain(model: Any, tokenizer: Any, ids: list[list[int]], batch: int, device: str) -> npt.NDArray[np.float32]:
    """Return the rewards by the library's own calls, in padded batches, sorted by length where a batch has several."""
    import torch

    order = sorted(range(len(ids)), key=lambda index: len(ids[index])) if batch > 1 else list(range(len(ids)))
    rewards = np.zeros(len(ids), dtype=np.float32)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        padded = tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt").to(device)
        with torch.inference_mode():
            rewards[chosen] = model(**padded).logits[:, 0].float().cpu().numpy()
    return rewards


@click.command()
@click.option(
    "--model", type=click.Path(path_type=Path), help="A sequence-classification checkpoint [the tests' tiny one]."
)
@click.option("--count", default=256, show_default=True, help="Conversations.")
@click.option("--longest", default=300, show_default=True, help="Words of an answer at most.")
@click.option("--batch", default=32, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--peak-flops", type=float, help="Of the device, for the share of the hardware limit.")
@click.option("--repeats", default=3, show_default=True)
def main(**chosen: Any) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        measure(chosen, chosen["model"] or _tiny(Path(folder)))


def _tiny(folder: Path) -> Path:
    from tests import tiny

    return tiny.save_reward_model(folder / "reward", max_position_embeddings=8192)


def measure(chosen: dict[str, Any], checkpoint: Path) -> None:
    from gshf_release.checkpoints import load_tokenizer, quiet_libraries
    from gshf_release.rewards.sequence_classification import SequenceClassificationReward

    quiet_libraries()
    device = chosen["device"]
    ours = SequenceClassificationReward(
        checkpoint, precision=chosen["precision"], device=device, batch=chosen["batch"], workers=chosen["workers"]
    )
    drawn, source = conversations(chosen["count"], chosen["longest"])
    texts = [conversation for conversation in drawn if ours.reads(conversation)]  # type: ignore[arg-type]
    if len(texts) < len(drawn):
        click.echo(f"{len(drawn) - len(texts)} of {len(drawn)} conversations are longer than the model reads; left out")
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    rewards: dict[str, npt.NDArray[np.float32]] = {}

    def side(name: str, score: Callable[[], npt.NDArray[np.float32]]) -> Callable[[], float]:
        return lambda: timed(lambda: rewards.__setitem__(name, score()))

    def rendered() -> list[list[int]]:
        return [ours.renderer.ids(conversation) for conversation in texts]  # type: ignore[arg-type]

    sides = {"SequenceClassificationReward": side("ours", lambda: ours.score(texts))}  # type: ignore[arg-type]
    for name, batch in (("batches of 16 by length", 16), ("one by one", 1)):
        sides[name] = side(name, lambda batch=batch: plain(ours.model, tokenizer, rendered(), batch, device))  # type: ignore[misc]
    for warm in sides.values():
        warm()
    seconds = in_turns(sides, chosen["repeats"])
    worst = max(float(np.abs(values - rewards["ours"]).max()) for values in rewards.values())
    if worst > TOLERANCE:
        raise click.ClickException(f"The sides give other rewards: they differ by {worst:.2g}.")
    tokens, weights = sum(map(len, rendered())), sum(weight.numel() for weight in ours.model.parameters())
    facts = {"conversations": len(texts), "tokens": tokens, "parameters": weights, "lengths": source, "differ": worst}
    for name, values in seconds.items():
        click.echo(f"{name}: {_rates(tokens, weights, spread(values)['median'], chosen['peak_flops'])}")
    report("scoring", GOALS, seconds, **facts, batch=chosen["batch"], workers=chosen["workers"], device=device)


def _rates(tokens: int, parameters: int, seconds: float, peak: float | None) -> str:
    """Return tokens a second, operations a second, and their share of the device's peak."""
    flops = 2 * parameters * tokens / seconds
    share = f"{100 * flops / peak:.1f} % of the peak" if peak else "peak not given (--peak-flops)"
    return f"{tokens / seconds:,.0f} tokens/s, {flops:.3g} operations/s, {share}"


if __name__ == "__main__":
    main()
