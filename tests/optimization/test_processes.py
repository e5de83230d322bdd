"""Two training processes give what one gives, and survive being killed. Gloo, FP32, on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Pair
from gshf_release.errors import RecipeError, RunError
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.run import launch
from gshf_release.run.checkpoint_layout import CheckpointLayout
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import SilentObserver, execute
from gshf_release.run.stage import Stage
from tests.optimization import test_adapter, test_raft
from tests.optimization.plan import EXACT, finish, recipe, stages
from tests.optimization.stopped import (
    POLICY,
    assert_goes_on,
    assert_mixed_precision_agrees,
    losses,
    profile,
    stopped,
    unbroken,
    weights,
)

TWO = {"processes": 2, "micro_batch_pairs": 1}


def begin(path: Path, folder: Path, **training: Any) -> RunDirectory:
    """Begin a run of hand-made pairs on two processes."""
    chosen = recipe(folder, **{"batch_pairs": 2, "epochs": 3} | training)
    return RunDirectory.create(path, chosen, EXACT.model_copy(update=TWO))


@pytest.mark.slow
def test_two_processes_give_the_losses_and_pairs_of_one(finished: RunDirectory, tmp_path: Path) -> None:
    """The second iteration's pairs are sampled by the first one's policy, so equal pairs mean equal policies too."""
    profile = Profile(inference_precision="fp32", threads=1, **TWO)  # type: ignore[arg-type]
    run = RunDirectory.create(tmp_path / "run", finished.recipe, profile)
    pipeline.train(run, finished.recipe, profile, allow_redo=False, observer=SilentObserver())
    for number in (1, 2):
        document, alone = (read_json(one.path / f"iteration-{number}/policy/training.json") for one in (run, finished))
        assert document["pairs"] == alone["pairs"]
        assert [step["step"] for step in document["steps"]] == [step["step"] for step in alone["steps"]]
        for found, expected in zip(document["steps"], alone["steps"], strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4)
            assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)
        pairs, same = (Pair.read(one.path / f"iteration-{number}/pairs/pairs.parquet") for one in (run, finished))
        assert [(pair.chosen_ids, pair.rejected_ids) for pair in pairs] == [
            (pair.chosen_ids, pair.rejected_ids) for pair in same
        ]
        for stage in ("rewards/shard-000", "reference", "policy"):
            path = f"iteration-{number}/{stage}/manifest.json"
            assert [read_json(one.path / path)["world_size"] for one in (run, finished)] == [2, 1], stage
    assert [entry["world_size"] for entry in run.journal() if entry["event"] == "training"] == [2, 2], "one rank writes"


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_killed_go_on_from_their_checkpoint(sharding: str, tiny_folder: Path, tmp_path: Path) -> None:
    two = profile(2, sharding)
    run = stopped(tmp_path / "run", tiny_folder, two)
    assert_goes_on(run, two, unbroken(tmp_path / "alone", tiny_folder))


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_raft_in_two_processes_has_the_losses_of_one(sharding: str, tiny_folder: Path, tmp_path: Path) -> None:
    """A loss is the mean over the tokens of the whole batch, and the responses differ in length."""
    chosen = recipe(tiny_folder, batch_pairs=4, epochs=2)
    two, one = in_two_and_in_one(chosen, tmp_path, test_raft.stages(chosen), sharding)
    found, expected = losses(two, POLICY), losses(one, POLICY)
    assert len(found) == 3
    assert found == pytest.approx(expected, abs=1e-4)
    assert weights(two.path / POLICY / "model") == approximately(weights(one.path / POLICY / "model"))


@pytest.mark.slow
def test_fsdp_in_two_processes_has_the_losses_of_one(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_folder, batch_pairs=2)
    two, one = in_two_and_in_one(chosen, tmp_path, stages(chosen), sharding="fsdp")
    assert len(losses(two, POLICY)) == 3
    assert losses(two, POLICY) == pytest.approx(losses(one, POLICY), abs=1e-4)
    assert weights(two.path / POLICY / "model") == approximately(weights(one.path / POLICY / "model"))


@pytest.mark.slow
def test_fsdp_as_on_gpus_has_the_losses_of_one_process(tiny_folder: Path, tmp_path: Path) -> None:
    assert_mixed_precision_agrees("fsdp", tiny_folder, tmp_path, within=1e-4)


@pytest.mark.slow
def test_an_adapter_in_two_processes_ends_as_in_one(tiny_folder: Path, tmp_path: Path) -> None:
    """Trained, saved, merged, and handed to a second iteration."""
    chosen = recipe(tiny_folder, adapter=test_adapter.SMALL, learning_rate=0.01, batch_pairs=2)
    two, one = in_two_and_in_one(chosen, tmp_path, test_adapter.stages(chosen))
    for number in (1, 2):
        policy = Path(f"iteration-{number}") / "policy"
        assert losses(two, policy) == pytest.approx(losses(one, policy), abs=1e-4)
        for folder in ("adapter", "model"):
            assert weights(two.path / policy / folder) == approximately(weights(one.path / policy / folder)), folder
    assert losses(one, Path("iteration-2") / "policy")[0] < losses(one, POLICY)[1], "it goes on with the first one's"


def in_two_and_in_one(
    chosen: Recipe, folder: Path, plan: list[Stage], sharding: str = "none"
) -> tuple[RunDirectory, RunDirectory]:
    """Return the run of a plan in two processes, which may divide the weights, and that in one."""
    found = []
    for name, processes, divided in (("two", 2, sharding), ("one", 1, "none")):
        profile = EXACT.model_copy(update={"processes": processes, "micro_batch_pairs": 1, "sharding": divided})
        run = RunDirectory.create(folder / name, chosen, profile)
        execute(plan, run, chosen, profile)
        assert read_json(run.path / POLICY / "manifest.json")["world_size"] == processes
        assert read_json(run.path / POLICY / "training.json")["distribution"] == CheckpointLayout.of(profile)._asdict()
        found.append(run)
    return found[0], found[1]


def approximately(expected: dict[str, Any]) -> dict[str, Any]:
    """Allow for sums in another order, and for a BF16 weight that they round to its neighbour."""
    return {name: pytest.approx(tensor, rel=2**-7, abs=1e-4) for name, tensor in expected.items()}


def test_another_number_of_processes_than_asked_for_is_an_error(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a launcher does that silently starts one."""
    monkeypatch.setattr(launch, "command", lambda tasks, run, *_: [
        sys.executable, "-m", "gshf_release.run.worker", str(run.path), tasks[0].stage.name, "0"
    ])  # fmt: skip
    run = begin(tmp_path / "run", tiny_folder)
    with pytest.raises(RunError, match=r"'laptop' asks for 2 training processes \(1 x 2\), but 1 came together"):
        finish(run, run.recipe, run.profile)


def test_a_batch_that_the_processes_do_not_divide_is_refused_before_anything_runs(
    tiny_folder: Path, tmp_path: Path
) -> None:
    chosen = recipe(tiny_folder)
    run = RunDirectory.create(tmp_path / "run", chosen, Profile(processes=2))
    with pytest.raises(RecipeError, match="batch_pairs 3 is not a multiple of the profile's 2 training processes"):
        pipeline.train(run, chosen, Profile(processes=2), allow_redo=False, observer=SilentObserver())
    assert not (run.path / "base").exists()
