"""Checkpoint folders as their user gets them: tied weights, end tokens, equal logits, generations that stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import ReleaseError
from gshf_release.release import weights
from tests.release import made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.checkpoint(tmp_path / "checkpoint")


def test_an_untied_head_must_be_stored(folder: Path) -> None:
    weights.check_files(folder)
    made.write_safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": 8})
    with pytest.raises(ReleaseError, match=r"not tied, and there is no lm_head\.weight"):
        weights.check_files(folder)


def test_a_tied_head_is_not_stored_or_equals_the_embedding(tmp_path: Path) -> None:
    folder = made.checkpoint(tmp_path / "tied", tied=True)
    weights.check_files(folder)
    made.write_safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": 8, "lm_head.weight": 8})
    weights.check_files(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"tied, and lm_head\.weight differs from model\.embed_tokens\.weight"):
        weights.check_files(folder)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("generation_config.json", {}, r"has no eos_token_id"),
        (
            "generation_config.json",
            {"eos_token_id": 7},
            r"config\.json ends at token 2, generation_config\.json at \[7\]",
        ),
        ("config.json", {"eos_token_id": [2, 9]}, r"config\.json ends at token 9, generation_config\.json at \[2\]"),
        ("tokenizer_config.json", {"eos_token": {"content": "a"}}, r"tokenizer_config\.json ends at token 0"),
    ],
)
def test_end_tokens_that_differ_are_found(folder: Path, name: str, content: dict[str, Any], reason: str) -> None:
    made.write_json(folder / name, content)
    with pytest.raises(ReleaseError, match=reason):
        weights.check_ends(folder)


def test_a_checkpoint_without_a_generation_config_is_refused(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    with pytest.raises(ReleaseError, match=r"There is no generation_config\.json"):
        weights.check_ends(folder)


@pytest.fixture
def saved(tiny_folder: Path, tmp_path: Path) -> tuple[Any, Path]:
    """Return the tiny model in BF16 and a folder it is saved in."""
    from gshf_release.models import checkpoints

    model = checkpoints.load_model(tiny_folder / "tiny", "bf16")
    checkpoints.save(model, checkpoints.load_tokenizer(tiny_folder / "tiny"), tmp_path / "saved")
    return model, tmp_path / "saved"


def test_what_was_saved_gives_equal_logits_and_stops(saved: tuple[Any, Path]) -> None:
    weights.check_reload(*saved)


def test_other_weights_than_those_saved_are_found(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    parameter = next(iter(model.parameters()))
    parameter.data = parameter.data * 1.01
    with pytest.raises(ReleaseError, match="do not give the logits"):
        weights.check_reload(model, folder)


def test_a_generation_that_does_not_stop_at_the_templates_end_is_found(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    text = (folder / "chat_template.jinja").read_text(encoding="utf-8").replace("</s>", "<|user|>")
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert any(entry["content"] == "<|user|>" and entry["special"] for entry in tokenizer["added_tokens"])
    with pytest.raises(ReleaseError, match=r"ends an answer with '<\|user\|>', generation does not stop there"):
        weights.check_reload(model, folder)


def test_a_generation_config_that_ends_elsewhere_is_found(saved: tuple[Any, Path]) -> None:
    from gshf_release.models.checkpoints import load_model, load_tokenizer

    _, folder = saved
    path = folder / "generation_config.json"
    document = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": 77}
    made.write_json(path, document)
    ids = weights._probe(load_tokenizer(folder), 512)
    with pytest.raises(ReleaseError, match="A generation goes on after the end token 2"):
        weights._check_stop(load_model(folder, "auto"), ids, 2)
