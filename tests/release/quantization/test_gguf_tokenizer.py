"""The tokenizer in GGUF: SentencePiece's BPE as scores, Llama 3's splitting, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from gguf.constants import TokenType

from gshf_release.errors import ReleaseError
from gshf_release.models.gguf_loading import LLAMA_3
from gshf_release.release.quantization.gguf_tokenizer import (
    Vocabulary,
    add_special_tokens,
    add_vocabulary,
    read_vocabulary,
)
from tests import sentence_piece, tiny

Edit = Callable[[dict[str, Any]], object]
SIZE = 512


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return tokenizer.json of both families."""
    folder = tmp_path_factory.mktemp("tokenizers")
    found = {}
    for name, made in (("sentence-piece", sentence_piece.tokenizer()), ("bytes", tiny.tokenizer())):
        made.save_pretrained(folder / name)
        found[name] = json.loads((folder / name / "tokenizer.json").read_text(encoding="utf-8"))
    return found


def read(folder: Path, content: dict[str, Any], change: Edit = lambda content: None) -> Vocabulary:
    content = json.loads(json.dumps(content))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return read_vocabulary(folder, SIZE)


def test_byte_fallback_is_llama_with_scores_and_types(saved: dict[str, Any], tmp_path: Path) -> None:
    found = read(tmp_path, saved["sentence-piece"])
    assert (found.model, found.pre_tokenizer, found.space_prefix) == ("llama", "default", True)
    assert found.types[:3] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    assert set(found.types[3:259]) == {TokenType.BYTE}
    assert found.types[259] is TokenType.NORMAL
    assert len(found.scores) == len(found.tokens) == SIZE


def test_a_token_that_is_merged_earlier_has_the_higher_score(saved: dict[str, Any], tmp_path: Path) -> None:
    found = read(tmp_path, saved["sentence-piece"])
    order = list(dict.fromkeys("".join(pair) for pair in saved["sentence-piece"]["model"]["merges"]))
    scores = [found.scores[found.tokens.index(token)] for token in order]
    assert scores == [-float(rank) for rank in range(len(order))]
    single = found.scores[found.tokens.index("q" if "q" in found.tokens else "a")]
    assert single == -float(len(order))


def test_the_file_holds_scores_and_the_space_prefix(saved: dict[str, Any], tmp_path: Path) -> None:
    writer = GGUFWriter(None, "llama")
    add_vocabulary(writer, read(tmp_path, saved["sentence-piece"]))
    values = {key: value.value for key, value in writer.kv_data[0].items()}
    assert values["tokenizer.ggml.model"] == "llama"
    assert values["tokenizer.ggml.add_space_prefix"] is True
    assert len(values["tokenizer.ggml.scores"]) == SIZE
    assert "tokenizer.ggml.merges" not in values


def metaspace(scheme: str) -> Edit:
    section = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}
    return lambda content: content.update(normalizer=None, pre_tokenizer=section)


@pytest.mark.parametrize(("scheme", "expected"), [("always", True), ("never", False)])
def test_metaspace_says_whether_a_space_comes_first(
    scheme: str, expected: bool, saved: dict[str, Any], tmp_path: Path
) -> None:
    assert read(tmp_path, saved["sentence-piece"], metaspace(scheme)).space_prefix is expected


@pytest.mark.parametrize(
    ("template", "expected"), [(sentence_piece.TEMPLATE, False), ("{{ messages[0]['content'] }}", True)]
)
def test_a_space_at_the_first_place_alone_follows_the_chat_template(
    template: str, expected: bool, tmp_path: Path
) -> None:
    made = sentence_piece.tokenizer("first")
    made.chat_template = template
    made.save_pretrained(tmp_path)
    assert read_vocabulary(tmp_path, SIZE).space_prefix is expected


def llama_3(content: dict[str, Any]) -> None:
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    content["model"]["ignore_merges"] = True


def test_the_splitting_of_llama_3_has_llama_cpps_name(saved: dict[str, Any], tmp_path: Path) -> None:
    found = read(tmp_path, saved["bytes"], llama_3)
    assert (found.model, found.pre_tokenizer) == ("gpt2", "llama-bpe")


REFUSED: dict[str, tuple[str, Edit, str]] = {
    "merges that are missing": ("sentence-piece", lambda t: t["model"]["merges"].pop(), "are no merge"),
    "a byte that is missing": ("sentence-piece", lambda t: t["model"]["vocab"].pop("<0x41>"), "<0x41>"),
    "unknown marks of spaces": ("sentence-piece", lambda t: t.update(normalizer={"type": "NFC"}), "mark spaces"),
    "ignored merges": ("sentence-piece", lambda t: t["model"].update(ignore_merges=True), "ignore_merges"),
    "alternating merges": (
        "sentence-piece",
        lambda t: t["model"]["merges"].append(t["model"]["merges"][0]),
        "alternate",
    ),
    "Llama 3's splitting without ignored merges": (
        "bytes",
        lambda t: (llama_3(t), t["model"].update(ignore_merges=False)),
        "ignore_merges",
    ),
    "Unigram": ("bytes", lambda t: t["model"].update(type="Unigram"), "Unigram"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_cannot_do_is_refused_with_the_nearest_and_the_recipe_key(
    case: str, saved: dict[str, Any], tmp_path: Path
) -> None:
    name, change, reason = REFUSED[case]
    with pytest.raises(ReleaseError) as caught:
        read(tmp_path, saved[name], change)
    assert reason in str(caught.value)
    assert "set release.gguf to []" in str(caught.value)
    assert "\n" not in str(caught.value)


def special_tokens(folder: Path, vocabulary: Vocabulary, end: list[int]) -> dict[str, Any]:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}), encoding="utf-8")
    writer = GGUFWriter(None, "llama")
    add_special_tokens(writer, folder, {}, vocabulary)
    return {key.removeprefix("tokenizer.ggml."): value.value for key, value in writer.kv_data[0].items()}


def test_three_end_tokens_end_a_sequence_a_turn_and_a_message(saved: dict[str, Any], tmp_path: Path) -> None:
    found = special_tokens(tmp_path, read(tmp_path, saved["sentence-piece"]), [5, 6, 7])
    assert [found[f"{name}_token_id"] for name in ("eos", "eot", "eom")] == [5, 6, 7]


def test_a_fourth_end_token_is_refused_rather_than_dropped(saved: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="4 end tokens are not supported"):
        special_tokens(tmp_path, read(tmp_path, saved["sentence-piece"]), [5, 6, 7, 8])


def test_an_end_token_outside_the_vocabulary_does_not_count(saved: dict[str, Any], tmp_path: Path) -> None:
    vocabulary = read(tmp_path, saved["sentence-piece"])
    assert special_tokens(tmp_path, vocabulary, [SIZE, SIZE - 1])["eos_token_id"] == SIZE - 1
    with pytest.raises(ReleaseError, match="no end-of-sequence token"):
        special_tokens(tmp_path, vocabulary, [SIZE])
