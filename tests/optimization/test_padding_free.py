"""Training without padding: TRL's numbers, from fewer tokens. FP32 on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from gshf_release.models import lora, packing
from gshf_release.optimization.padding_free import IGNORED, PackedPolicy, without_padding
from gshf_release.recipe import Adapter
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from tests import tiny
from tests.optimization import plan, test_raft
from tests.optimization.plan import EXACT, recipe

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
PAIRS = [([5, 6, 7], [8, 9, 2], [8, 10]), ([5, 6, 7], [11, 2], [12, 13, 14, 15]), ([5], [6, 7, 2], [2])]
ROWS = [prompt + pair[side] for side in (0, 1) for prompt, *pair in PAIRS]
PROMPTS = [len(prompt) for _ in (0, 1) for prompt, *_ in PAIRS]


def batch() -> dict[str, Any]:
    """Return the rows as TRL's collator lays them: chosen ones, then rejected ones, padded on the right."""
    width = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ROWS])
    labels = ids.masked_fill(mask == 0, IGNORED)
    for row, prompt in zip(labels, PROMPTS, strict=True):
        row[:prompt] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False, "fused_lm_head": True}


def policy() -> Any:
    model = tiny.model().float()
    add_fused_lm_head(model, outputs=FIELDS)
    return model


def test_the_values_and_gradients_are_those_of_padded_rows() -> None:
    model = policy()
    padded = model(**batch())
    padded.log_probs.square().sum().backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    with without_padding(model, [len(row) for row in ROWS]):
        found = PackedPolicy(model)(**batch())
        found.log_probs.square().sum().backward()
    for field in (*FIELDS, "label_mask"):
        torch.testing.assert_close(found[field], padded[field], rtol=1e-5, atol=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-5)


def test_a_prompt_is_computed_once_but_for_its_last_token() -> None:
    model = policy()
    computed: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, output: computed.append(inputs[0].numel()))
    with without_padding(model, [len(row) for row in ROWS]):
        PackedPolicy(model)(**batch())
    # Sorted: [5, 2]; [5, 6, 7, 2], whose prompt is one token; then four rows that each add 7 and a response to [5, 6].
    assert computed == [2 + 4 + sum(1 + len(response) for _, *pair in PAIRS[:2] for response in pair)]
    assert computed[0] < sum(map(len, ROWS))


@pytest.mark.parametrize(
    ("method", "precision", "checkpointing", "tolerance"),
    [
        ("dpo", "fp32", False, 1e-5),
        ("dpo", "fp32", True, 1e-5),
        ("dpo", "bf16", False, 1e-2),
        ("raft", "fp32", False, 1e-5),
        ("raft", "bf16", False, 1e-2),
    ],
)
def test_a_run_learns_the_same(
    method: str,
    precision: str,
    checkpointing: bool,
    tolerance: float,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = recipe(tiny_folder, precision=precision)
    profile = EXACT.model_copy(update={"activation_checkpointing": checkpointing})
    stages = {"dpo": plan.stages, "raft": test_raft.stages}[method](chosen)
    losses, said = [], []
    for name in ("packed", "padded"):
        run = RunDirectory.create(tmp_path / name, chosen, profile)
        execute(stages, run, chosen, profile)
        losses.append([step["loss"] for step in read_json(run.path / "iteration-1/policy/training.json")["steps"]])
        said += [entry["padding"] for entry in run.journal() if entry["event"] == "training"]
        monkeypatch.setattr(packing, "can_pack", lambda *given: False)
    assert said == ["none", "longest"]
    assert losses[0] == pytest.approx(losses[1], abs=tolerance)


def test_the_model_under_an_adapter_is_the_one_that_is_asked() -> None:
    model = lora.attach(tiny.model(), Adapter(rank=4), seed=0)
    with without_padding(model, [5]):
        assert model.get_base_model().config._attn_implementation == packing.ATTENTION
    assert model.get_base_model().config._attn_implementation == "sdpa"


def test_an_architecture_that_looks_at_neighbours_otherwise_stays_padded() -> None:
    model = policy()
    model.config.sliding_window = 4
    assert packing.can_pack(model, longest=4)
    assert not packing.can_pack(model, longest=5)
    assert not packing.can_pack(model)
    former = model.config._attn_implementation
    with without_padding(model, [5]):
        assert model.config._attn_implementation == former
