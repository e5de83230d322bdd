"""`train --plan`: what a run would take, without a model being loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gshf_release import recipe as recipes
from gshf_release.optimization import distributed
from gshf_release.planning import costs
from gshf_release.planning import plan as planning
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile, load
from gshf_release.run.directory import RunDirectory
from tests import tiny
from tests.conftest import REPOSITORY, Outcome

Command = Callable[..., Outcome]
SMALL = "name: one-24gb\ndevice: cpu\nhardware: {memory_gb: 24}\n"
TOO_SMALL = (
    "Error: Full fine-tuning of 7.24 billion parameters needs 116 GB for weights, gradients and AdamW's moments alone; a "
    "device of the profile 'one-24gb' has 24 GB. Set training.adapter (for example "
    "training.adapter.rank=64 with training.learning_rate=5.0e-6), or take a "
    "device with more memory, or a smaller base."
)


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with empty caches, where loading a model fails."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gshf_release.models.checkpoints.load_model", None)
    monkeypatch.setattr("gshf_release.models.checkpoints.load_tokenizer", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def published(path: Path, profile: Profile, *overrides: str) -> planning.Plan:
    return planning.make_plan(recipes.load("fsfairx-zephyr-7b", overrides), profile, path / "run")


def test_an_adapter_at_a_rate_for_all_weights_is_a_warning_before_the_numbers(nothing_here: Path) -> None:
    rank, rate = "training.adapter.rank=64", "training.learning_rate"
    assert published(nothing_here, load("one-80gb")).warnings == []
    assert published(nothing_here, load("one-80gb"), rank, f"{rate}=5.0e-6").warnings == []
    plan = published(nothing_here, load("one-80gb"), rank)
    (warning,) = plan.warnings
    assert warning.startswith("training.learning_rate 5e-07 is one for all weights, and training.adapter is set")
    assert warning.endswith("Set training.learning_rate=5.0e-6.")
    text = planning.plan_lines(plan)
    assert text.index(f"Warning: {warning}") < next(at for at, line in enumerate(text) if line.startswith("sample:"))
    assert published(nothing_here, load("one-80gb"), rank, f"{rate}=1.9e-6").warnings
    assert not published(nothing_here, load("one-80gb"), rank, f"{rate}=2.0e-6").warnings


def test_every_command_that_trains_an_adapter_brings_its_rate() -> None:
    """In the README, the documents, the profiles and the recipes."""
    root = REPOSITORY
    files = [root / "README.md", *root.glob("docs/*.md"), *root.glob("training/**/*.*")]
    commands = [
        line for path in files for line in path.read_text(encoding="utf-8").splitlines() if "adapter.rank=" in line
    ]
    assert len(commands) >= 6
    assert [line for line in commands if "--set training.learning_rate=5.0e-6" not in line] == []


def test_the_published_recipe_is_planned_without_its_models(nothing_here: Path) -> None:
    plan = published(nothing_here, load("one-80gb"))
    hours = {need.step: need.amount for need in plan.hours}
    assert hours["sampling"] == pytest.approx(483_072 * 529 / (12_500 * 8 / 7.24) / 3600)  # 5.1 hours
    assert hours["training"] == pytest.approx(139_440_000 * 8 * 7.24e9 / 4e14 / 3600)  # 5.6 hours
    assert plan.memory[0].amount == pytest.approx(115.84)
    assert plan.work.responses == 483_072
    assert {task["state"] for task in plan.tasks} == {"missing"}


def test_what_is_missing_is_listed(nothing_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PACKAGES", ("torch", "no_such_package"))
    missing = "\n".join(published(nothing_here, load("one-80gb")).missing)
    assert "'prompts.jsonl' is neither a file nor a name in training/prompts" in missing
    for model in (
        "HuggingFaceH4/mistral-7b-sft-beta",
        "hendrydong/Mistral-RM-for-RAFT-GSHF-v0",
        "weqweasdas/RM-Mistral-7B",
    ):
        assert f"'{model}' is no local path, and it has not been fetched" in missing
    assert "Not installed: no_such_package." in missing


def test_an_engine_that_is_not_set_up_is_missing(nothing_here: Path) -> None:
    said = (
        "The environment 'vllm' for cuda has not been set up. "
        "Run, here or where there is a network (both must share GSHF_CACHE): gshf-release setup vllm --device cuda"
    )
    assert said in published(nothing_here, load("one-80gb")).missing
    assert said not in published(nothing_here, load("laptop")).missing


def test_too_few_prompts_are_said_with_both_numbers(nothing_here: Path) -> None:
    tiny.prompts_file(nothing_here / "prompts.jsonl", 80)
    plan = published(nothing_here, load("one-80gb"))
    assert "divides 60768 prompts among its roles" in plan.missing[0]
    assert "has 80 distinct ones" in plan.missing[0]
    assert plan.work.prompts == 60_768


def test_a_7b_model_on_24_gb_is_refused_in_one_line(command: Command, nothing_here: Path) -> None:
    (nothing_here / "small.yaml").write_text(SMALL, encoding="utf-8")
    outcome = command("train", "fsfairx-zephyr-7b", "--profile", "small.yaml", "--plan")
    assert outcome.code == 1
    assert outcome.line == TOO_SMALL
    assert "sample: 483,072 responses, 255.5 million tokens if a mean response has 529" in outcome.out
    assert not (nothing_here / "runs").exists()


def test_train_refuses_it_before_anything_runs(command: Command, nothing_here: Path) -> None:
    outcome = command("train", "fsfairx-zephyr-7b", "--profile", "one-24gb")
    assert (outcome.code, outcome.line) == (1, TOO_SMALL)
    assert not (nothing_here / "runs").exists()


def test_an_adapter_of_a_7b_model_fits_24_gb(nothing_here: Path) -> None:
    plan = published(nothing_here, load("one-24gb"), "training.adapter.rank=64")
    needs = {need.step: need.amount for need in plan.memory}
    assert plan.refusal is None
    assert needs["training: frozen base"] == pytest.approx(14.48)
    assert needs["measuring: weights of three models"] == pytest.approx(14.48)
    assert max(costs.peaks(plan.memory).values()) < 24


def test_three_models_side_by_side_do_not(nothing_here: Path) -> None:
    beside = load("one-24gb").model_copy(update={"measure_in_turn": False})
    refusal = published(nothing_here, beside, "training.adapter.rank=64").refusal
    assert refusal is not None
    assert refusal.startswith("Measuring of 7.24 billion parameters needs 43 GB")


@pytest.mark.parametrize(("name", "gigabytes"), [("8-gpu-zero3", 231.68), ("fsdp", 231.68), ("slurm", 231.68)])
def test_every_process_of_a_machine_loads_a_whole_model(name: str, gigabytes: float, nothing_here: Path) -> None:
    plan = published(nothing_here, load(name))
    (need,) = plan.host
    assert need.amount == pytest.approx(gigabytes)
    assert (
        "  training: whole models: 231.68 GB = 8 processes x parameters x 4 bytes, while they load"
        in planning.plan_lines(plan)
    )


def test_one_process_loads_its_model_where_it_trains(nothing_here: Path) -> None:
    assert published(nothing_here, load("one-80gb")).host == []


@pytest.mark.parametrize(("name", "gigabytes"), [("8-gpu-zero3", 14.48), ("fsdp", 14.48), ("slurm", 7.24)])
def test_processes_that_divide_the_weights_hold_a_part_each(nothing_here: Path, name: str, gigabytes: float) -> None:
    plan = published(nothing_here, load(name))
    assert plan.refusal is None
    assert plan.memory[0].amount == pytest.approx(gigabytes)


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "training" / "profiles").glob("*.yaml")))
def test_every_profile_that_ships_plans_the_published_recipe(
    nothing_here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)  # DeepSpeed may not be here
    profile = load(name)
    adapter = () if profile.sharding != "none" else ("training.adapter.rank=64",)
    chosen = recipes.load("fsfairx-zephyr-7b", adapter)
    distributed.check_sharding(chosen.training, profile)
    plan = planning.make_plan(chosen, profile, nothing_here / "run")
    assert profile.name == name
    assert plan.schedule is not None
    assert all(need.amount is not None for need in (*plan.hours, *plan.memory, *plan.disk))
    assert (plan.refusal is None) == (profile.device == "cuda")
    assert (plan.schedule.price is not None) == (profile.device == "cuda")


def test_zero_2_keeps_the_weights_whole(nothing_here: Path) -> None:
    """7.24 x (4 + 12 / 8)."""
    profile = load("8-gpu-zero3").model_copy(update={"sharding": "zero-2"})
    assert published(nothing_here, profile).memory[0].amount == pytest.approx(39.82)


def test_a_7b_model_on_a_laptop_is_refused(nothing_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_device_memory", lambda device: 16.0)
    refusal = published(nothing_here, load("laptop").model_copy(update={"device": "cpu"})).refusal
    assert refusal is not None
    assert refusal.endswith("a device of the profile 'laptop' has 16 GB.")


def test_a_model_of_unknown_size_is_not_refused(nothing_here: Path) -> None:
    profile = Profile(device="cpu", hardware={"memory_gb": 24})  # type: ignore[arg-type]
    plan = published(nothing_here, profile, "plan.parameters=null")
    assert plan.refusal is None
    assert "parameters: base unknown (not here), reward model 7.11 billion" in planning.plan_lines(plan)


def test_models_that_are_here_are_counted(tiny_recipe: Recipe, tmp_path: Path) -> None:
    plan = planning.make_plan(tiny_recipe, Profile(device="cpu"), tmp_path / "run")
    assert plan.parameters == sum(weight.numel() for weight in tiny.model().parameters())
    assert (plan.missing, plan.refusal) == ([], None)
    assert all(need.amount is not None for need in plan.memory)
    assert plan.work.responses == 2 * 8 * 4 + 3 * 4 * 3
    assert plan.response_tokens == 12, "without a fact every response is taken to reach the limit"


def test_a_run_that_has_measured_its_responses_is_planned_by_them(tiny_recipe: Recipe, finished: RunDirectory) -> None:
    plan = planning.make_plan(
        tiny_recipe.model_copy(update={"sampling": tiny_recipe.sampling}), Profile(), finished.path
    )
    assert {task["state"] for task in plan.tasks} == {"finished"}
    assert 1 <= plan.response_tokens <= 12
    assert "finished  iteration-2/samples (2 shards)" in planning.stage_lines(plan)


def test_json_has_the_tasks_and_the_numbers(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny.recipe(tiny_folder)), encoding="utf-8")
    outcome = command(
        "train", tmp_path / "recipe.yaml", "--run", tmp_path / "run", "--seeds", "0,1", "--plan", "--json"
    )
    document = json.loads(outcome.out)
    paths = [str(tmp_path / "run" / f"seed-{seed}") for seed in (0, 1)]
    assert list(document["runs"]) == paths
    assert document["plan"][0] == {"run": paths[0], "task": "base", "state": "missing"}
    assert document["runs"][paths[1]]["work"]["iterations"] == 2
    assert document["runs"][paths[0]]["refusal"] is None


def test_a_tight_device_is_said_so(nothing_here: Path) -> None:
    profile = Profile(device="cpu", hardware={"memory_gb": 120})  # type: ignore[arg-type]
    plan = published(nothing_here, profile)
    assert plan.refusal is None
    assert "Memory: training may need 212 GB at the longest responses; a device has 120 GB." in plan.missing


UNFIT = {
    "architecture": (
        "config.json",
        {"architectures": ["Qwen2ForCausalLM"]},
        [],
        "architecture Qwen2ForCausalLM is not supported",
    ),
    "tokenizer": ("tokenizer.json", {"normalizer": {"type": "NFC"}}, [], "set release.gguf to []"),
    "compressed": (
        "config.json",
        {"architectures": ["Qwen2ForCausalLM"]},
        ["release.gguf=[]", "release.compressed=[fp8]"],
        "fp8: architecture Qwen2ForCausalLM is not supported",
    ),
}


@pytest.mark.parametrize("asked", [["--plan"], []], ids=["plan", "train"])
@pytest.mark.parametrize("case", UNFIT)
def test_a_format_that_the_base_cannot_have_is_refused_before_anything_runs(
    command: Command, tiny_folder: Path, tmp_path: Path, case: str, asked: list[str]
) -> None:
    file, change, overrides, reason = UNFIT[case]
    base = shutil.copytree(tiny_folder / "tiny", tmp_path / "base")
    content = json.loads((base / file).read_text(encoding="utf-8"))
    (base / file).write_text(json.dumps(content | change), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(tiny.recipe(tiny_folder, base={"model": str(base)})), encoding="utf-8"
    )
    sets = [argument for text in overrides for argument in ("--set", text)]
    outcome = command("train", tmp_path / "recipe.yaml", "--run", tmp_path / "run", *sets, *asked)
    assert outcome.code == 1
    assert outcome.line.startswith(f"Error: release.{'compressed' if overrides else 'gguf'}: ")
    assert reason in outcome.line
    assert not (tmp_path / "run").exists()


def test_a_base_that_is_not_here_is_not_judged_by_its_formats(nothing_here: Path) -> None:
    assert published(nothing_here, load("one-80gb")).unreleasable is None
