"""Which checkpoints of an unfinished training another profile can go on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.profile import Profile
from gshf_release.run.layout import COMPLETE, FSDP_WEIGHTS, Layout, lay_out, mark

ALONE = Layout("none", 1)


def checkpoint(folder: Path, step: int, layout: Layout) -> Path:
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
    assert Layout(*after).fits(Layout(*before)) is fits


def test_what_does_not_fit_is_put_aside_with_the_reason_and_comes_back(tmp_path: Path) -> None:
    zero = Profile(processes=2, sharding="zero-3")
    for step in (9, 10):
        checkpoint(tmp_path, step, Layout.of(zero))
    assert lay_out(tmp_path, Layout.of(Profile())) == (
        "the checkpoint of sharding zero-3 on 2 processes does not fit sharding none on 1 process"
    )
    assert found(tmp_path) == ["aside/zero-3-2/checkpoint-10", "aside/zero-3-2/checkpoint-9"]
    assert lay_out(tmp_path, Layout.of(Profile())) is None, "said once"
    checkpoint(tmp_path, 3, Layout.of(Profile()))
    assert lay_out(tmp_path, Layout.of(zero)) is None
    assert found(tmp_path) == ["aside/none-1/checkpoint-3", "checkpoint-10", "checkpoint-9"]


def test_what_fits_stays_without_a_word(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path, 9, Layout.of(Profile(processes=2)))
    assert lay_out(tmp_path, Layout.of(Profile())) is None
    assert kept.exists()


def test_an_empty_mark_is_that_of_a_reward_model_that_divided_the_data_alone(tmp_path: Path) -> None:
    """As earlier versions wrote."""
    kept = checkpoint(tmp_path, 9, ALONE)
    (kept / COMPLETE).write_text("", encoding="utf-8")
    assert lay_out(tmp_path, Layout("none", 2)) is None
    assert kept.exists()
    assert lay_out(tmp_path, Layout("fsdp", 2)) == (
        "the checkpoint of sharding none on 1 process does not fit sharding fsdp on 2 processes"
    )


def test_a_checkpoint_that_calls_itself_fsdp_without_its_file_divides_the_data_alone(tmp_path: Path) -> None:
    """As earlier versions wrote on CPUs."""
    fsdp = Profile(processes=2, sharding="fsdp")
    kept = checkpoint(tmp_path, 9, Layout.of(fsdp))
    assert lay_out(tmp_path, Layout.of(fsdp)) == (
        "the checkpoint of sharding none on 2 processes does not fit sharding fsdp on 2 processes"
    )
    assert found(tmp_path) == ["aside/none-2/checkpoint-9"]
    assert lay_out(tmp_path, Layout.of(Profile(processes=2))) is None
    assert kept.exists()
    (kept / FSDP_WEIGHTS).touch()
    assert lay_out(tmp_path, Layout.of(fsdp)) is None
    assert kept.exists()


def test_what_a_kill_cut_is_removed_without_a_word(tmp_path: Path) -> None:
    cut = checkpoint(tmp_path, 10, ALONE)
    (cut / COMPLETE).unlink()
    (cut / "model.safetensors").touch()
    assert lay_out(tmp_path, Layout.of(Profile())) is None
    assert not cut.exists()


def test_without_scratch_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert lay_out(tmp_path / "gone", ALONE) is None
