"""prune: what the recipe does not keep goes, once nothing needs it; hashes and numbers stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.errors import RunError
from gshf_release.recipe import Keep, Recipe
from gshf_release.release.lineage import verify_lineage
from gshf_release.release.retention import prune_run, superfluous
from gshf_release.release.verify import verify_run
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests.conftest import Outcome
from tests.end_to_end.train_tiny import EXACT
from tests.run.work import made

FIRST = Path("iteration-1") / "policy" / "model"


def keep(run: RunDirectory, **wanted: str) -> None:
    recipe = run.recipe
    loop = recipe.loop.model_copy(update={"keep": Keep.model_validate(wanted)})
    run.record_recipe(recipe.model_copy(update={"loop": loop}))


def test_the_final_weights_stay_and_the_run_still_verifies(copy: RunDirectory) -> None:
    keep(copy, weights="final")
    assert superfluous(copy) == [copy.path / FIRST]
    assert prune_run(copy) > 10_000
    assert not (copy.path / FIRST).exists()
    assert (copy.path / "iteration-2" / "policy" / "model").exists()
    assert verify_run(copy).unfinished == 0
    assert verify_lineage(copy).external == 0
    assert prune_run(copy) == 0, "a second time there is nothing to do"


def test_by_default_everything_stays(copy: RunDirectory) -> None:
    assert superfluous(copy) == []


def test_pruned_weights_are_not_made_again_unless_needed(copy: RunDirectory) -> None:
    keep(copy, weights="final")
    prune_run(copy)
    before = made(copy)
    pipeline.train(copy, copy.recipe, EXACT, allow_redo=False, observer=SilentObserver())
    assert made(copy) == before


def test_a_stage_that_needs_pruned_weights_says_how_to_get_them(copy: RunDirectory) -> None:
    keep(copy, weights="final")
    prune_run(copy)
    for shard in sorted((copy.path / "iteration-2" / "samples").rglob("manifest.json")):
        shard.unlink()
    with pytest.raises(RunError, match=r"needs iteration-1/policy/model, which was pruned\. Delete .*manifest\.json"):
        pipeline.train(copy, copy.recipe, EXACT, allow_redo=False, observer=SilentObserver())


def test_what_an_unfinished_stage_needs_is_not_pruned(copy: RunDirectory) -> None:
    keep(copy, weights="final")
    for shard in sorted((copy.path / "iteration-2" / "samples").rglob("manifest.json")):
        shard.unlink()
    with pytest.raises(RunError, match="iteration-1/policy/model is still needed: iteration-2/samples"):
        prune_run(copy)
    assert (copy.path / FIRST).exists()


def test_the_command_can_say_it_first(copy: RunDirectory, command: Callable[..., Outcome]) -> None:
    keep(copy, weights="final")
    outcome = command("prune", str(copy.path), "--dry-run")
    assert outcome.out.splitlines()[0] == FIRST.as_posix()
    assert "would be freed" in outcome.out
    assert (copy.path / FIRST).exists()


def test_an_optimisers_state_is_kept_on_request(
    one_thread: None, tiny_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    loop = tiny_recipe.loop.model_copy(update={"keep": Keep(optimiser="final"), "iterations": 2})
    recipe = tiny_recipe.model_copy(update={"loop": loop})
    run = RunDirectory.create(tmp_path / "run", recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=SilentObserver())
    states = [run.path / f"iteration-{t}" / "policy" / "optimiser" / "optimizer.pt" for t in (1, 2)]
    assert all(state.exists() for state in states)
    prune_run(run)
    assert [state.exists() for state in states] == [False, True]
