"""Which checkpoints of an unfinished training another profile can go on from."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.utils.fsdp_utils import load_fsdp_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from gshf_release.optimization.distributed import arguments
from gshf_release.recipe.profile import Profile
from gshf_release.run import trust
from gshf_release.run.checkpoint_layout import COMPLETE, CheckpointLayout, lay_out, mark, withhold
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import tasks
from gshf_release.run.task import _keep_scratch_only_of

ALONE = CheckpointLayout("none", 1)


def checkpoint(folder: Path, step: int, layout: CheckpointLayout) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    mark(path, layout)
    return path


def found(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("checkpoint-*"))


@pytest.mark.parametrize(
    ("before", "after", "fits"),
    [
        (("none", 1), ("none", 2), True),
        (("fsdp", 8), ("fsdp", 16), True),
        (("zero-2", 8), ("zero-2", 8), True),
        (("zero-2", 8), ("zero-2", 4), False),
        (("zero-3", 8), ("zero-2", 8), False),
        (("fsdp", 2), ("none", 1), False),
        (("none", 1), ("zero-3", 8), False),
    ],
)
def test_whole_states_fit_any_number_of_processes(before: tuple[str, int], after: tuple[str, int], fits: bool) -> None:
    assert CheckpointLayout(*after).fits(CheckpointLayout(*before)) is fits


def test_what_does_not_fit_is_put_aside_with_the_reason_and_comes_back(tmp_path: Path) -> None:
    zero = Profile(processes=2, sharding="zero-3")
    for step in (9, 10):
        checkpoint(tmp_path, step, CheckpointLayout.of(zero))
    assert lay_out(tmp_path, CheckpointLayout.of(Profile())) == (
        "the checkpoint of sharding zero-3 on 2 processes does not fit sharding none on 1 process"
    )
    assert found(tmp_path) == ["aside/zero-3-2/checkpoint-10", "aside/zero-3-2/checkpoint-9"]
    assert lay_out(tmp_path, CheckpointLayout.of(Profile())) is None, "said once"
    checkpoint(tmp_path, 3, CheckpointLayout.of(Profile()))
    assert lay_out(tmp_path, CheckpointLayout.of(zero)) is None
    assert found(tmp_path) == ["aside/none-1/checkpoint-3", "checkpoint-10", "checkpoint-9"]


def test_what_fits_stays_without_a_word(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path, 9, CheckpointLayout.of(Profile(processes=2)))
    assert lay_out(tmp_path, CheckpointLayout.of(Profile())) is None
    assert kept.exists()


def test_what_a_kill_cut_is_removed_without_a_word(tmp_path: Path) -> None:
    cut = checkpoint(tmp_path, 10, ALONE)
    (cut / COMPLETE).unlink()
    (cut / "model.safetensors").touch()
    assert lay_out(tmp_path, CheckpointLayout.of(Profile())) is None
    assert not cut.exists()


def test_without_scratch_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert lay_out(tmp_path / "gone", ALONE) is None


class Payload:
    """Writes a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


ZERO = CheckpointLayout("zero-3", 2)


def test_checkpoints_that_would_be_unpickled_are_taken_from_this_user_alone(tmp_path: Path, cache: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    checkpoint(scratch, 9, ZERO)
    (scratch / "aside" / "zero-3-4").mkdir(parents=True)
    checkpoint(scratch / "aside" / "zero-3-4", 5, CheckpointLayout("zero-3", 4))
    assert "was not written by this user at this place" in str(withhold(scratch, ZERO))
    assert lay_out(scratch, ZERO) is None
    assert lay_out(scratch, CheckpointLayout("zero-3", 4)) is None
    assert list(scratch.glob("checkpoint-*")) == []
    checkpoint(scratch, 3, ZERO)  # the user's own, of the training that has now begun
    assert withhold(scratch, ZERO) is None
    assert found(scratch)[0] == "checkpoint-3"


def test_what_is_read_as_data_is_put_aside_and_not_withheld(tmp_path: Path, cache: Path) -> None:
    """One process began, then DeepSpeed goes on: its checkpoint does not fit, and comes back where it does."""
    checkpoint(tmp_path, 3, ALONE)
    assert withhold(tmp_path, ZERO) is None
    assert lay_out(tmp_path, ZERO) == f"the checkpoint of {ALONE} does not fit {ZERO}"
    assert lay_out(tmp_path, ALONE) is None
    assert found(tmp_path) == ["checkpoint-3"]


def test_a_run_put_in_the_place_of_the_users_own_is_not_taken_for_it(tmp_path: Path, cache: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert withhold(scratch, ZERO) is None
    checkpoint(scratch, 3, ZERO)
    (scratch / trust.OWNER).write_text("0" * 32, encoding="utf-8")
    assert withhold(scratch, ZERO) is not None


def test_the_users_checkpoints_stay_when_the_stage_has_cleared_its_folder(copy: RunDirectory, cache: Path) -> None:
    task = next(iter(tasks(copy.plan)))
    scratch = copy.scratch(task)
    assert withhold(scratch, ZERO) is None
    _keep_scratch_only_of("fingerprint", copy, task)  # what the training does first, in a process of its own
    checkpoint(scratch, 3, ZERO)
    assert withhold(scratch, ZERO) is None
    _keep_scratch_only_of("fingerprint", copy, task)
    assert (scratch / "checkpoint-3").is_dir()
    assert withhold(copy.scratch(task), ZERO) is None


@pytest.mark.parametrize("layout", [ALONE, CheckpointLayout("none", 4), CheckpointLayout("fsdp", 4)])
def test_checkpoints_that_are_read_as_data_need_no_note(tmp_path: Path, cache: Path, layout: CheckpointLayout) -> None:
    kept = checkpoint(tmp_path, 9, layout)
    assert withhold(tmp_path, layout) is None
    assert kept.exists()
    assert not cache.exists()


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_the_trainers_own_checkpoints_run_nothing_when_they_are_read(
    file: str, tmp_path: Path, tiny_folder: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "tiny")
    options: dict[str, Any] = {
        "use_cpu": True,
        "max_steps": 2,
        "save_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8
    Trainer(model, TrainingArguments(str(tmp_path / "out"), **options), train_dataset=rows).train()
    evil, marker = tmp_path / "out" / "checkpoint-1", tmp_path / "marker"
    if file == "pytorch_model.bin":
        (evil / "model.safetensors").unlink()
    torch.save(Payload(marker), evil / file)
    again = Trainer(model, TrainingArguments(str(tmp_path / "out"), **options), train_dataset=rows)
    with pytest.raises(pickle.UnpicklingError):
        again.train(resume_from_checkpoint=str(evil))
    assert not marker.exists()


def test_the_whole_state_that_fsdp_saves_runs_nothing_when_it_is_read(tmp_path: Path) -> None:
    """The plugin that the trainer makes of the arguments here decides how it is read, never the checkpoint."""
    assert arguments("fsdp", 2, bf16=False)["fsdp_config"] == {"state_dict_type": "FULL_STATE_DICT"}
    marker = tmp_path / "marker"
    torch.save(Payload(marker), tmp_path / "pytorch_model_fsdp.bin")
    PartialState(cpu=True)  # whose log the loader writes into
    plugin = FullyShardedDataParallelPlugin(state_dict_type="FULL_STATE_DICT", fsdp_version=2)
    process = SimpleNamespace(
        process_index=0, num_processes=1, is_main_process=True, is_fsdp2=True, wait_for_everyone=lambda: None
    )
    with pytest.raises(pickle.UnpicklingError):
        load_fsdp_model(plugin, process, torch.nn.Linear(2, 2), str(tmp_path))
    assert not marker.exists()
