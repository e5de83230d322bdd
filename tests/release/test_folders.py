"""Release folders of the tiny run: what is in them, what their manifest finds, and what the rules refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gshf_release import pipeline
from gshf_release.data.hashing import sha256_file
from gshf_release.errors import ReleaseError, VerificationError
from gshf_release.models.checkpoints import load_model, load_tokenizer
from gshf_release.release import licences, manifest, rules
from gshf_release.release.folders import copy_release
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests.conftest import REPOSITORY
from tests.end_to_end.train_tiny import EXACT

WEIGHTS = "model.safetensors"
PARTS = ("tiny/iter-1", "tiny/iter-2", "tiny-GGUF/main")


@pytest.fixture
def folder(released: RunDirectory, tmp_path: Path) -> Path:
    """Return a copy of the last iteration's folder, to change."""
    shutil.copytree(released.path / "release" / "tiny" / "iter-2", tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize("iteration", [1, 2])
def test_every_tensor_is_bf16_by_the_header(released: RunDirectory, iteration: int) -> None:
    path = released.path / "release" / "tiny" / f"iter-{iteration}" / WEIGHTS
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"} == {"BF16"}


@pytest.mark.parametrize("iteration", [1, 2])
def test_the_release_is_the_bf16_cast_of_the_policy(released: RunDirectory, iteration: int) -> None:
    policy = load_model(released.path / f"iteration-{iteration}" / "policy" / "model", "fp32")
    for parameter in policy.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    published = load_model(released.path / "release" / "tiny" / f"iter-{iteration}", "auto")
    assert published.dtype == torch.bfloat16
    ids = torch.arange(3, 60).reshape(1, -1)
    with torch.inference_mode():
        assert torch.equal(policy(ids).logits, published(ids).logits)


def test_the_iterations_differ(released: RunDirectory) -> None:
    release = released.path / "release" / "tiny"
    assert sha256_file(release / "iter-1" / WEIGHTS) != sha256_file(release / "iter-2" / WEIGHTS)


def test_the_tokenizer_is_the_base_models(released: RunDirectory, tiny_folder: Path) -> None:
    folder = released.path / "release" / "tiny" / "iter-2"
    own, base = load_tokenizer(folder), load_tokenizer(tiny_folder / "tiny")
    messages = [{"role": "user", "content": "why is tea good?"}]
    assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == base.chat_template
    assert own.get_vocab() == base.get_vocab()
    assert own.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == base.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )


def test_generation_stops_at_the_tokenizers_end(released: RunDirectory, tokenizer: object) -> None:
    path = released.path / "release" / "tiny" / "iter-2" / "generation_config.json"
    assert json.loads(path.read_text(encoding="utf-8"))["eos_token_id"] == tokenizer.eos_token_id  # type: ignore[attr-defined]


def test_whoever_loads_the_release_generates_with_a_cache(released: RunDirectory) -> None:
    path = released.path / "release" / "tiny" / "iter-2" / "config.json"
    assert json.loads(path.read_text(encoding="utf-8"))["use_cache"] is True


def test_the_gguf_repository_has_a_file_and_a_card(released: RunDirectory) -> None:
    found = sorted(path.name for path in (released.path / "release" / "tiny-GGUF" / "main").iterdir())
    assert found == ["README.md", "eval", "manifest.json", "tiny-Q8_0.gguf"]


@pytest.mark.parametrize("part", PARTS)
def test_the_manifest_lists_the_sha256_of_every_other_file(released: RunDirectory, part: str) -> None:
    folder = released.path / "release" / part
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del files["manifest.json"]
    recorded = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert {name: entry["sha256"] for name, entry in recorded.items()} == {
        name: sha256_file(path) for name, path in files.items()
    }
    assert manifest.verify(folder) == len(files)


def change_one_byte(folder: Path) -> str:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    return WEIGHTS


def add_a_file(folder: Path) -> str:
    (folder / "extra.json").write_text("{}", encoding="utf-8")
    return "extra.json"


def remove_a_file(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "tokenizer.json"


@pytest.mark.parametrize("change", [change_one_byte, add_a_file, remove_a_file])
def test_a_change_is_found_and_named(folder: Path, change: Callable[[Path], str]) -> None:
    name = change(folder)
    with pytest.raises(VerificationError, match=rf"1 file\(s\) differ from manifest\.json: {name}\."):
        manifest.verify(folder)


def test_a_folder_without_a_manifest_is_refused(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(VerificationError, match=r"has no manifest\.json"):
        manifest.verify(folder)


def test_a_manifest_that_is_no_manifest_is_refused(folder: Path) -> None:
    for text in ("{", "[]", "{}", "[" * 100_000):
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        with pytest.raises(VerificationError, match=r"manifest\.json is damaged\."):
            manifest.verify(folder)


# -- rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "rewards.pkl", "training_args.pickle", "code.py", "x"]
)
def test_other_file_types_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(ReleaseError, match=f"{name} must not be published"):
        rules.check_folder(folder)


def test_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "link.json").symlink_to(folder / "config.json")
    with pytest.raises(ReleaseError, match=r"link\.json is a symbolic link"):
        rules.check_folder(folder)


@pytest.mark.parametrize(
    "secret", ["hf_" + "a" * 34, "sk-" + "b4" * 20, "-----BEGIN RSA PRIVATE KEY-----"], ids=["hub", "api", "key"]
)
def test_a_secret_is_refused_and_not_repeated(folder: Path, secret: str) -> None:
    (folder / "notes.md").write_text(f"the token is {secret}\n", encoding="utf-8")
    with pytest.raises(
        ReleaseError, match=r"notes\.md, line 1: (a Hugging Face token|an API key|a private key)"
    ) as caught:
        rules.check_folder(folder)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("path", ["/home/someone/models", "/Users/someone/x", "/root/runs"])
def test_a_path_of_this_machine_is_refused(folder: Path, path: str) -> None:
    (folder / "config.json").write_text(json.dumps({"_name_or_path": path}), encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"config\.json, line 1: a path of this machine: "):
        rules.check_folder(folder)


def test_web_addresses_are_no_paths_of_this_machine(folder: Path) -> None:
    (folder / "notes.md").write_text("https://example.org/home/index and docs/home/x\n", encoding="utf-8")
    rules.check_folder(folder)


def test_a_tensor_of_another_dtype_is_found(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = min(tensors)
    tensors[name] = tensors[name].float()
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ReleaseError, match=rf"{name} is F32, not BF16"):
        rules.check_dtype(folder)


def test_a_cut_file_is_found(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-2])
    with pytest.raises(ReleaseError, match=r"model\.safetensors is cut"):
        rules.check_dtype(folder)


def test_a_file_that_is_no_safetensors_is_found(folder: Path) -> None:
    for content in (b"", b"short", b"\xff" * 64, (8).to_bytes(8, "little") + b"not json"):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(ReleaseError, match=r"model\.safetensors"):
            rules.check_dtype(folder)


def split_into_shards(folder: Path) -> Path:
    """Turn the weights into two shards with their index; return the index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    weight_map = {}
    for number, names in enumerate((sorted(tensors)[:3], sorted(tensors)[3:]), 1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard)
        weight_map.update(dict.fromkeys(names, shard))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return index


def test_shards_that_agree_with_their_index_pass(folder: Path) -> None:
    split_into_shards(folder)
    assert sorted(rules.check_dtype(folder).values())[0] == 3


def test_an_index_that_disagrees_is_found(folder: Path) -> None:
    index = split_into_shards(folder)
    content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"].popitem()
    index.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ReleaseError, match="do not name the same tensors"):
        rules.check_dtype(folder)


def test_shards_without_an_index_are_found(folder: Path) -> None:
    split_into_shards(folder).unlink()
    with pytest.raises(ReleaseError, match=r"holds 2 shards and no model\.safetensors\.index\.json"):
        rules.check_dtype(folder)


# -- making and copying --------------------------------------------------------------------------------------


def test_a_release_without_a_licence_names_the_way_out(copy: RunDirectory) -> None:
    recipe = copy.recipe
    copy.record_recipe(recipe.model_copy(update={"release": recipe.release.model_copy(update={"facts": None})}))
    with pytest.raises(ReleaseError, match=r"^A release needs a licence\. Write a YAML file with `license:"):
        pipeline.release(copy, EXACT, repository=None, observer=SilentObserver())


@pytest.mark.parametrize("repository", ["me/..", "..", "noowner", "a/b/c", 'a/b"c', "a/b\n"])
def test_a_name_that_is_no_repository_is_refused_before_anything_is_made(copy: RunDirectory, repository: str) -> None:
    before = sorted(path for path in copy.path.rglob("*"))
    with pytest.raises(ReleaseError, match="is not of the form OWNER/NAME"):
        pipeline.release(copy, EXACT, repository=repository, observer=SilentObserver())
    assert sorted(path for path in copy.path.rglob("*")) == before


def test_a_release_is_made_again_byte_for_byte(released: RunDirectory, copy: RunDirectory) -> None:
    shutil.rmtree(copy.path / "release")
    pipeline.release(copy, EXACT, repository=None, observer=SilentObserver())
    for part in PARTS:
        assert manifest.files(copy.path / "release" / part) == manifest.files(released.path / "release" / part)


def test_copies_are_complete_and_left_alone_when_equal(released: RunDirectory, tmp_path: Path) -> None:
    folders = copy_release(released.path / "release", "tiny", tmp_path)
    assert [folder.relative_to(tmp_path).as_posix() for folder in folders] == list(PARTS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    copy_release(released.path / "release", "tiny", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_that_is_no_release_is_not_overwritten(released: RunDirectory, tmp_path: Path) -> None:
    mine = tmp_path / "tiny" / "iter-1" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(ReleaseError, match="exists and is no release"):
        copy_release(released.path / "release", "tiny", tmp_path)
    assert mine.read_text(encoding="utf-8") == "mine"


def test_the_licences_are_whole_and_hold_those_of_the_shipped_facts() -> None:
    for path in (REPOSITORY / "model_cards").glob("*.yaml"):
        assert any(f"license: {name}" in path.read_text(encoding="utf-8") for name in licences.LICENCES)
    assert not [name for name in licences.LICENCES if name.endswith("-")], "no identifier is cut in two"
    assert {"apache-2.0", "mit", "cc-by-3.0", "cc-by-nc-sa-3.0", "bsd-3-clause"} <= licences.LICENCES
