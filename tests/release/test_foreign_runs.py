"""A run from elsewhere is data: nothing that it names is imported or run, and what it hides is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import gshf_release
from gshf_release.data.hashing import sha256_file
from gshf_release.errors import EngineError, RunError, VerificationError
from gshf_release.release import recomputation
from gshf_release.release.verify import verify_run
from gshf_release.rewards import Inference
from gshf_release.rewards.python_callable import PythonReward
from gshf_release.run import input_copies, trust
from gshf_release.run.directory import RunDirectory, read_json, write_json
from gshf_release.run.manifest import fingerprint, input_hashes
from gshf_release.run.persistent_worker import command_here
from gshf_release.run.stage import Stage, check_graph, tasks
from tests.conftest import Outcome

pytestmark = pytest.mark.slow
Command = Callable[..., Outcome]
MARKER = "MARKER"
EVIL = (
    f"import pathlib\npathlib.Path(__file__).with_name({MARKER!r}).write_text('ran')\ndef f(c): return [0.0] * len(c)\n"
)
EXTRA = Stage(
    "extra/model",
    "gshf_release.rewards.stages:copy_reward_model",
    outputs=("model",),
    parameters={"scorer": "reward"},
    identity="copy-reward-model/1",
)


@pytest.fixture(autouse=True)
def evil(copy: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the folder of the run, which has a module that leaves a marker when it is imported."""
    (copy.path / "evil_module.py").write_text(EVIL, encoding="utf-8")
    monkeypatch.chdir(copy.path)
    monkeypatch.syspath_prepend(str(copy.path))
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    monkeypatch.setenv("GSHF_CACHE", str(copy.path.parent / "cache"))
    return copy.path / MARKER


def forge(run: RunDirectory, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the plan, and make fingerprints fit again as anybody can."""
    plan = read_json(run.path / "plan.json")
    change(plan["stages"])
    write_json(run.path / "plan.json", plan)
    by_name = check_graph(run.plan)
    for task in tasks(run.plan):
        manifest, found = run.manifest(task), input_hashes(task, run, by_name)
        if manifest is None and task.stage.name == EXTRA.name:
            (run.path / "results" / "extra.model.json").write_text('{"cells": []}', encoding="utf-8")
            manifest = {"stage": EXTRA.name, "inputs": {}, "outputs": {}, "versions": {}, "keys": {}}
            manifest["cells"] = sha256_file(run.path / "results" / "extra.model.json")
        if manifest is not None and found is not None:
            write_json(run.manifest_path(task), manifest | {"fingerprint": fingerprint(task, run.recipe, found)})


def name_the_evil_function(run: RunDirectory) -> None:
    recipe = yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["reward"] |= {"model": "python:evil_module:f"}
    (run.path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def numbers_of_last(function: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(stages: list[dict[str, Any]]) -> None:
        next(stage for stage in reversed(stages) if stage["numbers"])["numbers"] = function

    return change


@pytest.mark.parametrize(
    ("function", "told"),
    [
        *(
            (each, f"plan.json names {each!r}, which is no function of gshf-release")
            for each in ("evil_module:f", "os:system", "a.b")
        ),
        ("", "has no numbers; gshf-release does not declare it so"),
    ],
)
def test_numbers_are_computed_by_the_package_whatever_the_plan_names(
    copy: RunDirectory, command: Command, evil: Path, function: str, told: str
) -> None:
    forge(copy, numbers_of_last(function))
    outcome = command("verify", copy.path)
    assert outcome.code == 3
    assert told in outcome.err
    assert not evil.exists()
    assert "evil_module" not in sys.modules


def test_another_function_of_the_package_computes_nothing(copy: RunDirectory) -> None:
    forge(copy, numbers_of_last("gshf_release.rewards.stages:copy_reward_model"))
    assert verify_run(copy).numbers > 0


def test_parameters_that_no_stage_of_the_package_has_are_one_line(copy: RunDirectory, command: Command) -> None:
    forge(copy, lambda stages: next(each for each in stages if each["numbers"])["parameters"].update(count="many"))
    outcome = command("verify", copy.path)
    assert outcome.code == 3
    assert "prompts/pool: the parameters in plan.json are none of this release's: count: Input" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_version_of_a_stage_with_numbers_is_a_difference(copy: RunDirectory) -> None:
    forge(copy, lambda stages: next(each for each in stages if each["numbers"]).update(identity="read-prompts/99"))
    with pytest.raises(VerificationError, match="'read-prompts/99' has numbers; gshf-release does not declare it so"):
        verify_run(copy)


def test_a_stage_that_imports_the_recipes_code_is_a_difference(
    copy: RunDirectory, command: Command, evil: Path
) -> None:
    name_the_evil_function(copy)
    forge(copy, lambda stages: stages.append(EXTRA.as_json() | {"numbers": EXTRA.work}))
    outcome = command("verify", copy.path)
    assert outcome.code == 3
    assert "extra/model: plan.json says that 'copy-reward-model/1' has numbers" in outcome.err
    assert not evil.exists()


def test_a_work_that_is_not_the_packages_is_a_difference(copy: RunDirectory, evil: Path) -> None:
    forge(copy, lambda stages: stages[0].update(work="evil_module:f"))
    with pytest.raises(VerificationError, match="'evil_module:f', which is no function of gshf-release"):
        verify_run(copy)
    assert not evil.exists()


@pytest.mark.parametrize("words", [("report",), ("status",), ("card",), ("verify",), ("verify", "--lineage")])
def test_no_command_imports_a_scorer_that_only_the_run_names(
    copy: RunDirectory, command: Command, evil: Path, words: tuple[str, ...]
) -> None:
    name_the_evil_function(copy)
    command(words[0], copy.path, *words[1:])
    assert not evil.exists()


def test_verify_says_what_it_leaves_unverified(copy: RunDirectory, command: Command, evil: Path) -> None:
    name_the_evil_function(copy)
    forge(copy, lambda stages: None)
    outcome = command("verify", copy.path)
    first, second = outcome.out.strip().splitlines()[:2]
    assert first == "Not checked: the scores of python:evil_module:f, which is code that the run names."
    assert "numbers come out as recorded" in second
    assert not evil.exists()


def test_eval_asks_for_trust_before_any_work(copy: RunDirectory, command: Command, evil: Path) -> None:
    recipe = yaml.safe_load((copy.path / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["evaluation"]["second_scorer"] |= {"model": "python:evil_module:f"}
    (copy.path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    outcome = command("eval", copy.path)
    assert outcome.code == 1
    assert not evil.exists()


def test_a_run_opens_no_function_that_the_user_did_not_name(copy: RunDirectory, evil: Path) -> None:
    folder = copy.path / "forged"
    folder.mkdir()
    write_json(folder / "callable.json", {"callable": "python:evil_module:f", "source_sha256": None})
    trust.allow(["python:mine:f"])  # the recipe that the user gave names another one
    with pytest.raises(EngineError, match=r"python:evil_module:f is code that the run names.*--trust-code"):
        PythonReward.open(folder, Inference())
    assert not evil.exists()


def test_code_that_the_user_trusted_is_remembered_for_this_run_alone(copy: RunDirectory, tmp_path: Path) -> None:
    trust.remember(copy.path, ["python:mine:f"])
    os.environ.pop(trust.VARIABLE)
    trust.recall(tmp_path / "another")
    assert not trust.is_allowed("python:mine:f")
    trust.recall(copy.path)
    assert trust.is_allowed("python:mine:f")
    assert not trust.is_allowed("python:evil_module:f")


def test_a_worker_imports_nothing_from_the_current_folder(copy: RunDirectory, evil: Path) -> None:
    (copy.path / "torch.py").write_text(EVIL, encoding="utf-8")
    (copy.path / "yaml.py").write_text(EVIL, encoding="utf-8")
    module = command_here("gshf_release.run.worker", str(copy.path), "base", "0")
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHONPATH")}
    variables["PYTHONPATH"] = str(Path(gshf_release.__file__).parents[1])
    subprocess.run(module, cwd=copy.path, env=variables, capture_output=True, check=False)
    assert not evil.exists()


def test_a_copy_that_leaves_the_run_is_refused(copy: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("license: mit\n", encoding="utf-8")
    folder = copy.path / "inputs" / "release.facts"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("../../../secret.yaml", str(tmp_path / "secret.yaml"), "link.yaml"):
        write_json(folder / "source.json", {"reference": "facts", "file": file, "sha256": ""})
        if file == "link.yaml":
            (folder / file).symlink_to(tmp_path / "secret.yaml")
        with pytest.raises(RunError, match="no copy inside the run"):
            input_copies.kept_input(copy, "release.facts", "facts")


def test_every_stage_of_a_recorded_plan_is_declared(copy: RunDirectory) -> None:
    assert [line for line in map(recomputation.difference, copy.plan) if line] == []


def test_a_damaged_manifest_is_said(copy: RunDirectory, command: Command) -> None:
    (copy.path / "base" / "manifest.json").write_text(json.dumps({"stage": "base"}), encoding="utf-8")
    outcome = command("verify", copy.path)
    assert outcome.code == 3
    assert "base/manifest.json: damaged" in outcome.err
