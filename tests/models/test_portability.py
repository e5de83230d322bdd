"""What a saved checkpoint says, for transformers 4.57 and 5. Only 5 is installed here: of 4, the names it knows are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from gshf_release.models import checkpoints
from gshf_release.models.portability import generation_config, make_portable, model_config, tokenizer_config
from tests import tiny

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that was loaded from a folder and saved again, with two control tokens of its own."""
    folder = tmp_path_factory.mktemp("portable")
    tiny.model(rope_parameters=LLAMA3).save_pretrained(folder / "base")
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.save_pretrained(folder / "base")
    model = checkpoints.load_model(folder / "base", "fp32")
    checkpoints.save(model, checkpoints.load_tokenizer(folder / "base"), folder / "saved")
    return folder / "saved"


def test_the_tokenizer_names_a_class_and_keys_that_both_know(saved: Path) -> None:
    content = read(saved / "tokenizer_config.json")
    assert content["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert content["additional_special_tokens"] == ["<|user|>", "<|assistant|>"]
    assert not {"is_local", "local_files_only", "extra_special_tokens"} & set(content)


def test_the_tokenizer_gives_the_same_ids(saved: Path) -> None:
    text = "<|user|>\nthe cat sat</s> on"
    tokenizers = [AutoTokenizer.from_pretrained(saved.parent / name) for name in ("base", "saved")]
    assert len({tuple(tokenizer(text)["input_ids"]) for tokenizer in tokenizers}) == 1
    assert tokenizers[0].all_special_tokens == tokenizers[1].all_special_tokens
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


def test_the_rotary_frequencies_are_said_in_the_words_of_both(saved: Path) -> None:
    content = read(saved / "config.json")
    assert content["rope_theta"] == 500000.0
    assert content["rope_scaling"] == {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    assert AutoConfig.from_pretrained(saved).rope_parameters == LLAMA3
    ids = torch.tensor([[3, 40, 41, 42, 5]])
    logits = [AutoModelForCausalLM.from_pretrained(saved.parent / name)(ids).logits for name in ("base", "saved")]
    assert torch.equal(*logits)


def test_it_stays_as_it_is_when_it_is_saved_again(saved: Path, tmp_path: Path) -> None:
    checkpoints.save(checkpoints.load_model(saved, "fp32"), checkpoints.load_tokenizer(saved), tmp_path / "again")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name


def test_a_base_that_says_how_to_sample_but_not_that_it_does_is_saved_clean(tmp_path: Path) -> None:
    """As Vicuna's: temperature 0.9 and top_p 0.6 without do_sample."""
    folder = tiny.save(tmp_path / "base")
    vicuna = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(vicuna), encoding="utf-8")
    checkpoints.save(checkpoints.load_model(folder, "fp32"), checkpoints.load_tokenizer(folder), tmp_path / "saved")
    found = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert (found.do_sample, found.temperature, found.top_p, found.eos_token_id) == (True, 0.9, 0.6, 2)
    found.save_pretrained(tmp_path / "again")
    make_portable(folder)
    GenerationConfig.from_pretrained(folder).save_pretrained(tmp_path / "again")


@pytest.mark.parametrize(
    ("content", "do_sample"),
    [
        ({"temperature": 0.9}, True),
        ({"top_p": 0.6}, True),
        ({"top_k": 20}, True),
        ({"min_p": 0.1, "do_sample": False}, True),
        ({"temperature": 1.0, "top_p": 1.0, "top_k": 50}, None),
        ({"temperature": None}, None),
        ({"eos_token_id": 2}, None),
        ({"temperature": 0.9, "do_sample": True}, True),
    ],
)
def test_what_says_how_to_sample(content: dict[str, Any], do_sample: bool | None) -> None:
    assert generation_config(content).get("do_sample") is do_sample


def test_what_both_read_already_is_left_alone() -> None:
    llama = {"tokenizer_class": "LlamaTokenizerFast", "extra_special_tokens": {"image_token": "<image>"}}
    assert tokenizer_config(llama) == llama
    old = {"rope_theta": 1e4, "rope_scaling": None, "model_type": "llama"}
    assert model_config(old) == old
    by_layer = {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}}
    assert model_config(by_layer) == by_layer
