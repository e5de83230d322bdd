"""Which checkpoint counts, and in which order examples come."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState, TrainingArguments

from gshf_release.errors import Interrupted
from gshf_release.optimization.loss_averaging import fill_last_step
from gshf_release.optimization.trainer import Resumable, latest_checkpoint, run_trainer, training_order
from gshf_release.run.checkpoint_layout import CheckpointLayout
from gshf_release.run.context import silent

ALONE = CheckpointLayout("none", 1)


def checkpoint(folder: Path, step: int, *, complete: bool) -> None:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").touch()
    if complete:
        (path / "complete").touch()


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "gone") is None


def test_a_checkpoint_that_was_not_written_to_its_end_is_ignored(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9, complete=True)
    checkpoint(tmp_path, 10, complete=False)
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_the_newest_is_found_by_number(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint(tmp_path, step, complete=True)
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_a_checkpoint_is_due_when_its_minutes_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("gshf_release.optimization.trainer.time.monotonic", lambda: now[0])
    callback = Resumable(silent, ALONE, minutes=10)
    due = []
    for second in (1, 599, 601, 700):
        now[0] = second
        control = TrainerControl()
        callback.on_step_end(TrainingArguments(), TrainerState(max_steps=9), control)  # type: ignore[no-untyped-call]
        due.append(control.should_save)
    assert due == [False, False, True, True], "and it stays due until one was saved"


def test_a_training_that_another_process_stopped_has_not_finished(tmp_path: Path) -> None:
    """A signal may reach one process alone; all of them stop, and none may go on as if the training were complete."""
    state = SimpleNamespace(global_step=3, max_steps=9, log_history=[{"loss": 0.5}])
    trainer = SimpleNamespace(
        state=state, remove_callback=lambda _: None, add_callback=lambda _: None, train=lambda **_: None
    )
    with pytest.raises(Interrupted):
        run_trainer(trainer, tmp_path, 1, ALONE)
    state.global_step = 9
    assert run_trainer(trainer, tmp_path, 1, ALONE) == [{"loss": 0.5}]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 3), st.integers(1, 8), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_epoch_trains_on_every_example_once(lengths: list[int], epochs: int, batch: int, seed: int) -> None:
    keys = [f"key-{number}" for number in range(len(lengths))]
    order = training_order(keys, lengths, epochs=epochs, batch=batch, seed=seed)
    assert sorted(order) == sorted(list(range(len(keys))) * epochs)


@pytest.mark.parametrize("epochs", [1, 2])
def test_steps_are_sorted_over_the_end_of_an_epoch_too(epochs: int) -> None:
    keys, lengths = [f"key-{number}" for number in range(5)], [1, 2, 3, 4, 5]
    order = training_order(keys, lengths, epochs=epochs, batch=4, seed=0)
    for start in range(0, len(order), 4):
        chosen = [lengths[index] for index in order[start : start + 4]]
        assert chosen == sorted(chosen, reverse=True)


def test_epochs_and_seeds_shuffle_differently() -> None:
    keys, lengths = [f"key-{number}" for number in range(20)], [1] * 20
    order = training_order(keys, lengths, epochs=2, batch=1, seed=0)
    assert order[:20] != order[20:]
    assert training_order(keys, lengths, epochs=2, batch=1, seed=1) != order


def test_the_order_given_does_not_matter() -> None:
    keys, lengths = [f"key-{number}" for number in range(12)], list(range(12))
    forwards = training_order(keys, lengths, epochs=1, batch=4, seed=0)
    backwards = training_order(keys[::-1], lengths[::-1], epochs=1, batch=4, seed=0)
    assert [keys[index] for index in forwards] == [keys[::-1][index] for index in backwards]


@pytest.mark.parametrize("batch", [2, 5])
def test_the_longest_come_first_within_a_step(batch: int) -> None:
    lengths = [5, 3, 8, 1, 9, 2, 7, 4, 6, 10]
    order = training_order([str(n) for n in range(10)], lengths, epochs=1, batch=batch, seed=0)
    for start in range(0, 10, batch):
        chosen = [lengths[index] for index in order[start : start + batch]]
        assert chosen == sorted(chosen, reverse=True)


@given(st.integers(1, 40), st.sampled_from([(8, 1, 2), (8, 2, 2), (8, 2, 4), (4, 8, 1)]))
def test_the_last_step_is_filled_with_empty_examples(count: int, how: tuple[int, int, int]) -> None:
    batch, micro_batch, processes = how
    order = list(range(count))
    filled = fill_last_step(order, batch=batch, micro_batch=micro_batch, processes=processes)
    assert filled[:count] == order
    assert set(filled[count:]) <= {None}
    assert len(filled) - count < micro_batch * processes
    assert processes == 1 or len(filled) % (micro_batch * processes) == 0
    assert -(-len(filled) // batch) == -(-count // batch), "no step is added"


def test_training_has_its_own_threads_and_gives_them_back(tmp_path: Path) -> None:
    class Trainer:
        state = SimpleNamespace(global_step=1, max_steps=1, log_history=[{"loss": 0.5}, {"runtime": 1.0}])

        def remove_callback(self, callback: object) -> None: ...

        def add_callback(self, callback: object) -> None: ...

        def train(self, resume_from_checkpoint: str | None) -> None:
            seen.append(torch.get_num_threads())

    seen: list[int] = []
    before = torch.get_num_threads()
    assert run_trainer(Trainer(), tmp_path, before + 1, ALONE) == [{"loss": 0.5}]
    assert run_trainer(Trainer(), tmp_path, None, ALONE) == [{"loss": 0.5}]
    assert seen == [before + 1, before]
    assert torch.get_num_threads() == before
