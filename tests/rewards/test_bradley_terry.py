"""The last, incomplete step of a reward model's training weighs every pair alike; against a plain mean in FP64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid

from gshf_release.data.hashing import seed_from
from gshf_release.models import checkpoints
from gshf_release.optimization.trainer import run_trainer
from gshf_release.rewards import bradley_terry
from gshf_release.run.context import silent
from tests.optimization.gradients import Noting
from tests.optimization.plan import EXACT

PAIRS = [(f"pair-{number}", [4, 30 + number, 5, 2], [4, *range(60, 63 + number), 2]) for number in range(7)]
REST = bradley_terry.FitSettings(1e-12, 1, 4, 2, "fp32", 64, "constant", 0.0, 50, 0)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_loss_and_gradient_are_the_plain_mean(micro_batch: int, tiny_folder: Path, tmp_path: Path) -> None:
    """Seven pairs in steps of four: with micro-batches of two, the last one holds one pair."""
    how = replace(REST, micro_batch_pairs=micro_batch)
    model = checkpoints.load_model(tiny_folder / "reward", "fp32", head="reward")
    tokenizer = checkpoints.load_tokenizer(tiny_folder / "reward")
    trainer = bradley_terry._trainer(model, tokenizer, PAIRS, how, EXACT, tmp_path / "scratch", silent)
    trainer.args.max_grad_norm = 1e9
    layout = bradley_terry.layout(EXACT)
    noting = Noting(silent, layout)
    noting.folder = tmp_path / "gradients"
    trainer.add_callback(noting)
    steps = run_trainer(trainer, tmp_path / "scratch", 1, layout)
    order = sorted(PAIRS, key=lambda pair: seed_from(0, "order", 0, pair[0]))
    for number, pairs in enumerate((order[:4], order[4:])):
        plain = checkpoints.load_model(tiny_folder / "reward", "fp32", head="reward").double()
        rewards = [[plain(torch.tensor([ids])).logits[0, 0] for ids in sides] for _, *sides in pairs]
        loss = torch.stack([-logsigmoid(better - worse) for better, worse in rewards]).mean()
        loss.backward()
        assert steps[number]["loss"] == pytest.approx(float(loss), abs=1e-6)
        assert steps[number]["accuracy"] == pytest.approx(sum(better > worse for better, worse in rewards) / len(pairs))
        found = torch.load(noting.folder / f"{number + 1}.pt")
        for name, weight in plain.named_parameters():
            torch.testing.assert_close(found[name], weight.grad.float(), rtol=0, atol=1e-6, msg=name)
