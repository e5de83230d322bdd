"""The last, incomplete optimiser step weighs every pair alike: loss and gradient against a plain mean in FP64, pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from gshf_release.data.hashing import seed_from
from gshf_release.models import checkpoints
from gshf_release.recipe import Recipe, parse
from gshf_release.run.directory import RunDirectory, read_json
from tests.optimization import gradients
from tests.optimization.gradients import AT_REST, BATCH, COUNT, pairs, references
from tests.optimization.plan import EXACT, recipe

SMOOTHING = 0.2
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "margin": {"uncertainty_weight": 2.0},
    "smoothed": {"loss": "smoothed", "label_smoothing": SMOOTHING},
    "robust": {"loss": "robust", "label_smoothing": SMOOTHING},
    "ipo": {"loss": "ipo"},
}


def log_probability(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(dim=-1)[range(len(completion)), completion].sum()


def loss_of(model: Any, number: int, kind: str) -> torch.Tensor:
    """Return one pair's loss, beta = 0.1."""
    pair, (reference_chosen, reference_rejected) = pairs()[number], references()[number]
    chosen = log_probability(model, pair.prompt_ids, pair.chosen_ids) - reference_chosen
    rejected = log_probability(model, pair.prompt_ids, pair.rejected_ids) - reference_rejected
    x = 0.1 * (chosen - rejected)
    if kind == "margin":
        x = x + 2.0 * (0.1 * number - 0.3)
    if kind == "smoothed":
        return -(1 - SMOOTHING) * logsigmoid(x) - SMOOTHING * logsigmoid(-x)
    if kind == "robust":
        return (-(1 - SMOOTHING) * logsigmoid(x) + SMOOTHING * logsigmoid(-x)) / (1 - 2 * SMOOTHING)
    if kind == "ipo":
        return (chosen / len(pair.chosen_ids) - rejected / len(pair.rejected_ids) - 5) ** 2
    return -logsigmoid(x)


def token_losses(model: Any, number: int) -> torch.Tensor:
    """Return the cross-entropies of one winner's tokens."""
    pair = pairs()[number]
    logits = model(torch.tensor([pair.prompt_ids + pair.chosen_ids])).logits[0, len(pair.prompt_ids) - 1 : -1]
    return -logits.log_softmax(dim=-1)[range(len(pair.chosen_ids)), pair.chosen_ids]


def expected(
    folder: Path, kind: str, batch: int = BATCH, nll_weight: float = 0.0
) -> list[tuple[float, dict[str, torch.Tensor]]]:
    """Return loss and gradient of every step: with a batch of eight, of eight pairs and of five.

    `nll_weight` is that of the chosen tokens' mean NLL.
    """
    order = sorted(range(COUNT), key=lambda number: seed_from(0, "order", 0, f"prompt-{number}"))
    found = []
    for step in (order[start : start + batch] for start in range(0, COUNT, batch)):
        model = checkpoints.load_model(folder / "tiny", "fp32").double()
        if kind == "raft":
            loss = torch.cat([token_losses(model, number) for number in step]).mean()
        else:
            loss = torch.stack([loss_of(model, number, kind) for number in step]).mean()
        if nll_weight:
            loss = loss + nll_weight * torch.cat([token_losses(model, number) for number in step]).mean()
        loss.backward()
        found.append((float(loss), {name: weight.grad.float() for name, weight in model.named_parameters()}))
    return found


def chosen_recipe(folder: Path, kind: str = "sigmoid", **training: Any) -> Recipe:
    """Return the recipe of a kind; a margin needs an ensemble, of which nothing here is computed."""
    chosen = recipe(folder, **AT_REST | ({} if kind == "margin" else LOSSES.get(kind, {})) | training)
    if kind != "margin":
        return chosen
    content = chosen.model_dump(exclude_unset=True)
    content["training"] |= LOSSES[kind]
    content["reward"] = {"models": [{"model": str(folder / name)} for name in ("reward", "second-scorer")]}
    return parse(Recipe, content, "tiny")


def assert_plain_mean(run: RunDirectory, folder: Path, kind: str, batch: int = BATCH, nll_weight: float = 0.0) -> None:
    wanted = expected(folder, kind, batch, nll_weight)
    steps = read_json(run.path / "iteration-1/policy/training.json")["steps"]
    assert [step["loss"] for step in steps] == pytest.approx([loss for loss, _ in wanted], rel=1e-6)
    for found, (_, gradient) in zip(gradients.gradients(run), wanted, strict=True):
        largest = max(float(part.abs().max()) for part in gradient.values())
        for name, part in gradient.items():
            torch.testing.assert_close(found[name], part, rtol=0, atol=1e-6 * max(1.0, largest), msg=name)


@pytest.mark.parametrize("padded", [False, True], ids=["packed", "padded"])
@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_is_the_plain_mean(kind: str, padded: bool, tiny_folder: Path, tmp_path: Path) -> None:
    """Micro-batches of four: the last one holds one pair."""
    profile = EXACT.model_copy(update={"micro_batch_pairs": 4})
    run = gradients.train(tmp_path / "run", chosen_recipe(tiny_folder, kind), profile, padded=padded)
    assert_plain_mean(run, tiny_folder, kind)


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_the_micro_batch_does_not_matter(micro_batch: int, tiny_folder: Path, tmp_path: Path) -> None:
    profile = EXACT.model_copy(update={"micro_batch_pairs": micro_batch})
    run = gradients.train(tmp_path / "run", chosen_recipe(tiny_folder), profile)
    assert_plain_mean(run, tiny_folder, "sigmoid")


def test_accuracy_and_margin_are_plain_means_too(tiny_folder: Path, tmp_path: Path) -> None:
    found = []
    for micro_batch in (1, 4, 8):
        profile = EXACT.model_copy(update={"micro_batch_pairs": micro_batch})
        run = gradients.train(tmp_path / f"run-{micro_batch}", chosen_recipe(tiny_folder), profile)
        found.append(read_json(run.path / "iteration-1/policy/training.json")["steps"])
    for name in ("accuracy", "margin"):
        for steps in found[1:]:
            assert [step[name] for step in steps] == pytest.approx([step[name] for step in found[0]], rel=1e-5)


@pytest.mark.parametrize("padded", [False, True], ids=["packed", "padded"])
def test_raft_weighs_every_token_alike(padded: bool, tiny_folder: Path, tmp_path: Path) -> None:
    profile = EXACT.model_copy(update={"micro_batch_pairs": 4})
    run = gradients.train(tmp_path / "run", chosen_recipe(tiny_folder), profile, "raft", padded)
    assert_plain_mean(run, tiny_folder, "raft")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "micro_batch", "padded"),
    [("sigmoid", 1, False), ("margin", 2, False), ("ipo", 4, True), ("robust", 4, False), ("raft", 2, False)],
)
def test_two_processes_share_an_uneven_step(
    kind: str, micro_batch: int, padded: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    """Five pairs are three and two, and with wide micro-batches four and one: what fills the rest up moves nothing."""
    profile = EXACT.model_copy(update={"processes": 2, "micro_batch_pairs": micro_batch})
    method = "raft" if kind == "raft" else "dpo"
    run = gradients.train(tmp_path / "run", chosen_recipe(tiny_folder, kind), profile, method, padded)
    assert_plain_mean(run, tiny_folder, kind)
