"""A mixture of experts is trained on the loss asked for alone: no router loss, no noise, no dropout. FP32, on the CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from gshf_release.data.hashing import seed_from
from gshf_release.errors import EngineError
from gshf_release.models import checkpoints
from gshf_release.optimization.dropout import without_dropout
from gshf_release.run.context import silent
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.sampling import Decoding, Request, TransformersEngine
from tests import tiny
from tests.optimization import plan, test_raft
from tests.optimization.plan import EXACT, recipe

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 64,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.08,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "router_aux_loss_coef": 0.02,
}
MODELS = {
    "mixtral": ("Mixtral", {"num_local_experts": 4, "router_jitter_noise": 0.2, "attention_dropout": 0.1}),
    "qwen2-moe": ("Qwen2Moe", {"num_experts": 4, "shared_expert_intermediate_size": 64}),
    "qwen3-moe": ("Qwen3Moe", {"num_experts": 4, "head_dim": 32}),
    "olmoe": ("Olmoe", {"num_experts": 4, "attention_dropout": 0.1}),
}


def base(folder: Path, kind: str, **changes: Any) -> Path:
    """Save a random mixture of experts whose configuration asks for its router logits."""
    name, own = MODELS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES | own | {"output_router_logits": True} | changes)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def trained(folder: Path, kind: str, method: str, tiny_folder: Path, **changes: Any) -> RunDirectory:
    chosen = recipe(tiny_folder)
    checkpoint = base(folder / "moe", kind, **changes)
    chosen = chosen.model_copy(update={"base": chosen.base.model_copy(update={"model": str(checkpoint)})})
    stages = {"dpo": plan.stages, "raft": test_raft.stages}[method](chosen)
    run = RunDirectory.create(folder / "run", chosen, EXACT.model_copy(update={"micro_batch_pairs": 3}))
    execute(stages, run, chosen, EXACT)
    return run


@pytest.mark.parametrize("kind", MODELS)
def test_the_first_dpo_loss_is_log_two(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, kind, "dpo", tiny_folder)
    steps = read_json(run.path / "iteration-1/policy/training.json")["steps"]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_rafts_first_loss_is_the_cross_entropy(tiny_folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, "mixtral", "raft", tiny_folder, attention_dropout=0.0)
    steps = read_json(run.path / "iteration-1/policy/training.json")["steps"]
    order = sorted(test_raft.winners(), key=lambda one: seed_from(0, "order", 0, one.prompt_id))[:3]
    model = checkpoints.load_model(tmp_path / "moe", "fp32")
    losses = []
    for one in order:
        logits = model(torch.tensor([one.prompt_ids + one.completion_ids])).logits[0, len(one.prompt_ids) - 1 : -1]
        losses.append(-logits.log_softmax(dim=-1)[range(len(one.completion_ids)), one.completion_ids])
    assert steps[0]["loss"] == pytest.approx(float(torch.cat(losses).mean()), abs=1e-5)


@pytest.mark.parametrize("method", ["dpo", "raft"])
def test_the_policy_keeps_what_its_base_says_about_routers(method: str, tiny_folder: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, "mixtral", method, tiny_folder)
    config = json.loads((run.path / "iteration-1/policy/model/config.json").read_text(encoding="utf-8"))
    assert (config["output_router_logits"], config["router_aux_loss_coef"]) == (True, 0.02)
    assert (config["router_jitter_noise"], config["attention_dropout"]) == (0.2, 0.1)


def test_it_is_sampled_from_as_generate_does(tmp_path: Path) -> None:
    """A configuration that asks for router logits asks for a loss of them too, at every token."""
    folder = base(tmp_path / "moe", "mixtral")
    engine = TransformersEngine(folder, precision="fp32", device="cpu", batch=4)
    engine.stops = []
    prompts = [[3, 40, 41, 42, 5], [3, 9]]
    found = engine.generate([Request(prompt, Decoding(0.0, 6), 0) for prompt in prompts], silent)
    model = checkpoints.load_model(folder, "fp32")
    for prompt, completion in zip(prompts, found, strict=True):
        made = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=None)
        assert completion.ids == made[0, len(prompt) :].tolist()


def test_a_router_that_samples_its_experts_is_refused() -> None:
    torch.manual_seed(0)
    settings = SIZES | {"num_local_experts": 4, "router_jitter_noise": 0.5}
    model = transformers.PhimoeForCausalLM(transformers.PhimoeConfig(**settings)).eval()
    with pytest.raises(EngineError, match="computes something else in training than in evaluation"):
        without_dropout(model)
