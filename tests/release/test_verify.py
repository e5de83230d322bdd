"""verify: every hash and every number again, and what changed by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release.data.hashing import sha256_file
from gshf_release.data.results import read_cells
from gshf_release.errors import VerificationError
from gshf_release.release.verify import verify_run
from gshf_release.run.directory import RunDirectory
from tests.conftest import Outcome


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    """Raise the first value of a results file by a thousandth."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["cells"][0]["value"] += 0.001
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def results_file(run: RunDirectory) -> Path:
    """Return the results of the stage that judged the last iteration on the test prompts."""
    (stage,) = [stage for stage in run.plan if stage.numbers and stage.name.startswith("iteration-2/test/")]
    return run.results(stage)


def test_a_finished_run_comes_out_as_recorded(copy: RunDirectory) -> None:
    files, numbers, unfinished = verify_run(copy)
    assert numbers == len(read_cells(copy.path / "results.json"))
    assert files > 50
    assert unfinished == 0


def test_hashes_alone_can_be_verified(copy: RunDirectory) -> None:
    assert verify_run(copy, hashes_only=True).numbers == 0


@pytest.mark.parametrize(
    "name",
    [
        "iteration-1/pairs/pairs.parquet",
        "base/model/model.safetensors",
        "release/tiny/iter-1/README.md",
        "release/tiny-GGUF/main/tiny-Q8_0.gguf",
    ],
)
def test_a_changed_byte_is_exit_code_3_and_names_the_file(
    copy: RunDirectory, command: Callable[..., Outcome], name: str
) -> None:
    flip_last_byte(copy.path / name)
    outcome = command("verify", copy.path, "--hashes-only")
    assert outcome.code == 3
    assert name in outcome.line


def test_a_changed_number_names_its_file(copy: RunDirectory, command: Callable[..., Outcome]) -> None:
    path = results_file(copy)
    change_a_number(path)
    outcome = command("verify", copy.path)
    assert outcome.code == 3
    assert copy.relative(path) in outcome.line


def test_a_number_changed_together_with_its_hash_is_found_by_computing_it(
    copy: RunDirectory, command: Callable[..., Outcome]
) -> None:
    path = results_file(copy)
    original = read_cells(path)[0]
    change_a_number(path)
    (stage,) = [stage for stage in copy.plan if copy.results(stage) == path]
    manifest = copy.path / stage.name / "manifest.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    document["cells"] = sha256_file(path)
    manifest.write_text(json.dumps(document), encoding="utf-8")
    outcome = command("verify", copy.path)
    assert outcome.code == 3
    assert f"{original.metric} of {original.row} is recorded as" in outcome.err
    assert f"computed as {original.value}" in outcome.err


def test_a_number_changed_in_the_merge_is_found(copy: RunDirectory) -> None:
    change_a_number(copy.path / "results.json")
    with pytest.raises(VerificationError, match=r"results\.json is not the merge"):
        verify_run(copy)


def test_a_missing_file_is_named(copy: RunDirectory) -> None:
    (copy.path / "iteration-2" / "pairs" / "pairs.parquet").unlink()
    with pytest.raises(VerificationError, match=r"iteration-2/pairs/pairs\.parquet"):
        verify_run(copy)


def test_an_unfinished_stage_is_counted(copy: RunDirectory) -> None:
    (copy.path / "release" / "tiny-GGUF" / "manifest.json").unlink()
    assert verify_run(copy, hashes_only=True).unfinished == 1


def test_a_release_folder_is_verified_alone(copy: RunDirectory, command: Callable[..., Outcome]) -> None:
    folder = copy.path / "release" / "tiny" / "iter-2"
    assert "13 files have their recorded sha256; " in command("verify", folder).out
    flip_last_byte(folder / "model.safetensors")
    outcome = command("verify", folder)
    assert outcome.code == 3
    assert "model.safetensors" in outcome.line


def test_what_is_neither_run_nor_release_is_said_so(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    assert command("verify", tmp_path).code == 3
    assert "neither a run directory nor a release folder" in command("verify", tmp_path).line
    assert "does not exist" in command("verify", tmp_path / "none").line
