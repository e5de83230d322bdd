"""`reward train`: from preferences to a checkpoint that any library loads; killed and begun again it goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gshf_release.data.records import Message, PreferenceScore
from gshf_release.data.results import find, read_cells
from gshf_release.errors import DataError, Interrupted, RecipeError, RunBusyError, RunError
from gshf_release.recipe.profile import Profile
from gshf_release.rewards import Inference, quality
from gshf_release.rewards.preference_training import SCRATCH, RewardTrainingOptions, _working_in, train
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests.conftest import REPOSITORY, Outcome
from tests.optimization.stopped import weights as tensors_of
from tests.run.work import wait

pytestmark = pytest.mark.slow
GOOD, BAD = "the cat sat on a mat", "rain near cup gold banks tea"
EXACT = Profile(inference_precision="fp32", threads=1, micro_batch_pairs=4)
COMMAND = [
    "--held-out",
    "0.3",
    "--learning-rate",
    "0.001",
    "--batch-pairs",
    "4",
    "--epochs",
    "2",
    "--precision",
    "fp32",
]


def rows(count: int = 40) -> list[dict[str, Any]]:
    """Return preferences that a glance at the words tells apart; every fifth prompt has a system turn."""
    made = []
    for number in range(count):
        asked = [Message(role="user", content=f"why {number}")]
        if number % 5 == 0:
            asked = [Message(role="system", content="be brief"), *asked]
        made.append({"messages": asked, "chosen": GOOD + " and read" * (number % 3), "rejected": BAD})
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    return path


def options(folder: Path, **changes: Any) -> RewardTrainingOptions:
    chosen: dict[str, Any] = {
        "held_out": 0.3,
        "learning_rate": 0.001,
        "batch_pairs": 4,
        "epochs": 2,
        "precision": "fp32",
    }
    return RewardTrainingOptions(base=str(folder / "tiny"), **(chosen | changes))


@pytest.fixture(scope="module")
def trained(data: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "mine"
    train(data, out, options(tiny_folder), EXACT, checkpoint_every=2)
    return out


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return found


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_what_is_written_loads_as_a_sequence_classifier(trained: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained)
    turns = [{"role": "user", "content": "why 3"}, {"role": "assistant", "content": GOOD}]
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    with torch.inference_mode():
        plain = float(model(torch.tensor([ids])).logits[0, 0])
    assert model.config.num_labels == 1
    assert SequenceClassificationReward.open(trained, Inference()).score([turns])[0] == pytest.approx(plain, abs=1e-5)
    assert not (trained / SCRATCH).exists()


def test_the_profiles_minutes_checkpoint_it_before_the_steps_do(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "mine", []
    profile = EXACT.model_copy(update={"checkpoint_minutes": 1e-9})

    def look(done: int, total: int, unit: str) -> None:
        seen.append((done, sorted(path.name for path in (out / SCRATCH).glob("checkpoint-*"))))

    train(data, out, options(tiny_folder, epochs=1), profile, checkpoint_every=1000, progress=look)
    assert dict(seen)[2] == ["checkpoint-1"]


def test_it_learns_what_can_be_told_apart(trained: Path) -> None:
    cells = read_cells(trained / "results.json")
    accuracy = find(cells, metric="held-out accuracy")
    assert accuracy is not None
    assert accuracy.value == 100
    steps = document(trained)["steps"]
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]


def test_the_numbers_are_recomputed_from_the_held_out_scores(trained: Path) -> None:
    scores = PreferenceScore.read(trained / "held-out.parquet")
    assert quality.cells(scores, row="mine", artefact="held-out.parquet") == read_cells(trained / "results.json")
    pairs = document(trained)["pairs"]
    assert pairs == {"read": 40, "trained": 40 - len(scores), "held_out": len(scores), "too_long": 0}
    assert scores[0].rejected_tokens == len(
        SequenceClassificationReward.open(trained, Inference()).tokenizer.encode(BAD, add_special_tokens=False)
    )


def test_no_path_of_this_machine_is_stored(trained: Path, tiny_folder: Path) -> None:
    assert str(tiny_folder) not in (trained / "training.json").read_text(encoding="utf-8")
    assert document(trained)["options"]["base"] == "tiny"


def test_the_order_of_the_file_changes_nothing(trained: Path, data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    shuffled = rows()
    random.Random(1).shuffle(shuffled)
    pq.write_table(pa.Table.from_pylist(shuffled), tmp_path / "preferences.parquet")
    train(tmp_path / "preferences.parquet", tmp_path / "out", options(tiny_folder), EXACT)
    assert weights(tmp_path / "out") == weights(trained)


def test_asked_again_it_has_nothing_to_do(trained: Path, data: Path, tiny_folder: Path) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    assert train(data, trained, options(tiny_folder), EXACT) == document(trained)
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_with_another_model_is_refused(trained: Path, data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds a reward model trained otherwise"):
        train(data, trained, options(tiny_folder, seed=1), EXACT)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="exists and is no reward model in training"):
        train(data, tmp_path, options(tiny_folder), EXACT)


def stop_after_three_steps(data: Path, out: Path, tiny_folder: Path) -> None:
    """Begin a training in one process, which SIGTERM stops."""

    def stop(done: int, total: int, unit: str) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(data, out, options(tiny_folder), EXACT, progress=stop)


def test_sigterm_saves_a_checkpoint_and_the_rest_is_bit_equal(
    trained: Path, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    stop_after_three_steps(data, tmp_path / "out", tiny_folder)
    with pytest.raises(RunError, match="an unfinished training with other settings"):
        train(data, tmp_path / "out", options(tiny_folder, epochs=3), EXACT)
    heard: list[int] = []
    train(data, tmp_path / "out", options(tiny_folder), EXACT, progress=lambda done, total, unit: heard.append(done))
    assert heard[0] == 4
    assert weights(tmp_path / "out") == weights(trained)
    assert document(tmp_path / "out") == document(trained) | {
        "results": [entry | {"row": "out"} for entry in document(trained)["results"]]
    }


def test_killed_and_begun_again_is_bit_equal(
    trained: Path, data: Path, tiny_folder: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    profile = tmp_path / "exact.yaml"
    profile.write_text("inference_precision: fp32\nthreads: 1\nmicro_batch_pairs: 4\n", encoding="utf-8")
    arguments = ["reward", "train", str(data), "--base", str(tiny_folder / "tiny"), "--out", str(tmp_path / "out")]
    arguments += [*COMMAND, "--checkpoint-every", "1", "--profile", str(profile)]
    begun = [sys.executable, "-m", "gshf_release", *arguments]
    for _ in range(3):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)  # a kill that came too late
        kill_after_a_checkpoint(begun, tmp_path / "out" / SCRATCH)
        if not (tmp_path / "out" / "training.json").exists():
            break
    assert not (tmp_path / "out" / "training.json").exists(), "killed before the end"
    outcome = command(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["pairs"] == document(trained)["pairs"]
    assert weights(tmp_path / "out") == weights(trained)


def kill_after_a_checkpoint(command: list[str], scratch: Path) -> None:
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(lambda: any(scratch.glob("checkpoint-*/complete")) or process.poll() is not None, seconds=180)
    process.kill()
    process.wait()


TWO = EXACT.model_copy(update={"processes": 2, "micro_batch_pairs": 1})


@pytest.mark.slow
def test_two_training_processes_give_the_losses_of_one(
    trained: Path, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    heard: list[tuple[int, int, str]] = []
    found = train(data, tmp_path / "out", options(tiny_folder), TWO, progress=lambda *step: heard.append(step))
    one, steps = document(trained), len(found["steps"])
    assert heard[-1] == (steps, steps, "optimiser steps"), "the command hears of them"
    assert (found["world_size"], one["world_size"]) == (2, 1)
    assert found["pairs"] == one["pairs"]
    losses, alone = ([step["loss"] for step in each["steps"]] for each in (found, one))
    assert losses == pytest.approx(alone, abs=1e-4)
    assert document(tmp_path / "out") == found
    assert not (tmp_path / "out" / SCRATCH).exists()


@pytest.mark.slow
def test_one_process_stopped_goes_on_in_two_processes_of_a_profile_of_deepspeed(
    trained: Path, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """They divide the data alone, so that its checkpoint fits."""
    stop_after_three_steps(data, tmp_path / "out", tiny_folder)
    (begun,) = (tmp_path / "out" / SCRATCH).glob("checkpoint-*")
    assert begun.name == "checkpoint-3"
    found = train(data, tmp_path / "out", options(tiny_folder), TWO.model_copy(update={"sharding": "zero-3"}))
    losses, alone = ([step["loss"] for step in each["steps"]] for each in (found, document(trained)))
    assert losses == pytest.approx(alone, abs=1e-4)
    assert losses[:3] == alone[:3], "these were not trained again"
    assert found["distribution"] == {"sharding": "none", "processes": 2}


@pytest.mark.slow
def test_fsdp_gives_the_losses_of_one_process_and_does_not_read_its_checkpoint(
    trained: Path, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    stop_after_three_steps(data, tmp_path / "out", tiny_folder)
    said: list[str] = []
    fsdp = TWO.model_copy(update={"sharding": "fsdp"})
    found = train(data, tmp_path / "out", options(tiny_folder), fsdp, say=said.append)
    assert found["distribution"] == {"sharding": "fsdp", "processes": 2}
    assert said == [
        "the checkpoint of sharding none on 1 process does not fit sharding fsdp on 2 processes; "
        "the training of the reward model begins again, and the checkpoint is kept until it is finished."
    ]
    losses, alone = ([step["loss"] for step in each["steps"]] for each in (found, document(trained)))
    assert losses == pytest.approx(alone, abs=1e-5)
    tensors, expected = tensors_of(tmp_path / "out"), tensors_of(trained)
    assert all(tensors[name] == pytest.approx(value, rel=0, abs=1e-5) for name, value in expected.items())


@pytest.mark.slow
def test_an_error_of_the_training_processes_comes_back_on_one_line(
    data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"The worker of .*out failed: None of 26 pairs fits max_tokens 3\. Raise it\."):
        train(data, tmp_path / "out", options(tiny_folder, max_tokens=3), TWO)


def test_a_batch_that_the_processes_do_not_divide_is_refused(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch_pairs 4 is not a multiple of the profile's 3 training processes"):
        train(data, tmp_path / "out", options(tiny_folder), EXACT.model_copy(update={"processes": 3}))
    assert not (tmp_path / "out").exists()


def test_two_commands_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with (
        _working_in(tmp_path, {}),
        pytest.raises(RunBusyError, match="Another process trains"),
        _working_in(tmp_path, {}),
    ):
        pass


def test_pairs_that_are_too_long_are_dropped_whole_and_counted(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    found = train(data, tmp_path / "out", options(tiny_folder, max_tokens=25, epochs=1), EXACT)
    pairs = found["pairs"]
    assert pairs["too_long"] == 8
    assert pairs["trained"] + pairs["held_out"] + pairs["too_long"] == 40


@pytest.mark.parametrize(("share", "side"), [(0.0001, "held out"), (0.9999, "left to train on")])
def test_a_split_with_an_empty_side_is_one_line(
    data: Path, tiny_folder: Path, tmp_path: Path, share: float, side: str
) -> None:
    with pytest.raises(DataError, match=f"Of 40 prompts none is {side}"):
        train(data, tmp_path / "out", options(tiny_folder, held_out=share), EXACT)


def test_a_bad_row_is_named_or_counted_as_asked(
    data: Path, tiny_folder: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(data.read_text(encoding="utf-8") + '{"prompt": "x", "chosen": "a"}\n', encoding="utf-8")
    arguments = ["reward", "train", path, "--base", tiny_folder / "tiny", "--out", tmp_path / "out", *COMMAND]
    outcome = command(*arguments)
    assert outcome.code == 1
    assert "bad.jsonl:41: expected a text or turns under 'rejected'" in outcome.line
    outcome = command(*arguments, "--on-bad-row", "skip", "--epochs", "1")
    assert outcome.code == 0, outcome.err
    assert "1 bad rows skipped" in outcome.out
    assert "skipped" in outcome.err
    assert "held-out accuracy " in outcome.out


def test_data_that_are_not_there_are_one_line(
    tiny_folder: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    outcome = command("reward", "train", "gone.jsonl", "--base", tiny_folder / "tiny", "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "gone.jsonl does not exist" in outcome.line


def test_a_training_that_goes_on_another_day_keeps_the_date_on_which_it_began(tmp_path: Path) -> None:
    """A template that writes the date gives the same ids then."""
    from gshf_release.rewards import preference_training

    with preference_training._working_in(tmp_path / "out", {"options": 1}):
        date = tmp_path / "out" / preference_training.SCRATCH / preference_training.DATE
        date.write_text("2021-01-02T03:04:05", encoding="utf-8")
    with preference_training._working_in(tmp_path / "out", {"options": 1}):
        job = preference_training.Job(tmp_path, tmp_path / "out", None, None)  # type: ignore[arg-type]
        assert preference_training._clock(job)().isoformat() == "2021-01-02T03:04:05"
