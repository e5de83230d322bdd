"""When a run would be over: by hand on small graphs, and against a run that was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release import pipeline
from gshf_release import recipe as recipes
from gshf_release.planning import costs
from gshf_release.planning import makespan as makespans
from gshf_release.planning.costs import Requirement
from gshf_release.planning.makespan import critical_path, makespan
from gshf_release.prompts.split import PoolParameters
from gshf_release.recipe.profile import Profile, Vllm, load
from gshf_release.run.stage import Input, Stage
from tests.conftest import REPOSITORY


def stage(name: str, *sources: str, shards: int = 1, scope: str = "all", distributed: bool = False) -> Stage:
    inputs = tuple(Input(source, "out", "shard" if scope == "shard" else "all") for source in sources)
    return Stage(name, "m:work", inputs=inputs, outputs=("out",), shards=shards, distributed=distributed)


GRAPH = [
    stage("samples", shards=4),
    stage("rewards", "samples", shards=4, scope="shard"),
    stage("pairs", "rewards"),
    stage("policy", "pairs", distributed=True),
    stage("validation", "policy"),
]
HOURS = {"samples": 8.0, "rewards": 2.0, "policy": 6.0, "validation": 1.0}
"""Four samples of 2 hours each, four scorings of half an hour."""


def test_one_worker_takes_the_sum() -> None:
    assert makespan(GRAPH, HOURS, Profile()) == pytest.approx(17)


def test_two_workers_by_hand() -> None:
    """Samples end at 2, 2, 4 and 4 on two workers, all of a longer chain than the scoring; two scorings each to 5; then 7."""
    assert makespan(GRAPH, HOURS, Profile(parallel_workers=2)) == pytest.approx(4 + 1 + 6 + 1)


def test_an_engine_in_its_own_environment_runs_alone() -> None:
    """One worker samples to 8 while the other scores what is there; the last shard is scored at 8.5."""
    samples = Stage("samples", "m:work", outputs=("out",), shards=4, runs_in="engine")
    profile = Profile(parallel_workers=2, engine="vllm")
    assert makespan([samples, *GRAPH[1:]], HOURS, profile) == pytest.approx(8 + 0.5 + 6 + 1)


def test_copies_of_an_engine_divide_the_sampling() -> None:
    """8 / 4 + 2 + 6 + 1; a stage of another kind does not get faster."""
    samples = Stage("samples", "m:work", outputs=("out",), shards=4, runs_in="engine")
    assert makespan([samples, *GRAPH[1:]], HOURS, Profile(replicas=4)) == pytest.approx(11)


def test_a_copy_samples_on_as_many_devices_as_it_is_spread_over() -> None:
    """8 / (2 copies x 4 devices) + 2 + 6 + 1; another engine than vLLM takes one device a copy: 8 / 2 + 2 + 6 + 1."""
    samples = Stage("samples", "m:work", outputs=("out",), shards=4, runs_in="engine")
    profile = Profile(replicas=2, engine="vllm", vllm=Vllm(tensor_parallel=4))
    assert makespan([samples, *GRAPH[1:]], HOURS, profile) == pytest.approx(10)
    other = profile.model_copy(update={"engine": "transformers"})
    assert makespan([samples, *GRAPH[1:]], HOURS, other) == pytest.approx(13)


def test_what_an_open_engine_can_do_comes_before_a_longer_chain() -> None:
    """Answers and a scoring from 8 to 9, the other scoring to 10, pairs to 12; both scorings first would end at 11."""
    samples = Stage("samples", "m:work", outputs=("out",), runs_in="engine", parameters={"policy": "base"})
    answers = replace(samples, name="answers", inputs=(Input("samples", "out"),))
    stages = [samples, answers, stage("rewards", "samples", shards=2), stage("pairs", "rewards")]
    hours = {"samples": 8.0, "answers": 1.0, "rewards": 2.0, "pairs": 2.0}
    assert makespan(stages, hours, Profile(engine="vllm", parallel_workers=2)) == pytest.approx(12)


def test_the_processes_do_all_shards_that_are_ready_by_one_start() -> None:
    """Three half hours of scoring end together at 1.5; then three hours on two workers. Shard by shard it would be 2.5."""
    scores = stage("scores", shards=3, distributed=True)
    stages = [scores, stage("read", "scores", shards=3, scope="shard")]
    profile = Profile(processes=2, parallel_workers=2)
    assert makespan(stages, {"scores": 3.0, "read": 3.0}, profile) == pytest.approx(3.5)


def test_training_processes_divide_what_they_can() -> None:
    """8 + 2 + 6 / 3 + 1 on one machine of three processes, 8 + 2 + 6 / 6 + 1 on two."""
    assert makespan(GRAPH, HOURS, Profile(processes=3)) == pytest.approx(13)
    assert makespan(GRAPH, HOURS, Profile(processes=3, nodes=2)) == pytest.approx(12)


def test_the_critical_path_by_hand() -> None:
    path = critical_path(GRAPH, HOURS, Profile(processes=2))
    assert path == [("samples", 2.0), ("rewards", 0.5), ("policy", 3.0), ("validation", 1.0)]


@given(
    hours=st.lists(st.floats(0, 10), min_size=5, max_size=5),
    workers=st.integers(1, 6),
    processes=st.integers(1, 4),
)
def test_no_number_of_workers_beats_the_critical_path(hours: list[float], workers: int, processes: int) -> None:
    profile = Profile(parallel_workers=workers, processes=processes)
    known = {each.name: value for each, value in zip(GRAPH, hours, strict=True)}
    took = makespan(GRAPH, known, profile)
    bound = sum(value for _, value in critical_path(GRAPH, known, profile))
    assert bound - 1e-9 <= took <= makespan(GRAPH, known, profile.model_copy(update={"parallel_workers": 1})) + 1e-9


SHIPPED = {
    folder: sorted(path.stem for path in (REPOSITORY / "training" / folder).glob("*.yaml"))
    for folder in ("recipes", "profiles")
}
PUBLISHED = recipes.load("fsfairx-zephyr-7b", [])
STAGES = pipeline.training(PUBLISHED, None, PoolParameters(source_sha256="", count=60_768))


def published(profile: Profile) -> makespans.Schedule:
    tokens = costs.count(STAGES, PUBLISHED, 52, 529).tokens
    hours = costs.stage_hours(STAGES, tokens, profile, 7.24e9, 7.11e9)
    return makespans.make_schedule(STAGES, hours, profile)


def priced(name: str, price: float) -> Profile:
    profile = load(name)
    return profile.model_copy(update={"hardware": profile.hardware.model_copy(update={"price_per_gpu_hour": price})})


@pytest.mark.parametrize("overrides", [(), ("pairs.kl_weight=0.1",), ("loop.algorithm=raft", "pairs.kl_weight=0.1")])
@pytest.mark.parametrize("recipe", SHIPPED["recipes"])
@pytest.mark.parametrize("profile", SHIPPED["profiles"])
def test_one_worker_on_one_device_takes_the_hours_of_all_kinds(
    profile: str, recipe: str, overrides: tuple[str, ...]
) -> None:
    chosen, alone = recipes.load(recipe, overrides), {"processes": 1, "nodes": 1, "replicas": 1, "sharding": "none"}
    one = load(profile).model_copy(update=alone)
    stages = pipeline.training(chosen, None, PoolParameters(source_sha256="", count=60_768))
    tokens = costs.count(stages, chosen, 52, 48).tokens
    of_stages = costs.stage_hours(stages, tokens, one, 7.24e9, 7.11e9)
    found = makespans.make_schedule(stages, of_stages, one)
    kinds = costs.hours(of_stages)
    assert found.hours == pytest.approx(costs.total(kinds))
    assert ("log-ratios" in {need.step for need in kinds}) == bool(chosen.pairs.kl_weight)


def test_the_published_recipe_on_eight_gpus_by_hand() -> None:
    """One GPU measures; eight sample, score, compute the reference and train."""
    rate, flops, sequence = 12_500 * 8 / 7.24 * 3600, 4e14 * 3600, 52 + 529
    sampled = (3 * 20_000 * 8 + 4 * 256 * 3) * 529 / rate
    measured = 4 * 256 * sequence * 6 * 7.24e9 / flops
    scored = (3 * 20_000 * 8 + 4 * 256 * 3) * sequence * 2 * 7.11e9 / flops
    trained = 60_000 * 2 * sequence * (2 * 8 + 2) * 7.24e9 / flops
    found = published(load("8-gpu-zero3"))
    assert found.hours == pytest.approx(measured + (sampled + scored + trained) / 8)  # 0.02 + (5.1 + 9.1) / 8 = 1.8


@pytest.mark.parametrize(
    ("copies", "each", "nodes", "devices"), [(1, 4, 1, 8), (4, 4, 1, 16), (4, 4, 4, 32), (16, 1, 2, 16)]
)
def test_the_devices_that_sample_are_paid_where_they_are_more(copies: int, each: int, nodes: int, devices: int) -> None:
    """Of training each machine has eight."""
    vllm = Vllm(tensor_parallel=each)
    profile = priced("8-gpu-zero3", 2.5).model_copy(update={"replicas": copies, "vllm": vllm, "nodes": nodes})
    found = published(profile)
    assert found.devices == devices
    assert f"= {found.hours:.1f} h x {devices} devices x 2.5 an hour" in "\n".join(makespans.schedule_lines(found))


def test_one_process_that_trains_beside_an_engine_on_four_devices_by_hand() -> None:
    """5.14 / 4 hours of sampling and 9.1 of all else, on four devices."""
    profile = priced("one-80gb", 2.5).model_copy(update={"vllm": Vllm(tensor_parallel=4)})
    found = published(profile)
    alone = published(priced("one-80gb", 2.5))
    assert (alone.devices, found.devices) == (1, 4)
    assert found.hours == pytest.approx(5.14 / 4 + 9.1, abs=0.01)
    text = makespans.schedule_lines(found)
    assert "cost: 104 = 10.4 h x 4 devices x 2.5 an hour" in text
    assert "  a copy on 4 GPUs is taken to sample 4 times as fast as one GPU" in text
    assert any("/ 1 copies of the engine x 4 GPUs where it samples;" in line for line in text)


def test_machines_divide_training_and_not_the_sampling_of_one_engine() -> None:
    """5.14 hours of sampling on one GPU, 9.1 of all else on sixteen."""
    found = published(load("slurm").model_copy(update={"replicas": 1, "nodes": 2}))
    assert (found.devices, found.hours) == (16, pytest.approx(5.7, abs=0.05))


def test_eight_copies_of_the_engine_divide_the_sampling() -> None:
    found = published(load("slurm").model_copy(update={"nodes": 16}))
    assert found.hours == pytest.approx(5.14 / 8 + 9.1 / 128, abs=0.05)


def test_the_text_states_cost_and_formula() -> None:
    text = makespans.schedule_lines(published(priced("8-gpu-zero3", 2.0)))
    assert "cost: 29 = 1.8 h x 8 devices x 2 an hour" in text
    assert (
        "  hours of one device / processes for a stage that the processes divide; / 8 copies of the engine where it samples;"
        " / shards for one of its shards" in text
    )


MEASURED = {
    "base": 56.2, "reward/answers": 60.5, "reward/model": 84.3, "base/validation/answers": 23.7,
    "base/validation/scores": 1.3, "base/validation/measure": 15.2,
    "iteration-1/samples": 22.2, "iteration-1/rewards": 1.5, "iteration-1/reference": 6.4, "iteration-1/policy": 61.2,
    "iteration-1/validation/answers": 22.3, "iteration-1/validation/scores": 0.6, "iteration-1/validation/measure": 13.0,
    "iteration-2/samples": 25.8, "iteration-2/rewards": 1.3, "iteration-2/reference": 8.0, "iteration-2/policy": 76.0,
    "iteration-2/validation/answers": 23.7, "iteration-2/validation/scores": 0.6, "iteration-2/validation/measure": 12.7,
    "iteration-3/samples": 35.0, "iteration-3/rewards": 1.0, "iteration-3/reference": 5.4, "iteration-3/policy": 73.2,
    "iteration-3/validation/answers": 23.5, "iteration-3/validation/scores": 0.9, "iteration-3/validation/measure": 14.2,
}  # fmt: skip
"""Seconds of the stages of the recipe `stand-in` in one run on two CPU cores; what is left out took 1.3 seconds together."""
MEASURED_WALL = 671.8
"""From the begin of its first stage to the end of its last, in seconds."""


def stand_in() -> tuple[list[Stage], dict[str, Requirement]]:
    recipe, profile = recipes.load("stand-in", []), load("laptop")
    stages = pipeline.build(recipe).train
    tokens = costs.count(stages, recipe, 52, 48).tokens
    return stages, costs.stage_hours(stages, tokens, profile, 134_515_008, 22_713_728)


def test_measured_stages_add_up_to_the_measured_run() -> None:
    stages, _ = stand_in()
    planned = makespan(stages, {name: seconds / 3600 for name, seconds in MEASURED.items()}, load("laptop"))
    assert planned * 3600 == pytest.approx(MEASURED_WALL, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("sampling", 2.0), ("training", 1.25), ("scoring", 5.0), ("measuring", 2.0), ("reference", 4.0)],
)
def test_the_planned_hours_of_the_stand_in_recipe_against_a_measured_run(kind: str, factor: float) -> None:
    """Every response is taken to reach its limit, so the plan errs upwards; the small reward model is read fast."""
    stages, hours = stand_in()
    names = [each.name for each in stages if each.kind == kind]
    planned, measured = costs.total([hours[name] for name in names]) * 3600, sum(MEASURED[name] for name in names)
    assert measured / 1.25 <= planned <= measured * factor


def test_the_whole_stand_in_recipe_is_planned_within_a_factor_of_two() -> None:
    _, hours = stand_in()
    planned = costs.total(list(hours.values())) * 3600
    measured = sum(seconds for name, seconds in MEASURED.items() if name in hours)
    assert measured / 2 <= planned <= measured * 2
