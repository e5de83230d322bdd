"""Run llm-compressor and its transformers in their own environment: quantize, score a text, answer once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release.errors import ReleaseError, first_line
from gshf_release.models.checkpoint_files import NEVER_REMOTE
from gshf_release.release.quantization import logits


def quantize(
    checkpoint: str, output: str, scheme: str, sequences: list[list[int]], group_size: int, seed: int
) -> dict[str, str]:
    """Quantize a checkpoint folder with llm-compressor; return the versions that did it.

    Args:
        checkpoint: A BF16 checkpoint folder.
        output: The folder that gets the weights and tokenizer in the compressed-tensors format.
        scheme: `fp8` (weights by channel, activations by token at run time) or `gptq` (4-bit weights in groups).
        sequences: For GPTQ, the token ids that it is calibrated on.
        group_size: For GPTQ, weights that share a scale.
        seed: For GPTQ, of whatever it may draw.

    Raises:
        ReleaseError: llm-compressor refused.
    """
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed % 2**32)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16, use_safetensors=True, **NEVER_REMOTE)
    try:
        oneshot(model=model, **_recipe(scheme, sequences, group_size))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ReleaseError(f"llm-compressor could not quantize to {scheme}: {first_line(error)}.") from error
    model.config._name_or_path = ""
    model.save_pretrained(output, save_compressed=True)
    AutoTokenizer.from_pretrained(checkpoint, **NEVER_REMOTE).save_pretrained(output)
    # llm-compressor's own recipe names Python objects, which a YAML reader would have to build; config.json says it all.
    (Path(output) / "recipe.yaml").unlink(missing_ok=True)
    packages = ("llmcompressor", "compressed-tensors", "transformers")
    return {package: version(package) for package in packages}


def record(checkpoint: str, sequences: list[list[int]], reference: str, vocabulary: int) -> dict[str, Any]:
    """Write the logits of a text under the BF16 weights as the reference of others."""
    model = _open(checkpoint)
    logits.record(lambda ids: logits_of(model, ids), sequences, Path(reference), vocabulary)
    return {}


def measure(
    model: str, sequences: list[list[int]], references: dict[str, str], vocabulary: int, **smoke: Any
) -> dict[str, Any]:
    """Score a text against references and let the model answer once; `references` is file of logits to output file."""
    opened = _open(model)
    for reference, output in references.items():
        found = logits.compare(lambda ids: logits_of(opened, ids), sequences, Path(reference), vocabulary)
        np.save(output, found)
    return {"answer": answer(opened, model, **smoke)}


def _recipe(scheme: str, sequences: Sequence[Sequence[int]], group_size: int) -> dict[str, Any]:
    if scheme == "fp8":
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return {"recipe": QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=["lm_head"])}
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor.modifiers.gptq import GPTQModifier

    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=group_size)
    group = QuantizationScheme(targets=["Linear"], weights=weights)
    rows = {"input_ids": [list(ids) for ids in sequences], "attention_mask": [[1] * len(ids) for ids in sequences]}
    return {
        "recipe": GPTQModifier(config_groups={"group_0": group}, ignore=["lm_head"]),
        "dataset": Dataset.from_dict(rows),
        "num_calibration_samples": len(sequences),
        "max_seq_length": max(len(ids) for ids in sequences),
        "shuffle_calibration_samples": False,
    }


def _open(model: str) -> Any:
    """Return a model that computes in FP32: both sides of a comparison then differ by their weights alone."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, use_safetensors=True, **NEVER_REMOTE).eval()


def logits_of(model: Any, ids: Sequence[int]) -> Any:
    """Return the logits of a sequence, shape (tokens, vocabulary)."""
    import torch

    with torch.inference_mode():
        return model(torch.tensor([list(ids)])).logits[0].float().numpy()


def answer(model: Any, folder: str, prompt: list[int], limit: int, stops: list[int]) -> dict[str, Any]:
    """Return a greedy answer and whether an end token ended it."""
    import torch
    from transformers import AutoTokenizer

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )[0, len(prompt) :].tolist()
    stopped = bool(found) and found[-1] in stops
    tokenizer = AutoTokenizer.from_pretrained(folder, **NEVER_REMOTE)
    text = tokenizer.decode(found[:-1] if stopped else found, skip_special_tokens=True)
    return {"text": text, "tokens": len(found) - stopped, "stopped": stopped}
