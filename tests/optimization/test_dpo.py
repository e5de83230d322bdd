"""DPO against a loss written out by hand, and bit by bit the same after any interruption. FP32, one thread, on the CPU."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from gshf_release.data.hashing import seed_from
from gshf_release.data.records import Pair, ReferenceLogProbability
from gshf_release.data.results import find, read_cells
from gshf_release.errors import DataError, Interrupted, RecipeError
from gshf_release.models import checkpoints
from gshf_release.optimization.dpo import uncertainty
from gshf_release.recipe import Recipe, Training
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from tests.optimization.plan import EOS, EXACT, finish, pairs, recipe, stages
from tests.optimization.stopped import kill_after_a_checkpoint
from tests.run.plans import Heard

POLICY = Path("iteration-1") / "policy"
LONG = {"batch_pairs": 1, "epochs": 3}


def begin(path: Path, chosen: Recipe, profile: Profile = EXACT) -> RunDirectory:
    return RunDirectory.create(path, chosen, profile)


def steps(run: RunDirectory) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((run.path / POLICY / "training.json").read_text(encoding="utf-8"))[
        "steps"
    ]
    return found


def weights(run: RunDirectory) -> bytes:
    return (run.path / POLICY / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def golden(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return a finished run of two steps of three pairs."""
    chosen = recipe(tiny_folder)
    run = begin(tmp_path_factory.mktemp("golden") / "run", chosen)
    finish(run, chosen)
    return run


@pytest.fixture(scope="module")
def unbroken(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return a finished run of eighteen steps that nothing disturbed."""
    chosen = recipe(tiny_folder, **LONG)
    run = begin(tmp_path_factory.mktemp("unbroken") / "run", chosen)
    finish(run, chosen)
    return run


def log_probability(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Return sum_t log p(completion_t | prompt, completion_<t) of one unpadded sequence."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(dim=-1)[range(len(completion)), completion].sum()


def log_ratios(model: Any, base: Any, pair: Pair) -> list[torch.Tensor]:
    """Return log p_model - log p_base of the chosen and of the rejected completion."""
    ratios = []
    for ids in (pair.chosen_ids, pair.rejected_ids):
        with torch.no_grad():
            anchor = log_probability(base, pair.prompt_ids, ids)
        ratios.append(log_probability(model, pair.prompt_ids, ids) - anchor)
    return ratios


def sigmoid(pair: Pair, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return equation 7 of arXiv 2305.18290, beta = 0.1."""
    return -torch.log(torch.sigmoid(0.1 * (chosen - rejected)))


def smoothed(pair: Pair, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return conservative DPO for labels wrong in one of five cases."""
    x = 0.1 * (chosen - rejected)
    return -0.8 * torch.log(torch.sigmoid(x)) - 0.2 * torch.log(torch.sigmoid(-x))


def robust(pair: Pair, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return robust DPO (arXiv 2403.00409) for labels wrong in one of five cases."""
    x = 0.1 * (chosen - rejected)
    return (-0.8 * torch.log(torch.sigmoid(x)) + 0.2 * torch.log(torch.sigmoid(-x))) / 0.6


def ipo(pair: Pair, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return equation 17 of arXiv 2310.12036 on log-ratios per token, tau = 0.1."""
    difference = chosen / len(pair.chosen_ids) - rejected / len(pair.rejected_ids)
    return (difference - 5) ** 2


LOSSES = {"sigmoid": sigmoid, "smoothed": smoothed, "robust": robust, "ipo": ipo}


def loss_by_hand(model: Any, base: Any, batch: list[Pair], loss: str = "sigmoid") -> torch.Tensor:
    """Return a loss averaged over the batch."""
    return torch.stack([LOSSES[loss](pair, *log_ratios(model, base, pair)) for pair in batch]).mean()


def first_adamw_step(model: Any, rate: float, limit: float) -> None:
    """Take AdamW's first step by hand: both moments, bias-corrected, are g and g squared; the gradient's norm is cut."""
    gradients = [weight.grad for weight in model.parameters()]
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    with torch.no_grad():
        for weight, gradient in zip(model.parameters(), gradients, strict=True):
            scaled = gradient * min(1.0, limit / (float(norm) + 1e-6))
            weight -= rate * scaled / (scaled.abs() + 1e-8)


def test_the_loss_starts_at_log_two(golden: RunDirectory) -> None:
    assert steps(golden)[0]["loss"] == pytest.approx(0.693147181, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_losses_by_hand(loss: str, tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder, loss=loss, label_smoothing=0.2 if loss in ("smoothed", "robust") else 0.0)
    run = begin(tmp_path / "run", chosen)
    finish(run, chosen)
    in_order = sorted(pairs(), key=lambda pair: seed_from(0, "order", 0, pair.prompt_id))
    model, base = (checkpoints.load_model(tiny_folder / "tiny", "fp32") for _ in range(2))
    first = loss_by_hand(model, base, in_order[:3], loss)
    first.backward()
    first_adamw_step(model, rate=0.001, limit=1.0)
    second = float(loss_by_hand(model, base, in_order[3:], loss))
    assert abs(second - float(first)) > 0.0005, "the step changed something"
    assert [step["loss"] for step in steps(run)] == pytest.approx([float(first), second], abs=2e-5)


def test_uncertainty_is_a_margin_inside_the_sigmoid() -> None:
    """x = beta * (4 - 1) = 0.3 without; deviations 0.5 and 0.2 at weight 2 add 0.6."""
    training = Training(beta=0.1, uncertainty_weight=2.0)
    pair = replace(pairs()[0], chosen_deviation=0.5, rejected_deviation=0.2)
    reference_chosen = -10.0 - uncertainty(pair, training)
    x = 0.1 * ((-6.0 - reference_chosen) - (-9.0 + 10.0))
    assert x == pytest.approx(0.3 + 0.6)
    assert uncertainty(pair, Training()) == 0
    assert uncertainty(pairs()[0], training) == 0, "one reward model has no deviation"


def test_reference_log_probabilities_are_those_of_the_base(golden: RunDirectory, policy: Any) -> None:
    rows = ReferenceLogProbability.read(golden.path / "iteration-1" / "reference" / "reference.parquet")
    with torch.inference_mode():
        for pair, row in zip(pairs(), rows, strict=True):
            assert row.chosen_logp == pytest.approx(
                float(log_probability(policy, pair.prompt_ids, pair.chosen_ids)), abs=1e-4
            )
            assert row.rejected_logp == pytest.approx(
                float(log_probability(policy, pair.prompt_ids, pair.rejected_ids)), abs=1e-4
            )


def test_the_micro_batch_does_not_change_the_losses(golden: RunDirectory, tiny_folder: Path, tmp_path: Path) -> None:
    chosen, one = recipe(tiny_folder), EXACT.model_copy(update={"micro_batch_pairs": 1})
    run = begin(tmp_path / "run", chosen, one)
    finish(run, chosen, one)
    for wide, narrow in zip(steps(golden), steps(run), strict=True):
        assert narrow["loss"] == pytest.approx(wide["loss"], abs=1e-5)
        assert narrow["gradient_norm"] == pytest.approx(wide["gradient_norm"], rel=1e-3)


def test_a_micro_batch_that_does_not_divide_the_batch_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    chosen, two = recipe(tiny_folder), EXACT.model_copy(update={"micro_batch_pairs": 2})
    with pytest.raises(RecipeError, match="batch_pairs 3 is not a multiple of the profile's micro_batch_pairs 2"):
        finish(begin(tmp_path / "run", chosen, two), chosen, two)


def test_the_same_recipe_gives_the_same_bytes(golden: RunDirectory, tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder)
    run = begin(tmp_path / "run", chosen)
    finish(run, chosen)
    assert weights(run) == weights(golden)


def test_weights_are_handed_over_in_fp32(golden: RunDirectory) -> None:
    from safetensors.torch import load_file

    tensors = load_file(golden.path / POLICY / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_the_policy_carries_no_path_of_this_machine(golden: RunDirectory, tiny_folder: Path) -> None:
    for path in (golden.path / POLICY / "model").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(tiny_folder) not in text, path.name
        assert str(golden.path) not in text, path.name


def test_cells_are_computed_from_the_metrics(golden: RunDirectory) -> None:
    cells, found = read_cells(golden.path / "results.json"), steps(golden)
    assert find(cells, metric="DPO loss, first step").value == found[0]["loss"]  # type: ignore[union-attr]
    assert find(cells, metric="DPO loss, last quarter").value == found[-1]["loss"]  # type: ignore[union-attr]
    assert find(cells, metric="optimiser steps").value == 2  # type: ignore[union-attr]
    assert 0 < find(cells, metric="weights changed after BF16").value <= 100  # type: ignore[union-attr, operator]


def test_what_is_trained_are_the_sampled_ids(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every completion reaches the loss as sampled: one EOS if it stopped, none if it was cut, no prompt, no padding."""
    batches: list[dict[str, torch.Tensor]] = []

    def look(trainer: Any, **options: Any) -> None:
        batches.extend(trainer.get_train_dataloader())
        raise DataError("seen enough")

    monkeypatch.setattr(transformers.Trainer, "train", look)
    chosen = recipe(tiny_folder)
    with pytest.raises(DataError, match="seen enough"):
        finish(begin(tmp_path / "run", chosen), chosen)
    trained = []
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
            trained.append(ids[mask.bool()].tolist())
    expected = [ids for pair in pairs() for ids in (pair.chosen_ids, pair.rejected_ids)]
    assert sorted(trained) == sorted(expected)
    assert sorted(ids.count(EOS) for ids in trained) == [0] * 3 + [1] * 9


def test_no_pairs_are_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder)
    run = begin(tmp_path / "run", chosen)
    with pytest.raises(
        DataError, match=r"Iteration 1 has no pairs to train on\. iteration-1/pairs/dropped\.json counts"
    ):
        execute(stages(chosen, count=0), run, chosen, EXACT)


class FirstStep(Heard):
    """An observer that keeps at which optimiser step the training began to report."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def started(self, *args: Any) -> Any:
        """Keep every step."""
        return lambda done, total, unit: self.steps.append(done)


def test_killed_and_resumed_is_bit_equal(unbroken: RunDirectory, tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder, **LONG)
    run = begin(tmp_path / "run", chosen)
    kill_after_a_checkpoint(run)
    heard = FirstStep()
    finish(run, chosen, observer=heard)
    assert 1 not in heard.steps, "it went on from a checkpoint"
    assert weights(run) == weights(unbroken)
    assert steps(run) == steps(unbroken)
    assert not (run.path / POLICY / ".scratch").exists()


def test_sigterm_saves_a_checkpoint_and_the_rest_is_bit_equal(
    unbroken: RunDirectory, tiny_folder: Path, tmp_path: Path
) -> None:
    chosen = recipe(tiny_folder, **LONG, checkpoint_every=50)
    run = begin(tmp_path / "run", chosen)

    class Stopping(Heard):
        def started(self, *args: Any) -> Any:
            return lambda done, total, unit: os.kill(os.getpid(), signal.SIGTERM) if done == 4 else None

    with pytest.raises(Interrupted):
        finish(run, chosen, observer=Stopping())
    assert [path.name for path in (run.path / POLICY / ".scratch").glob("checkpoint-*")] == ["checkpoint-4"]
    heard = FirstStep()
    finish(run, chosen, observer=heard)
    assert heard.steps[0] == 5
    assert weights(run) == weights(unbroken)


def test_killed_after_the_last_step_is_bit_equal(
    unbroken: RunDirectory, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(tiny_folder, **LONG)
    run = begin(tmp_path / "run", chosen)
    save = checkpoints.save

    def die(model: Any, tokenizer: Any, folder: Path) -> None:
        if POLICY.parts[-1] in folder.parts:
            raise ZeroDivisionError
        save(model, tokenizer, folder)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", die)
        with pytest.raises(ZeroDivisionError):
            finish(run, chosen)
    finish(run, chosen)
    assert weights(run) == weights(unbroken)
    assert steps(run) == steps(unbroken)


def test_the_share_of_weights_that_moved_is_that_between_the_two_checkpoints(golden: RunDirectory) -> None:
    """Both cast to BF16."""
    before, after = (
        checkpoints.load_model(golden.path / folder, "fp32").state_dict() for folder in ("base/model", POLICY / "model")
    )
    moved = sum(int((before[name].bfloat16() != weight.bfloat16()).sum()) for name, weight in after.items())
    document = json.loads((golden.path / POLICY / "training.json").read_text(encoding="utf-8"))
    assert document["changed_after_bf16"] == moved / sum(weight.numel() for weight in after.values())
    assert 0 < document["changed_after_bf16"] < 1
