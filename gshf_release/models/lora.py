"""One low-rank adapter (LoRA, arXiv 2106.09685) on the frozen base: made, handed from iteration to iteration, merged.

The iterations hand over the adapter, so no merge is ever merged into again: pi_t is the base plus one adapter, and pi_0, the
reference, is the same model with the adapter off. What samples, is evaluated and released is that sum, rounded to BF16 once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gshf_release.errors import CheckpointError, RecipeError
from gshf_release.models.checkpoints import Precision
from gshf_release.recipe import Adapter, Training

FOLDER = "adapter"
"""An adapter beside a policy's `model`, which is the merged one."""
NAME = "default"


def frozen_precision(training: Training) -> Precision:
    """Return the dtype of the frozen base under an adapter: nothing is added to it, so BF16 loses no update."""
    return "bf16" if training.precision == "bf16" else "fp32"


def attach(base: Any, settings: Adapter, seed: int) -> Any:
    """Return the base with a new FP32 adapter that changes nothing yet: A is random, B is zero.

    Raises:
        RecipeError: The base has no modules of the names in `targets`.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    configuration = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(base, configuration)
        except ValueError as error:
            raise RecipeError(
                f"training.adapter.targets {list(settings.targets)} are no modules of the base.",
                hint="Name its linear layers, for example q_proj.",
            ) from error


def load(base: Any, folder: Path, *, trainable: bool = False) -> Any:
    """Return the base with the adapter in a folder.

    Raises:
        CheckpointError: Its weights are no safetensors file: peft would take a pickle instead.
    """
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no adapter_model.safetensors.")
    return PeftModel.from_pretrained(base, str(folder), adapter_name=NAME, is_trainable=trainable)


def save(model: Any, folder: Path) -> None:
    """Save the adapter alone, in FP32; equal adapters give equal bytes, and no path of this machine is kept."""
    model.peft_config[NAME].base_model_name_or_path = ""
    model.save_pretrained(folder, selected_adapters=[NAME])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(_sorted_lists(path.read_text(encoding="utf-8")), encoding="utf-8")


def merge(model: Any) -> Any:
    """Return the model with the adapter added to its weights, as BF16; the model itself is used up.

    The sum is formed in FP32 layer by layer and rounded once.
    """
    import torch

    with torch.no_grad():
        for module in model.modules():
            if NAME in getattr(module, "lora_A", {}):
                layer = module.get_base_layer()
                total = layer.weight.float() + module.get_delta_weight(NAME).float()
                layer.weight.data = total.to(torch.bfloat16)
    return model.unload().to(torch.bfloat16)


def _sorted_lists(text: str) -> str:
    """Return the configuration with its sets, which peft writes in any order, in one order."""
    import json

    document = json.loads(text)
    targets = document["target_modules"]
    document["target_modules"] = sorted(targets) if isinstance(targets, list) else targets
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
