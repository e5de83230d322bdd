"""The usage snippets of the cards, as they are printed, with only the name of the model changed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from gshf_release import pipeline
from gshf_release.hub import publish as releases
from gshf_release.release.folders import copy_release
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests.conftest import Outcome
from tests.end_to_end.train_tiny import EXACT
from tests.release.blocks import bibliography, blocks, languages, shell
from tests.servers.hub import HubServer

pytestmark = pytest.mark.slow
SEED_CARD = Path("seed") / "FsfairX-Zephyr-Chat-v0.1.card.txt"


def snippet(folder: Path) -> str:
    """Return the Python block of a card."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def run(code: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Execute a snippet; return what it printed."""
    capsys.readouterr()
    exec(compile(code, "snippet", "exec"), {})
    return capsys.readouterr().out


@pytest.mark.parametrize("number", [1, 2])
def test_the_snippet_of_the_card_answers(
    released: RunDirectory, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    folder = released.path / "release" / "tiny" / f"iter-{number}"
    code = snippet(folder)
    assert code.count('"tester/tiny"') == 1
    code = code.replace('"tester/tiny"', repr(str(folder))).replace(f' revision="iter-{number}",', "")
    assert run(code, capsys).strip()


def test_the_snippet_of_the_gguf_card_answers(released: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = released.path / "release" / "tiny-GGUF" / "main"
    code = snippet(folder)
    assert code.count('"tester/tiny-GGUF"') == code.count('"tester/tiny"') == 1
    code = code.replace('"tester/tiny-GGUF"', repr(str(folder)))
    shown = run(code.replace('"tester/tiny"', repr(str(folder.parents[1] / "tiny" / "iter-2"))), capsys)
    assert shown.startswith("<|user|>\nName three uses of baking soda.</s>\n<|assistant|>\n")


def test_without_an_owner_the_blocks_run_in_the_folder_of_the_card(
    copy: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copy.recipe
    copy.record_recipe(recipe.model_copy(update={"release": recipe.release.model_copy(update={"repository": None})}))
    pipeline.release(copy, EXACT, repository=None, observer=SilentObserver())
    copy_release(copy.path / "release", "tiny", tmp_path / "out")
    for part in ("tiny/iter-2", "tiny-GGUF/main"):
        folder = tmp_path / "out" / part
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "tester/" not in card
        assert "huggingface.co/tiny" not in card
        (code,) = blocks(card, "bash")
        assert "files have their recorded sha256" in shell(code, folder, {})
        monkeypatch.chdir(folder)
        assert run(snippet(folder), capsys).strip()


def test_the_snippet_of_the_published_seed_card_answers(
    released: RunDirectory, test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    path = test_data / SEED_CARD
    if not path.is_file():
        pytest.skip(f"{path.name} is not in GSHF_TEST_DATA")
    text = path.read_text(encoding="utf-8")
    end = 'print(outputs[0]["generated_text"])'
    code = text[text.index("import torch") : text.index(end) + len(end)]
    name = '"sfairXC/FsfairX-Zephyr-Chat-v0.1"'
    assert code.count(name) == 1
    folder = released.path / "release" / "tiny" / "iter-2"
    shown = run(code.replace(name, repr(str(folder))), capsys)
    (system,) = re.findall(r'"role": "system",\s*"content": "([^"]+)"', code)
    assert shown.startswith(f"<|system|>\n{system}</s>\n<|user|>\n")
    assert len(shown.partition("<|assistant|>\n")[2]) > 1


def test_the_commands_of_the_cards_download_and_verify_what_was_published(
    released: RunDirectory, hub: HubServer, tmp_path: Path
) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    releases.publish(
        api, releases.parts(released.path / "release", "tester/tiny"), public=False, report=lambda line: None
    )
    for part in ("tiny/iter-2", "tiny-GGUF/main"):
        card = (released.path / "release" / part / "README.md").read_text(encoding="utf-8")
        assert languages(card) == {"python", "bash", "bibtex"}
        (code,) = blocks(card, "bash")
        (tmp_path / part).mkdir(parents=True)
        assert "files have their recorded sha256" in shell(code, tmp_path / part, dict(hub.environment))


def test_the_blocks_of_the_card_of_another_tools_checkpoint_run(
    released: RunDirectory,
    hub: HubServer,
    tmp_path: Path,
    command: Callable[..., Outcome],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    own = shutil.ignore_patterns("manifest.json", "README.md", "eval", "figures")
    checkpoint = shutil.copytree(released.path / "release" / "tiny" / "iter-2", tmp_path / "other", ignore=own)
    (tmp_path / "facts.yaml").write_text("license: mit\ntemplate_change: as it came\n", encoding="utf-8")
    assert command("publish", checkpoint, "--to", "tester/other", "--facts", tmp_path / "facts.yaml").code == 0
    got = tmp_path / "got"
    shell("hf download tester/other --revision v1 --local-dir got", tmp_path, dict(hub.environment))
    card = (got / "README.md").read_text(encoding="utf-8")
    assert languages(card) == {"python", "bash"}
    code = snippet(got)
    assert code.count('"tester/other", revision="v1"') == 1
    assert run(code.replace('"tester/other", revision="v1"', repr(str(got))), capsys).strip()
    (code,) = blocks(card, "bash")
    assert "files have their recorded sha256" in shell(code, tmp_path, dict(hub.environment))


@pytest.mark.parametrize("part", ["tiny/iter-1", "tiny/iter-2", "tiny-GGUF/main"])
def test_the_bibliographies_of_the_cards_are_well_formed(released: RunDirectory, part: str) -> None:
    card = (released.path / "release" / part / "README.md").read_text(encoding="utf-8")
    paper, model = (bibliography(block) for block in blocks(card, "bibtex"))
    assert paper["eprint"] == "2312.11456"
    assert model["howpublished"] == "https://huggingface.co/tester/tiny"
    assert f"Iteration {1 if part.endswith('1') else 2}; recipe sha256 " in model["note"]
