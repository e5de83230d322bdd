"""The repositories of compressed-tensors weights as a run releases them: their card's blocks, run where that format is read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from gshf_release import environments, pipeline
from gshf_release.hub import publish as releases
from gshf_release.release.verify_folder import verify_folder
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests.end_to_end.train_tiny import EXACT
from tests.release.blocks import blocks, languages, shell
from tests.servers.hub import HubServer

pytestmark = pytest.mark.engines
SUFFIXES = ("FP8", "GPTQ-W4A16")


@pytest.fixture(scope="module")
def compressed(finished: RunDirectory, facts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the release folder of the tiny run with both compressed formats."""
    path = tmp_path_factory.mktemp("compressed") / "run"
    shutil.copytree(finished.path, path)
    run = RunDirectory.open(path)
    changed = {"facts": str(facts_file), "gguf": (), "compressed": ("fp8", "gptq:W4A16")}
    run.record_recipe(run.recipe.model_copy(update={"release": run.recipe.release.model_copy(update=changed)}))
    pipeline.release(run, EXACT, repository="tester/tiny", observer=SilentObserver())
    return path / "release"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_python_block_answers_where_the_format_is_read(compressed: Path, suffix: str) -> None:
    folder = compressed / f"tiny-{suffix}" / "main"
    (code,) = blocks((folder / "README.md").read_text(encoding="utf-8"), "python")
    assert code.count(f'"tester/tiny-{suffix}"') == 2
    found = environments.require("quant")
    done = subprocess.run(
        [str(found.python), "-c", code.replace(f'"tester/tiny-{suffix}"', repr(str(folder)))],
        env=found.variables() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Name three uses of baking soda." in done.stdout


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_folder_and_its_numbers_verify(compressed: Path, suffix: str) -> None:
    assert verify_folder(compressed / f"tiny-{suffix}" / "main").numbers > 0


def test_the_shell_blocks_download_and_verify_what_was_published(
    compressed: Path, hub: HubServer, tmp_path: Path
) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    releases.publish(api, releases.parts(compressed, "tester/tiny"), public=False, report=lambda line: None)
    for suffix in SUFFIXES:
        card = (compressed / f"tiny-{suffix}" / "main" / "README.md").read_text(encoding="utf-8")
        assert languages(card) == {"python", "bash", "bibtex"}
        (code,) = blocks(card, "bash")
        (tmp_path / suffix).mkdir()
        assert "files have their recorded sha256" in shell(code, tmp_path / suffix, hub.environment)
