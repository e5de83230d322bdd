"""Sizes of checkpoints without their weights, against the models that transformers makes of the same configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.models.size import ModelSize, read_size
from tests import tiny

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 101,
}
MISTRAL_7B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


def numel(family: str, **settings: Any) -> int:
    """Return the parameters of a model made without memory for them; tied ones count once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    return sum(weight.numel() for weight in model.parameters())


def of_config(folder: Path, family: str, **settings: Any) -> ModelSize:
    (folder / "config.json").write_text(json.dumps({"model_type": family, **settings}), encoding="utf-8")
    return read_size(folder)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_of_a_configuration_are_those_of_its_model(tmp_path: Path, family: str, tied: bool) -> None:
    settings = SMALL | {"tie_word_embeddings": tied}
    assert of_config(tmp_path, family, **settings).parameters == numel(family, **settings)


def test_mistral_7b_has_7241732096_parameters(tmp_path: Path) -> None:
    found = of_config(tmp_path, "mistral", **MISTRAL_7B)
    assert found == ModelSize(7_241_732_096, layers=32, width=4096, key_values=1024, vocabulary=32000)
    scorer = of_config(tmp_path, "mistral", **MISTRAL_7B, architectures=["MistralForSequenceClassification"])
    assert scorer.parameters == 7_241_732_096 - 32000 * 4096 + 4096


def test_an_unknown_kind_of_model_has_unknown_parameters(tmp_path: Path) -> None:
    found = of_config(tmp_path, "other", hidden_size=8, num_hidden_layers=2)
    assert found == ModelSize(None, layers=2, width=8)


def test_saved_weights_are_counted_whatever_their_kind(tmp_path: Path) -> None:
    model = tiny.model()
    model.save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) | {"model_type": "other"}
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    found = read_size(tmp_path)
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert (found.layers, found.width, found.key_values, found.vocabulary) == (2, 64, 32, 512)


def test_a_gguf_file_tells_its_sizes(tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(8)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tensor("token_embd.weight", np.zeros((11, 8), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.zeros(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_size(tmp_path / "tiny.gguf") == ModelSize(96, layers=2, width=8, key_values=4, vocabulary=11)


def test_head_counts_of_every_layer_are_averaged(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count([4, 4])
    writer.add_head_count_kv([2, 4])
    writer.add_feed_forward_length([128, 96])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_size(tmp_path / "tiny.gguf") == ModelSize(
        None, layers=2, width=64, key_values=48
    )  # (2 + 4) / 2 heads of 16
