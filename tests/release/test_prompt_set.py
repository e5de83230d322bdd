"""The prompts as files: JSONL for a recipe, a data set folder that the Hub and `datasets` read, and an honest card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from gshf_release.errors import ReleaseError, RunError
from gshf_release.prompts.pool import Accepted
from gshf_release.prompts.split import read_prompts
from gshf_release.release.prompt_set import make_prompt_set
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver, execute
from tests.prompts.written import answer, prompts_recipe, serving
from tests.release.blocks import blocks, languages, python
from tests.run.plans import PROFILES, chain
from tests.servers.chat import ChatServer


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return a run with its prompts written."""
    folder = tmp_path_factory.mktemp("prompts")
    chosen = prompts_recipe(folder, license="cc-by-4.0", target=40)
    with ChatServer(answer, key=None) as server:
        profile = serving(server.address)
        run = RunDirectory.create(folder / "run", chosen, profile)
        make_prompt_set(run, chosen, profile, allow_redo=False, observer=SilentObserver())
    return run


def test_the_three_forms_hold_the_same_prompts(written: RunDirectory, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = written.path / "prompts" / "set"
    accepted = Accepted.read(written.path / "prompts" / "written" / "accepted.parquet")
    wanted = [(row.prompt_id, row.prompt) for row in accepted if not row.example]
    lines = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["prompt_id"], line["prompt"]) for line in lines] == wanted
    assert [prompt.prompt_id for prompt in read_prompts(folder / "prompts.jsonl")] == [key for key, _ in wanted]
    loaded = load_dataset(str(folder / "dataset"), split="train", cache_dir=str(tmp_path))
    assert list(zip(loaded["prompt_id"], loaded["prompt"], strict=True)) == wanted
    assert (folder / "dataset" / "data" / "train-00000-of-00001.parquet").is_file()


def test_the_card_says_who_wrote_and_what_was_dropped(written: RunDirectory) -> None:
    card = DatasetCard.load(written.path / "prompts" / "set" / "dataset" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.size_categories == ["n<1K"]
    assert card.data.to_dict()["dataset_info"]["splits"] == [{"name": "train", "num_examples": 40}]
    assert "40 prompts for a language assistant, written by `some-model`" in card.text
    assert "| dropped: near copy |" in card.text
    assert str(written.path) not in card.content


def test_the_python_block_of_the_card_reads_it(
    written: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = written.path / "prompts" / "set" / "dataset"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert languages(text) == {"python"}
    (code,) = blocks(text, "python")
    capsys.readouterr()
    python(code.replace('"path/of/this/folder"', repr(str(folder))))
    first = json.loads((folder.parent / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["prompt"] in capsys.readouterr().out


def test_the_licence_is_what_was_stated_and_nothing_is_claimed_beyond(written: RunDirectory) -> None:
    text = (written.path / "prompts" / "set" / "dataset" / "README.md").read_text(encoding="utf-8")
    assert "`cc-by-4.0`, as whoever had them written states it." in text
    assert "were not compared with it" in text


def test_an_unknown_licence_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path, license="free")
    run = RunDirectory.create(tmp_path / "run", chosen, PROFILES["here"])
    with pytest.raises(ReleaseError, match=r"prompts.augmentation.license 'free' is no licence"):
        make_prompt_set(run, chosen, PROFILES["here"], allow_redo=False, observer=SilentObserver())
    assert not (run.path / "prompts").exists()


def test_the_folder_of_a_training_run_is_refused(tmp_path: Path) -> None:
    chosen = prompts_recipe(tmp_path)
    run = RunDirectory.create(tmp_path / "run", chosen, PROFILES["here"])
    execute(chain("write"), run, chosen, PROFILES["here"])
    with pytest.raises(RunError, match="is a training run"):
        make_prompt_set(run, chosen, PROFILES["here"], allow_redo=False, observer=SilentObserver())
