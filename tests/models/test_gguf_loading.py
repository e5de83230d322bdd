"""A GGUF file's tokenizer gives llama.cpp's ids or is refused, and a chat template may stand beside the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import CheckpointError
from gshf_release.models.chat_template_checks import check_policy
from gshf_release.models.chat_tokenizer import render
from gshf_release.models.checkpoints import load_model, load_tokenizer
from gshf_release.models.gguf_loading import LLAMA_3
from gshf_release.models.size import read_size
from gshf_release.recipe import Prompts
from tests import tiny

ASKED: Any = [{"role": "user", "content": "why is tea good?"}]
WHOLE = "Ġqzjx"
"""A token that no merge makes: with `ignore_merges` the word is found all the same."""


def original() -> dict[str, Any]:
    """Return a tokenizer.json that splits as Llama 3 does."""
    document: dict[str, Any] = json.loads(tiny.tokenizer().backend_tokenizer.to_str())
    document["model"]["vocab"][WHOLE] = len(document["model"]["vocab"])
    document["model"]["ignore_merges"] = True
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    return document


def gguf(path: Path, pre: str, template: str | None = None, layers: Any = 128) -> Path:
    """Write a GGUF file without weights."""
    from gguf import GGUFWriter

    model = original()["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(layers)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if number < 6 else 1 for number in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_llama_3s_splitting_and_whole_words_are_put_back(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    expected = Tokenizer.from_str(json.dumps(original()))
    found = load_tokenizer(gguf(tmp_path / "m.gguf", "llama-bpe"))
    for text in ("a qzjx", "tea 12345 and 1", "the cat's\n\n  mat", "don'T", "  \n x", "RAIN near", "日本 naïve"):
        assert found(text, add_special_tokens=False)["input_ids"] == expected.encode(text).ids, text
    assert original()["model"]["vocab"][WHOLE] in found("a qzjx", add_special_tokens=False)["input_ids"]


def test_a_splitting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"m\.gguf splits text as 'falcon' \(tokenizer\.ggml\.pre\)"):
        load_tokenizer(gguf(tmp_path / "m.gguf", "falcon"))


def test_a_template_beside_a_gguf_file_is_read(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", "gpt-2")
    with pytest.raises(CheckpointError, match=r"has no chat template.*write its template into .*/m\.jinja"):
        render(load_tokenizer(path), ASKED)
    (tmp_path / "chat_template.jinja").write_text("[{{ messages[0].content }}]", encoding="utf-8")
    tokenizer = load_tokenizer(path)
    assert tokenizer.decode(render(tokenizer, ASKED)) == "[why is tea good?]"
    (tmp_path / "m.jinja").write_text(tiny.TEMPLATE, encoding="utf-8")
    tokenizer = load_tokenizer(path)
    check_policy(tokenizer, str(path), Prompts(), system=True)
    assert tokenizer.decode(render(tokenizer, ASKED)) == "<|user|>\nwhy is tea good?</s>\n<|assistant|>\n"


def test_a_template_beside_takes_the_place_of_the_files_own(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", "gpt-2", template="{{ messages[0].nothing }}")
    assert load_tokenizer(path).chat_template == "{{ messages[0].nothing }}"
    (tmp_path / "m.jinja").write_text(tiny.TEMPLATE, encoding="utf-8")
    assert load_tokenizer(path).chat_template == tiny.TEMPLATE


def test_sizes_of_every_layer_are_one_line_where_transformers_reads_none(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", "gpt-2", layers=[128, 96])
    assert read_size(path).width == 64
    for load in (load_tokenizer, lambda path: load_model(path, "fp32")):
        with pytest.raises(CheckpointError, match=r"expected int, got list.*Take the checkpoint folder") as caught:
            load(path)
        assert "\n" not in str(caught.value)
