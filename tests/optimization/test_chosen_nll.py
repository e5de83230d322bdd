"""The NLL of the chosen responses beside the preference loss: by hand, however a step is divided, and off by default."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from gshf_release.cli.terminal import summary
from gshf_release.data.hashing import seed_from
from gshf_release.data.results import find, read_cells
from gshf_release.models import lora
from gshf_release.optimization import dpo
from gshf_release.optimization.chosen_nll import with_chosen_nll
from gshf_release.optimization.loss_averaging import mean_over_pairs
from gshf_release.recipe import Recipe, Training, parse
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from tests.optimization import gradients, test_adapter
from tests.optimization.plan import EXACT, finish, pairs, recipe, stages
from tests.optimization.stopped import profile
from tests.optimization.test_adapter import SMALL
from tests.optimization.test_loss_averaging import LOSSES, assert_plain_mean, chosen_recipe, expected, log_probability

WEIGHT = 0.3
ONE_STEP = 24
"""A batch of which 1, 2, 3 and 8 are divisors: all thirteen pairs are one step."""
POLICY = "iteration-1/policy"


def steps(run: RunDirectory) -> list[dict[str, float]]:
    found: list[dict[str, float]] = read_json(run.path / POLICY / "training.json")["steps"]
    return found


class Given:
    """A trainer whose policy gives log-probabilities, (2 pairs, width - 1), and which has a loss of 0.25 per pair."""

    model = SimpleNamespace(training=True)
    accelerator = SimpleNamespace(num_processes=1, reduce=lambda tensor, reduction: tensor)

    def __init__(self) -> None:
        self._metrics: dict[str, dict[str, list[float]]] = {"train": {"nll": []}}

    def get_batch_samples(self, samples: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], None]:
        return samples, None

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False) -> torch.Tensor:
        model(input_ids=inputs["input_ids"])
        return torch.tensor(0.25)


def test_a_step_by_hand() -> None:
    """Three pairs in two micro-batches; chosen tokens with -log pi of 1, 2 and 3, and of 6: 12 / 4 = 3 nats a token.

    0.25 + 0.5 x 3 = 1.75. A mean of the micro-batches' means would be (2 + 6) / 2 = 4 nats. The rejected tokens, of 9 nats,
    do not count.
    """
    given = [
        # Prompts of one token: the mask begins with it, the log-probabilities with the token after it.
        ([[0, 1, 1], [0, 1, 0], [0, 1, 1], [0, 1, 1]], [[-1.0, -2.0], [-3.0, 0.0], [-9.0, -9.0], [-9.0, -9.0]]),
        ([[0, 1, 0], [0, 1, 1]], [[-6.0, 0.0], [-9.0, -9.0]]),
    ]
    samples = [
        {"input_ids": torch.tensor(values, requires_grad=True), "completion_mask": torch.tensor(mask)}
        for mask, values in given
    ]
    averaged = mean_over_pairs(
        Given,
        real=lambda inputs: inputs["completion_mask"].any(dim=1).chunk(2)[0],
        empty_loss=0.0,
        metrics=("rewards/",),
    )
    trainer = with_chosen_nll(averaged, 0.5)()
    trainer.get_batch_samples(samples)
    losses = [
        trainer.compute_loss(lambda input_ids: SimpleNamespace(log_probs=input_ids), inputs) for inputs in samples
    ]
    assert [float(loss) for loss in losses] == pytest.approx([0.25 * 2 / 3 + 0.5 * 6 / 4, 0.25 / 3 + 0.5 * 6 / 4])
    assert float(sum(losses)) == pytest.approx(1.75)
    assert sum(trainer._metrics["train"]["nll"]) / len(samples) == pytest.approx(3.0)
    sum(losses).backward()
    # Of each chosen token: -0.5 / 4, in either micro-batch. The stub has no prompt, so padding is a zero of its own.
    assert samples[0]["input_ids"].grad[:, 0].tolist() == pytest.approx([-0.125, -0.125, 0.0, 0.0])
    assert samples[1]["input_ids"].grad[:, 0].tolist() == pytest.approx([-0.125, 0.0])


@pytest.mark.parametrize("padded", [False, True], ids=["packed", "padded"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 8])
def test_a_step_is_the_same_however_it_is_divided(
    micro_batch: int, padded: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    """Thirteen pairs in one step: the last micro-batch has one, one, one, five of them."""
    chosen = chosen_recipe(tiny_folder, sft_weight=WEIGHT, batch_pairs=ONE_STEP)
    run = gradients.train(tmp_path / "run", chosen, profile(1, micro_batch_pairs=micro_batch), padded=padded)
    assert_plain_mean(run, tiny_folder, "sigmoid", ONE_STEP, WEIGHT)
    ((with_nll, _),), ((without, _),) = (expected(tiny_folder, "sigmoid", ONE_STEP, weight) for weight in (1.0, 0.0))
    (step,) = steps(run)
    assert step["nll"] == pytest.approx(with_nll - without, rel=1e-6)
    assert step["preference_loss"] == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize("kind", sorted(LOSSES.keys() - {"sigmoid"}))
def test_every_loss_takes_the_term(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    content = chosen_recipe(tiny_folder, kind).model_dump(exclude_unset=True)
    content["training"] |= {"sft_weight": WEIGHT}
    run = gradients.train(tmp_path / "run", parse(Recipe, content, "tiny"), profile(1, micro_batch_pairs=4))
    assert_plain_mean(run, tiny_folder, kind, nll_weight=WEIGHT)


@pytest.mark.slow
@pytest.mark.parametrize(("micro_batch", "padded"), [(1, False), (4, False), (4, True)])
def test_two_processes_share_an_uneven_step(micro_batch: int, padded: bool, tiny_folder: Path, tmp_path: Path) -> None:
    """Five pairs of the last step are three and two, or four and one; what fills it up holds no chosen token."""
    chosen, where = chosen_recipe(tiny_folder, sft_weight=WEIGHT), profile(2, micro_batch_pairs=micro_batch)
    run = gradients.train(tmp_path / "run", chosen, where, padded=padded)
    assert_plain_mean(run, tiny_folder, "sigmoid", nll_weight=WEIGHT)
    for step, (loss, _) in zip(steps(run), expected(tiny_folder, "sigmoid"), strict=True):
        assert step["preference_loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fsdp_in_two_processes_has_the_numbers_of_one(precision: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Steps of eight and of five pairs, in BF16 with activations computed again."""
    again = precision == "bf16"
    chosen = recipe(tiny_folder, sft_weight=WEIGHT, batch_pairs=8, precision=precision)
    plan = [
        *gradients.stages(chosen, "dpo", padded=False)[:-1],
        dpo.declare_dpo(1, init="base", sources=["iteration-1"]),
    ]
    found = []
    for where in (profile(2, "fsdp", activation_checkpointing=again), profile(1, activation_checkpointing=again)):
        run = RunDirectory.create(tmp_path / f"run-{where.processes}", chosen, where)
        execute(plan, run, chosen, where)
        found.append(run)
    assert read_json(found[0].path / POLICY / "training.json")["distribution"]["sharding"] == "fsdp"
    for two, one in zip(*map(steps, found), strict=True):
        for metric in ("loss", "nll", "preference_loss"):
            assert two[metric] == pytest.approx(one[metric], abs=1e-3 if again else 1e-5), metric
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-2 if again else 1e-4)


def nll_by_transformers(model: Any, chosen: list[Any]) -> torch.Tensor:
    """Return the mean over all chosen tokens, of transformers' own loss: labels of -100 are left out, by its definition."""
    total, tokens = torch.zeros(()), 0
    for pair in chosen:
        ids = torch.tensor([pair.prompt_ids + pair.chosen_ids])
        labels = torch.tensor([[-100] * len(pair.prompt_ids) + pair.chosen_ids])
        total = total + model(input_ids=ids, labels=labels).loss * len(pair.chosen_ids)
        tokens += len(pair.chosen_ids)
    return total / tokens


@pytest.mark.parametrize("adapter", [None, SMALL], ids=["all weights", "adapter"])
def test_the_first_step_is_log_two_and_the_nll_of_the_base(
    adapter: dict[str, Any] | None, tiny_folder: Path, tmp_path: Path
) -> None:
    """Loss and norm of the gradient: at policy = reference, that of -log sigmoid is -beta / 2 times that of the log-ratios."""
    chosen = recipe(tiny_folder, sft_weight=WEIGHT, batch_pairs=6, **({} if adapter is None else {"adapter": adapter}))
    run = RunDirectory.create(tmp_path / "run", chosen, EXACT)
    execute(stages(chosen) if adapter is None else test_adapter.stages(chosen), run, chosen, EXACT)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder / "tiny", dtype=torch.float32)
    if chosen.training.adapter is not None:
        model = lora.attach(model, chosen.training.adapter, seed_from(0, lora.FOLDER))
    nll = nll_by_transformers(model, pairs())
    ratios = [
        log_probability(model, pair.prompt_ids, pair.chosen_ids)
        - log_probability(model, pair.prompt_ids, pair.rejected_ids)
        for pair in pairs()
    ]
    (WEIGHT * nll - 0.1 / 2 * torch.stack(ratios).mean()).backward()
    norm = math.sqrt(sum(float((weight.grad**2).sum()) for weight in model.parameters() if weight.grad is not None))
    step = steps(run)[0]
    assert step["loss"] == pytest.approx(math.log(2) + WEIGHT * float(nll), abs=1e-6)
    assert step["nll"] == pytest.approx(float(nll), abs=1e-6)
    assert step["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert step["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_cells_tell_the_preference_loss_and_the_nll(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder, sft_weight=WEIGHT)
    run = RunDirectory.create(tmp_path / "run", chosen, EXACT)
    finish(run, chosen)
    cells, found = read_cells(run.path / "results.json"), steps(run)
    shown = {cell.metric: cell.value for cell in cells if cell.table == "training"}
    assert shown["DPO loss, first step"] == found[0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert shown["NLL of the chosen, first step"] == found[0]["nll"]
    assert shown["NLL of the chosen, last quarter"] == found[-1]["nll"] < found[0]["nll"]
    assert shown["DPO loss, last quarter"] == pytest.approx(found[-1]["loss"] - WEIGHT * found[-1]["nll"])
    assert f"; NLL of the chosen {found[0]['nll']:.3f} → {found[-1]['nll']:.3f}; " in summary(cells, "iteration-1")


def test_without_weight_nothing_is_added(tiny_folder: Path, tmp_path: Path) -> None:
    """No class of the trainer, no metric, no cell, and no key in the fingerprint: runs made before it stay finished."""
    names = [kind.__name__ for kind in dpo.token_trainer(Training()).__mro__]
    assert "ChosenNLL" not in names
    assert "ChosenNLL" in [kind.__name__ for kind in dpo.token_trainer(Training(sft_weight=WEIGHT)).__mro__]
    chosen = recipe(tiny_folder)
    run = RunDirectory.create(tmp_path / "run", chosen, EXACT)
    finish(run, chosen)
    assert set(steps(run)[0]) == {"step", "loss", "accuracy", "margin", "gradient_norm"}
    cells = read_cells(run.path / "results.json")
    assert find(cells, metric="NLL of the chosen, first step") is None
    assert find(cells, metric="DPO loss, first step").value == steps(run)[0]["loss"]  # type: ignore[union-attr]
    assert dpo.NLL_KEY not in dpo.declare_dpo(1, init="base", sources=["iteration-1"]).keys
