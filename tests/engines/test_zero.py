"""ZeRO-2 and ZeRO-3 by DeepSpeed, in two processes on the CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gshf_release.models.checkpoints import load_model
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory, read_json
from tests.optimization.plan import EXACT, finish, recipe
from tests.optimization.stopped import (
    POLICY,
    Outcome,
    assert_begins_again,
    assert_goes_on,
    assert_mixed_precision_agrees,
    profile,
    stopped,
    unbroken,
)

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None,
        reason="DeepSpeed is not installed: pip install 'gshf-release[cluster]'",
    ),
]


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return the run of one process."""
    return trained(tmp_path_factory.mktemp("alone") / "run", tiny_folder)


@pytest.mark.parametrize("sharding", ["zero-2", "zero-3"])
def test_two_processes_give_the_losses_and_the_policy_of_one(
    sharding: str, alone: RunDirectory, tiny_folder: Path, tmp_path: Path
) -> None:
    import torch

    run = trained(tmp_path / "run", tiny_folder, processes=2, sharding=sharding)
    assert read_json(run.path / POLICY / "manifest.json")["world_size"] == 2
    found, expected = (read_json(one.path / POLICY / "training.json")["steps"] for one in (run, alone))
    assert len(found) == 3
    assert [step["loss"] for step in found] == pytest.approx([step["loss"] for step in expected], abs=1e-4)
    norms = ([step["gradient_norm"] for step in steps] for steps in (found, expected))
    assert next(norms) == pytest.approx(next(norms), rel=1e-3)
    weights, same = (load_model(one.path / POLICY / "model", "fp32", "cpu").state_dict() for one in (run, alone))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, same[name], atol=1e-3, rtol=0, msg=name)


@pytest.mark.parametrize("sharding", ["zero-2", "zero-3"])
def test_two_processes_as_on_gpus_have_the_losses_of_one(sharding: str, tiny_folder: Path, tmp_path: Path) -> None:
    """DeepSpeed's autocast rounds in other places than torch's: where the losses are 0.17 to 0.69, by up to 0.0004."""
    assert_mixed_precision_agrees(sharding, tiny_folder, tmp_path, within=1e-3)


@pytest.fixture(scope="module")
def nine_steps(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return what one process that nobody stopped put out."""
    return unbroken(tmp_path_factory.mktemp("unbroken") / "run", tiny_folder)


@pytest.mark.parametrize("sharding", ["zero-2", "zero-3"])
def test_two_processes_killed_go_on_from_their_checkpoint(
    sharding: str, nine_steps: Outcome, tiny_folder: Path, tmp_path: Path
) -> None:
    two = profile(2, sharding)
    assert_goes_on(stopped(tmp_path / "run", tiny_folder, two), two, nine_steps)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (profile(2, "zero-3"), profile(1), "zero-3 on 2 processes does not fit sharding none on 1 process"),
        (profile(1), profile(2, "zero-2"), "none on 1 process does not fit sharding zero-2 on 2 processes"),
        (
            profile(2, "zero-2"),
            profile(4, "zero-2"),
            "zero-2 on 2 processes does not fit sharding zero-2 on 4 processes",
        ),
    ],
    ids=["zero-3-to-one", "one-to-zero-2", "zero-2-two-to-four"],
)
def test_a_checkpoint_that_does_not_fit_begins_again(
    before: Profile, after: Profile, why: str, nine_steps: Outcome, tiny_folder: Path, tmp_path: Path
) -> None:
    run = stopped(tmp_path / "run", tiny_folder, before)
    assert_begins_again(run, after, nine_steps, f"the checkpoint of sharding {why}")


def trained(path: Path, folder: Path, **profile: object) -> RunDirectory:
    """Return a finished run of three steps of two hand-made pairs."""
    chosen = recipe(folder, batch_pairs=2)
    run = RunDirectory.create(path, chosen, EXACT.model_copy(update={"micro_batch_pairs": 1} | profile))
    finish(run, run.recipe, run.profile)
    return run
