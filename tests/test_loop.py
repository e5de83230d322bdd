"""Executing what the loop declares, with works that only write down what they read, gives Algorithm 2 of arXiv 2405.07863."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gshf_release import loop
from gshf_release.data.results import Cell
from gshf_release.prompts.split import ranges
from gshf_release.recipe import Recipe
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.manifest import fingerprint
from gshf_release.run.stage import Stage, Task
from gshf_release.sampling.stage import SamplingParameters
from tests.run.plans import PROFILES, begin, recipe
from tests.run.work import made

STEPS = ("samples", "rewards", "pairs", "reference", "policy")
PROMPT_STAGES = ("prompts/validation", "iteration-1/prompts", "iteration-2/prompts", "iteration-3/prompts")


def record(context: StageContext) -> None:
    """Write every output as a file that holds the stage's name."""
    for file in context.task.stage.outputs:
        context.output(file).write_text(context.task.label, encoding="utf-8")


def no_numbers(context: StageContext) -> list[Cell]:
    """Return no cells."""
    return []


def small(**changes: Any) -> Recipe:
    roles = {"per_iteration": 8, "validation": 4, "test": 4}
    return recipe(**({"prompts": {"roles": roles}} | changes))


def executed(path: Path, chosen: Recipe) -> RunDirectory:
    """Return a run in which every declared stage was replaced by a recording one."""
    sources = [Stage("base", "", outputs=("model",))]
    sources += [Stage(name, "", outputs=("prompts.parquet",)) for name in PROMPT_STAGES]
    declared = [*sources, *loop.declare_loop(chosen)]
    stages = [
        replace(stage, work="tests.test_loop:record", numbers="tests.test_loop:no_numbers" if stage.numbers else "")
        for stage in declared
    ]
    run = begin(path, chosen)
    execute(stages, run, chosen, PROFILES["here"])
    return run


def read_by(run: RunDirectory, stage: str) -> set[str]:
    """Return what a stage read, as recorded in its manifest."""
    return set(json.loads((run.path / stage / "manifest.json").read_text(encoding="utf-8"))["inputs"])


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return executed(tmp_path_factory.mktemp("loop") / "run", small())


def test_three_iterations_take_the_steps_in_order(default: RunDirectory) -> None:
    steps = [label for label in made(default) if label.startswith("iteration-") and label.rpartition("/")[2] in STEPS]
    assert steps == [f"iteration-{t}/{step}" for t in (1, 2, 3) for step in STEPS]


def test_the_reward_model_comes_first(default: RunDirectory) -> None:
    assert made(default).index("reward/model") < made(default).index("iteration-1/samples")


def test_every_iteration_samples_from_the_policy_before(default: RunDirectory) -> None:
    for t, policy in ((1, "base"), (2, "iteration-1/policy"), (3, "iteration-2/policy")):
        assert read_by(default, f"iteration-{t}/samples") == {
            f"{policy}/model",
            f"iteration-{t}/prompts/prompts.parquet",
        }


def test_the_reward_ranks_the_samples_of_its_iteration(default: RunDirectory) -> None:
    for t in (1, 2, 3):
        assert read_by(default, f"iteration-{t}/rewards") == {
            "reward/model/model",
            f"iteration-{t}/prompts/prompts.parquet",
            f"iteration-{t}/samples/samples.parquet",
        }


def test_pairs_come_from_samples_and_rewards_of_the_iteration(default: RunDirectory) -> None:
    for t in (1, 2, 3):
        assert read_by(default, f"iteration-{t}/pairs") == {
            f"iteration-{t}/samples/samples.parquet",
            f"iteration-{t}/rewards/scores.parquet",
        }


def test_the_reference_is_the_base_in_every_iteration(default: RunDirectory) -> None:
    for t in (1, 2, 3):
        assert read_by(default, f"iteration-{t}/reference") == {f"iteration-{t}/pairs/pairs.parquet", "base/model"}


def test_the_optimisation_goes_on_from_the_policy_before_with_current_pairs(default: RunDirectory) -> None:
    for t, policy in ((1, "base"), (2, "iteration-1/policy"), (3, "iteration-2/policy")):
        assert read_by(default, f"iteration-{t}/policy") == {
            f"{policy}/model",
            f"iteration-{t}/pairs/pairs.parquet",
            f"iteration-{t}/reference/reference.parquet",
        }


def test_as_cited_it_restarts_from_the_base_on_all_pairs(tmp_path: Path) -> None:
    run = executed(tmp_path / "run", small(loop={"init": "base", "history": "all"}))
    history = {
        f"iteration-{t}/{file}" for t in (1, 2, 3) for file in ("pairs/pairs.parquet", "reference/reference.parquet")
    }
    assert read_by(run, "iteration-3/policy") == {"base/model"} | history
    assert "iteration-2/policy/model" in read_by(run, "iteration-3/samples"), "exploration still uses pi_{t-1}"


def test_without_resampling_all_iterations_train_on_the_first_samples(tmp_path: Path) -> None:
    run = executed(tmp_path / "run", small(loop={"resample": False}))
    sampled = [label for label in made(run) if label.startswith("iteration-") and "/samples" in label]
    assert {label.split("/")[0] for label in sampled} == {"iteration-1"}
    for t, policy in ((1, "base"), (2, "iteration-1/policy"), (3, "iteration-2/policy")):
        assert read_by(run, f"iteration-{t}/policy") == {
            f"{policy}/model",
            "iteration-1/pairs/pairs.parquet",
            "iteration-1/reference/reference.parquet",
        }
    assert not {"iteration-2", "iteration-3"} & set(ranges(run.recipe)), "prompts are set aside that nobody samples"


@pytest.mark.parametrize("other", [{"reference": "previous"}, {"history": "all"}])
def test_what_is_sampled_once_needs_one_reference_and_one_history(other: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="resample false has one set of pairs"):
        small(loop={"resample": False, **other})


def test_a_moving_reference_is_the_policy_before(tmp_path: Path) -> None:
    run = executed(tmp_path / "run", small(loop={"reference": "previous"}))
    assert "iteration-2/policy/model" in read_by(run, "iteration-3/reference")
    assert "base/model" in read_by(run, "iteration-1/reference")


def test_any_checkpoint_may_be_the_reference(tmp_path: Path) -> None:
    run = executed(tmp_path / "run", small(loop={"reference": "owner/sft"}))
    for t in (1, 2, 3):
        assert read_by(run, f"iteration-{t}/reference") == {f"iteration-{t}/pairs/pairs.parquet", "reference/model"}
    assert "base/model" in read_by(run, "iteration-1/policy"), "the policy still starts from the base"


def test_raft_is_one_key_and_trains_on_the_best_responses(tmp_path: Path) -> None:
    run = executed(tmp_path / "run", small(loop={"algorithm": "raft"}))
    steps = [label for label in made(run) if label.startswith("iteration-") and label.count("/") == 1]
    assert [step for step in steps if not step.endswith("prompts")] == [
        f"iteration-{t}/{step}"
        for t in (1, 2, 3)
        for step in ("samples", "rewards", "winners", "exploration", "policy")
    ]
    assert read_by(run, "iteration-2/policy") == {"iteration-1/policy/model", "iteration-2/winners/winners.parquet"}


def test_a_charge_for_leaving_the_base_needs_log_ratios(tmp_path: Path) -> None:
    run = executed(tmp_path / "run", small(pairs={"kl_weight": 0.1}))
    assert read_by(run, "iteration-2/log-ratios") == {
        "iteration-2/samples/samples.parquet",
        "iteration-1/policy/model",
        "base/model",
    }
    assert "iteration-2/log-ratios/log-ratios.parquet" in read_by(run, "iteration-2/pairs")


def test_the_final_iteration_is_chosen_by_validation_alone(default: RunDirectory) -> None:
    assert read_by(default, "final") == {
        f"results/{row}.validation.measure.json" for row in ("base", "iteration-1", "iteration-2", "iteration-3")
    }


def test_every_policy_is_validated_on_the_same_prompts(default: RunDirectory) -> None:
    for row in ("base", "iteration-1", "iteration-2", "iteration-3"):
        assert "prompts/validation/prompts.parquet" in read_by(default, f"{row}/validation/answers")


def declared(chosen: Recipe) -> dict[str, Stage]:
    return {stage.name: stage for stage in loop.declare_loop(chosen)}


def test_half_of_the_responses_get_each_temperature() -> None:
    decodings = declared(small())["iteration-1/samples"].typed(SamplingParameters).decodings
    assert [decoding.temperature for decoding in decodings] == [1.0, 0.7] * 4
    assert {(decoding.top_p, decoding.top_k) for decoding in decodings} == {(1.0, 0)}


def test_iterations_draw_with_their_own_purpose() -> None:
    stages = declared(small())
    assert len({stages[f"iteration-{t}/samples"].typed(SamplingParameters).purpose for t in (1, 2, 3)}) == 3


def test_samples_are_sharded_by_prompts() -> None:
    stages = declared(small(sampling={"prompts_per_shard": 3}))
    assert stages["iteration-1/samples"].shards == stages["iteration-1/rewards"].shards == 3  # 8 prompts


def identities(chosen: Recipe) -> dict[str, str]:
    return {name: fingerprint(Task(stage), chosen, {}) for name, stage in declared(chosen).items()}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"training": {"beta": 0.2}}, {"policy"}),
        ({"training": {"sft_weight": 0.2}}, {"policy"}),
        ({"training": {"sft_weight": 0.0}}, set()),
        ({"training": {"precision": "fp32"}}, {"policy", "reference"}),
        ({"pairs": {"minimum_margin": 0.5}}, {"pairs"}),
        ({"sampling": {"n": 4}}, {"samples", "measure"}),  # best of n is the yardstick of the KL
        ({"reward": {"model": "other"}}, {"reward/model"}),
        ({"release": {"repository": "o/n"}}, set()),
        ({"evaluation": {"second_scorer": {"model": "other"}}}, set()),
    ],
)
def test_a_key_changes_only_the_steps_that_read_it(changes: dict[str, Any], steps: set[str]) -> None:
    before, after = identities(small()), identities(small(**changes))
    changed = {name for name in before if before[name] != after[name]}
    assert {name if name == "reward/model" else name.rpartition("/")[2] for name in changed} == steps


def test_another_iteration_changes_none_before() -> None:
    few, many = identities(small()), identities(small(loop={"iterations": 4}))
    before = few.keys() - {"final"}
    assert {name: many[name] for name in before} == {name: few[name] for name in before}
