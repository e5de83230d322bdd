"""FSDP2 over gloo, two processes: it really runs, computes what one process computes, and costs no second model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gshf_release.errors import RunError
from gshf_release.optimization.fsdp import APART, _engage_on_cpu, require_distribution, running
from gshf_release.run.checkpoint_layout import CheckpointLayout
from tests.conftest import REPOSITORY

TWO = CheckpointLayout("fsdp", 2)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what both processes of `fsdp_probe` saw."""
    folder = tmp_path_factory.mktemp("fsdp")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launcher, "-m", "tests.optimization.fsdp_probe", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((folder / f"rank-{number}.json").read_text(encoding="utf-8")) for number in (0, 1)]
    return [{**one, "folder": folder} for one in found]


@pytest.mark.slow
def test_the_first_loss_on_long_answers_is_ln_2(ranks: list[dict[str, Any]]) -> None:
    """Under accelerate's own mixed precision the losses of these seeds are 0.6515, 0.6338 and 0.6301."""
    steps = ranks[0]["steps"]
    assert [step["precision"] for step in steps] == ["fp32", "bf16", "bf16", "bf16"]
    assert [step["loss"] for step in steps] == pytest.approx([math.log(2)] * 4, abs=1e-4)
    assert [step["margin"] for step in steps] == pytest.approx([0.0] * 4, abs=1e-4)
    norms = [step["gradient_norm"] for step in steps]
    assert norms[1] == pytest.approx(norms[0], rel=0.01)
    assert norms[1] != pytest.approx(norms[0], rel=1e-5), "the arithmetic was another"


@pytest.mark.slow
def test_every_rank_holds_its_part_of_the_weights(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for step in rank["steps"]:
            assert step["distribution"] == TWO._asdict()
            assert step["local_parameters"] == step["parameters"] / 2


@pytest.mark.slow
def test_the_trainer_loads_no_second_model_and_hashes_no_weights(ranks: list[dict[str, Any]]) -> None:
    assert [step["calls"] for rank in ranks for step in rank["steps"]] == [[]] * 8


@pytest.mark.slow
def test_a_checkpoint_has_twelve_bytes_a_parameter(ranks: list[dict[str, Any]]) -> None:
    checkpoint = ranks[0]["folder"] / "bf16-0" / "checkpoint-1"
    written = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert written == pytest.approx(12 * ranks[0]["steps"][0]["parameters"], rel=0.02)


@pytest.mark.slow
def test_a_trainer_that_is_not_fsdp_is_refused_on_every_rank_before_the_first_step(
    ranks: list[dict[str, Any]],
) -> None:
    """If there is no error, accelerate engages FSDP on CPUs itself by now, and `_engage_on_cpu` can go."""
    for rank in ranks:
        found = rank["not_engaged"]
        assert found["steps"] == 0
        assert found["error"].startswith("FSDP is not active on 2 processes: accelerate ")
        assert "ignores it on CPU, and each process holds the whole model" in found["error"]
        assert "set another sharding in the profile" in found["hint"]


@pytest.mark.parametrize(
    ("wanted", "found", "text"),
    [
        (TWO, CheckpointLayout("none", 2), "FSDP is not active on 2 processes: accelerate .* ignores it on CPU"),
        (
            TWO,
            CheckpointLayout(APART, 2),
            "FSDP is not active on 2 processes: .* each process train a model of its own",
        ),
        (CheckpointLayout("zero-3", 8), CheckpointLayout("none", 8), "DeepSpeed's ZERO-3 is not active on 8 processes"),
        (
            CheckpointLayout("zero-3", 8),
            CheckpointLayout("zero-2", 8),
            "the model is divided by sharding zero-2 on 8 processes",
        ),
        (CheckpointLayout("none", 2), CheckpointLayout(APART, 2), "Data parallelism is not active on 2 processes"),
        (CheckpointLayout("none", 2), CheckpointLayout("none", 1), "Data parallelism is not active on 2 processes"),
    ],
)
def test_what_runs_otherwise_than_asked_for_is_one_line(
    wanted: CheckpointLayout, found: CheckpointLayout, text: str
) -> None:
    with pytest.raises(RunError, match=text) as raised:
        require_distribution(wanted, found, "cpu")
    assert "\n" not in str(raised.value)


def test_what_runs_is_read_from_the_model() -> None:
    def trainer(model: Any, processes: int) -> Any:
        return SimpleNamespace(model_wrapped=model, accelerator=SimpleNamespace(num_processes=processes))

    model = torch.nn.Linear(2, 2)
    assert running(trainer(model, 1)) == CheckpointLayout("none", 1)
    assert running(trainer(model, 2)) == CheckpointLayout(APART, 2)
    engine = SimpleNamespace(zero_optimization_stage=lambda: 3)
    assert running(trainer(engine, 8)) == CheckpointLayout("zero-3", 8)


def test_fsdp_on_the_cpu_beside_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes its mesh of the GPUs then."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    with pytest.raises(RunError, match=r"FSDP on the CPU of a machine with a GPU .* Hide them"):
        _engage_on_cpu({})
