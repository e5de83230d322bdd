"""A format that the base model cannot have is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import EngineError, ReleaseError
from gshf_release.recipe import Recipe, parse
from gshf_release.release.quantization import preflight as quantization_preflight

CONFIG: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "vocab_size": 4,
    "eos_token_id": 2,
}
TOKENIZER: dict[str, Any] = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "</s>": 2, "ab": 3}, "merges": [["a", "b"]]},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "decoder": {"type": "ByteLevel"},
    "added_tokens": [{"id": 2, "content": "</s>", "special": True}],
}


def base(folder: Path, config: dict[str, Any] | None = None, tokenizer: dict[str, Any] | None = None) -> Path:
    """Write what is read of a base model: no weights."""
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER | (tokenizer or {})), encoding="utf-8")
    return folder


def recipe(**release: Any) -> Recipe:
    scorer = {"model": "someone/reward"}
    content = {"name": "x", "base": {"model": "someone/base"}, "reward": scorer, "release": release}
    return parse(Recipe, content | {"evaluation": {"second_scorer": scorer}}, "x")


def test_what_fits_passes(tmp_path: Path) -> None:
    wanted = recipe(gguf=["Q8_0", "Q4_K_M"], compressed=["fp8", "gptq:W4A16"])
    quantization_preflight.check_base(wanted, lambda: base(tmp_path))


@pytest.mark.parametrize(
    ("config", "tokenizer", "key", "nearest"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, {}, "release.gguf", "set release.gguf to []"),
        ({}, {"normalizer": {"type": "NFC"}}, "release.gguf", "set release.gguf to []"),
        ({"intermediate_size": 100}, {}, "release.compressed", "The nearest that fits is fp8"),
    ],
)
def test_what_does_not_fit_names_the_key_and_the_nearest(
    config: dict[str, Any], tokenizer: dict[str, Any], key: str, nearest: str, tmp_path: Path
) -> None:
    wanted = recipe(gguf=["Q8_0"], compressed=["gptq:W4A16"])
    with pytest.raises(ReleaseError) as caught:
        quantization_preflight.check_base(wanted, lambda: base(tmp_path, config, tokenizer))
    assert str(caught.value).startswith(f"{key}: ")
    assert nearest in str(caught.value)


def test_a_base_is_not_looked_for_when_nothing_is_quantized() -> None:
    def absent() -> Path:
        raise AssertionError("the base was looked for")

    quantization_preflight.check_base(recipe(gguf=[]), absent)


@pytest.mark.parametrize(
    ("release", "name"), [({"gguf": ["Q4_K_M"]}, "llama-cpp"), ({"gguf": [], "compressed": ["fp8"]}, "quant")]
)
def test_a_release_waits_for_no_environment_that_is_not_set_up(
    release: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path))
    with pytest.raises(EngineError, match=f"gshf-release setup {name}"):
        quantization_preflight.check_environments(recipe(**release))
    quantization_preflight.check_environments(recipe(gguf=["Q8_0", "BF16", "F16"]))
