"""Estimates by hand."""

from __future__ import annotations

import pytest

from gshf_release import pipeline
from gshf_release import recipe as recipes
from gshf_release.models.size import ModelSize
from gshf_release.planning import costs
from gshf_release.planning.costs import Requirement
from gshf_release.prompts.split import PoolParameters, PromptFileParameters
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Hardware, Profile, Vllm
from gshf_release.run.stage import Stage

GEOMETRY = ModelSize(1_000_000, layers=2, width=10, key_values=4, vocabulary=100)
POOL = PoolParameters(source_sha256="", count=60_768)
FAST = Profile(hardware=Hardware(tokens_per_second=100, at_parameters=2e6, flops=1e9))


def recipe(*overrides: str) -> Recipe:
    return recipes.load("fsfairx-zephyr-7b", overrides)


def counted(chosen: Recipe, prompt: int = 52, response: int = 529) -> costs.Work:
    return costs.count(pipeline.training(chosen, None, POOL), chosen, prompt, response)


def by_step(needs: list[Requirement]) -> dict[str, float | None]:
    return {need.step: need.amount for need in needs}


def test_the_published_sizes_by_hand() -> None:
    work = counted(recipe())
    assert (work.iterations, work.prompts, work.pairs) == (3, 60_768, 60_000)
    assert work.responses == 3 * 20_000 * 8 + 4 * 256 * 3
    assert work.sampled_tokens == 483_072 * 529
    assert work.sampled_tokens_at_most == 483_072 * 2048
    assert work.trained_tokens == 2 * 60_000 * 2 * (52 + 529)
    assert work.tokens["iteration-1/rewards"] == 20_000 * 8 * (52 + 529)
    assert work.tokens["iteration-1/reference"] == 20_000 * 2 * (52 + 529)
    assert work.tokens["base/validation/measure"] == 256 * (52 + 529)


def test_training_on_all_pairs_counts_early_ones_again() -> None:
    all_pairs = counted(recipe("loop.history=all"))
    assert all_pairs.trained_tokens == counted(recipe()).trained_tokens * (1 + 2 + 3) / 3
    assert all_pairs.pairs == 60_000


def test_pairs_from_elsewhere_are_trained_on_too() -> None:
    chosen = recipe("pairs.source=hybrid", "pairs.offline=given.jsonl")
    given = PromptFileParameters(source_sha256="", count=500)
    stages = pipeline.training(chosen, given, POOL)
    work = costs.count(stages, chosen, 52, 529)
    assert work.pairs == 60_500
    assert work.trained_tokens == 2 * (60_000 + 3 * 500) * 2 * (52 + 529)
    of_stages = costs.stage_hours(stages, work.tokens, FAST, 1e6, 1e6)
    assert of_stages["offline/reference"].amount == pytest.approx(2 * 1e6 * 500 * 2 * (52 + 529) / 1e9 / 3600)


def test_raft_trains_on_one_response_a_prompt_and_needs_no_reference() -> None:
    work = counted(recipe("loop.algorithm=raft"))
    assert work.trained_tokens == counted(recipe()).trained_tokens / 2
    assert not any(name.endswith("/reference") for name in work.tokens)


def test_no_response_is_longer_than_its_limit() -> None:
    assert counted(recipe("sampling.max_new_tokens=100")).sampled_tokens == 483_072 * 100


TOKENS = {
    "sampling": 720_000, "scoring": 3.6e6, "log-ratios": 0.9e6, "reference": 1.8e6, "training": 6e5, "measuring": 0.6e6,
    "reward training": 1.2e6,
}  # fmt: skip


def hours(profile: Profile, parameters: float | None, reward_parameters: float | None) -> dict[str, float | None]:
    """Return the hours of two stages of each kind, which share its tokens, beside others of no kind."""
    stages = [Stage(f"{half}/{kind}", "m:w", kind=kind) for half in "ab" for kind in (*TOKENS, "other")]
    tokens = {f"{half}/{kind}": count / 2 for half in "ab" for kind, count in TOKENS.items()}
    return by_step(costs.hours(costs.stage_hours(stages, tokens, profile, parameters, reward_parameters)))


def test_hours_by_hand() -> None:
    """200 tokens a second at half the size; then 2, 4, 2, 6, 3 x 2 and 6 operations per parameter and token at 1e9 a second."""
    assert hours(FAST, 1e6, 2e6) == pytest.approx(
        {
            "sampling": 1,
            "scoring": 4,
            "log-ratios": 1,
            "reference": 1,
            "training": 1,
            "measuring": 1,
            "reward training": 4,
        }
    )


def test_activation_checkpointing_costs_a_forward_pass() -> None:
    again = FAST.model_copy(update={"activation_checkpointing": True})
    assert hours(again, 1e6, None)["training"] == pytest.approx(8 / 6)
    assert hours(again, 1e6, None)["scoring"] is None


def test_log_ratios_read_every_response_under_two_models() -> None:
    chosen = recipe("pairs.kl_weight=0.1")
    stages, work = pipeline.training(chosen, None, POOL), counted(chosen)
    found = by_step(costs.hours(costs.stage_hours(stages, work.tokens, FAST, 1e6, 1e6)))
    assert found["log-ratios"] == pytest.approx(3 * 20_000 * 8 * (52 + 529) * 2 * 2 * 1e6 / 1e9 / 3600)


def test_training_memory_by_hand() -> None:
    chosen = recipe("sampling.max_new_tokens=48", "training.precision=fp32")
    found = by_step(costs.training_memory(chosen, Profile(micro_batch_pairs=1), GEOMETRY, 1e6, 52))
    assert found["training: weights, gradients and AdamW's moments"] == pytest.approx(0.016)
    # 200 tokens in a micro-batch of one pair; 34 bytes, twice for FP32, per token and width in 2 layers; 3 tables of logits.
    assert found["training: activations"] == pytest.approx((2 * 68 * 200 * 10 + 3 * 4 * 200 * 100) / 1e9)
    half = by_step(costs.training_memory(recipe("sampling.max_new_tokens=48"), Profile(), GEOMETRY, 1e6, 52))
    assert half["training: BF16 copies"] == pytest.approx(0.002)


def test_checkpointed_activations_are_one_layer_and_the_inputs_of_all() -> None:
    chosen = recipe("sampling.max_new_tokens=48")
    profile = Profile(micro_batch_pairs=1, activation_checkpointing=True)
    found = by_step(costs.training_memory(chosen, profile, GEOMETRY, 1e6, 52))
    assert found["training: activations"] == pytest.approx((2 * 200 * 10 * 2 + 34 * 200 * 10 + 3 * 4 * 200 * 100) / 1e9)


def test_inference_memory_by_hand() -> None:
    chosen = recipe("sampling.max_new_tokens=48")
    profile = Profile(sampling_batch=8, scoring_batch=2, concurrent_batches=2)
    on_gpu = by_step(costs.inference_memory(chosen, profile, GEOMETRY, 1e6, 2e6, "cuda", 52))
    assert on_gpu["sampling: weights"] == pytest.approx(0.002)
    assert on_gpu["sampling: key-value cache"] == pytest.approx(
        2 * 2 * 2 * 4 * 8 * 200 / 1e9
    )  # 2 bytes, keys and values
    assert on_gpu["measuring: weights of three models"] == pytest.approx(0.008)
    assert on_gpu["measuring: logits"] == pytest.approx(6 * 4 * 100 * 2 * 200 / 1e9)
    assert on_gpu["scoring: weights"] == pytest.approx(0.004)
    on_cpu = by_step(costs.inference_memory(chosen, profile, GEOMETRY, 1e6, 2e6, "cpu", 52))
    assert on_cpu["measuring: weights of three models"] == pytest.approx(0.012)


def test_a_bound_in_tokens_bounds_the_cache_of_every_batch() -> None:
    chosen = recipe("sampling.max_new_tokens=48")
    profile = Profile(sampling_batch=8, concurrent_batches=2, sampling_tokens=300)
    found = by_step(costs.inference_memory(chosen, profile, GEOMETRY, 1e6, 2e6, "cuda", 52))
    assert found["sampling: key-value cache"] == pytest.approx(2 * 2 * 2 * 4 * 2 * 300 / 1e9)


def test_vllm_keeps_what_it_is_given() -> None:
    profile = Profile(engine="vllm", vllm={"memory_share": 0.5, "cpu_cache_gb": 2})  # type: ignore[arg-type]
    on_gpu = by_step(costs.inference_memory(recipe(), profile, GEOMETRY, 1e9, 2e6, "cuda", 52, 80))
    assert on_gpu["sampling: key-value cache"] == pytest.approx(0.5 * 80 - 2)
    unknown = by_step(costs.inference_memory(recipe(), profile, GEOMETRY, 1e9, 2e6, "cuda", 52))
    assert unknown["sampling: key-value cache"] is None
    on_cpu = by_step(costs.inference_memory(recipe(), profile, GEOMETRY, 1e9, 2e6, "cpu", 52, 80))
    assert on_cpu["sampling: key-value cache"] == pytest.approx(2 * 2**30 / 1e9)


def test_a_copy_on_several_devices_divides_the_weights() -> None:
    profile = Profile(engine="vllm", vllm=Vllm(tensor_parallel=4, memory_share=0.5))
    found = by_step(costs.inference_memory(recipe(), profile, GEOMETRY, 1e9, 2e6, "cuda", 52, 80))
    assert found["sampling: weights"] == pytest.approx(0.5)
    assert found["sampling: key-value cache"] == pytest.approx(0.5 * 80 - 0.5)


def test_disk_by_hand() -> None:
    work = costs.Work(3, 10, 1000, 1e6, 0, 5, 0, {})
    found = by_step(costs.disk(recipe(), work, GEOMETRY, 1e9, 2e9, 50))
    assert found == pytest.approx(
        {"base": 2, "reward model": 4, "policies": 12, "checkpoints": 36, "responses": (8.3e6 + 2e5) / 1e9}
    )


@pytest.mark.parametrize(("sharding", "written"), [("fsdp", 12), ("zero-3", 12), ("zero-2", 16)])
def test_a_checkpoint_takes_what_its_sharding_writes(sharding: str, written: int) -> None:
    work = costs.Work(3, 10, 1000, 1e6, 0, 5, 0, {})
    assert by_step(costs.disk(recipe(), work, GEOMETRY, 1e9, 2e9, 50, sharding))["checkpoints"] == 3 * written


def test_disk_of_an_adapter_by_hand() -> None:
    """BF16 policies; checkpoints of 64 x 2 layers x 7 matrices x 3.5 x 10 numbers."""
    work = costs.Work(3, 10, 1000, 1e6, 0, 5, 0, {})
    found = by_step(costs.disk(recipe("training.adapter.rank=64"), work, GEOMETRY, 1e9, 2e9, 50))
    assert found["policies"] == pytest.approx(6)
    assert found["checkpoints"] == pytest.approx(3 * 12 * 64 * 2 * 7 * 3.5 * 10 / 1e9)


def test_what_is_unknown_stays_unknown() -> None:
    assert by_step(costs.training_memory(recipe(), Profile(), ModelSize(None), None, 52)) == {
        "training: weights, gradients and AdamW's moments": None,
        "training: BF16 copies": None,
        "training: activations": None,
    }


NEEDS = [Requirement("training: states", 20.0, ""), Requirement("training: activations", 9.0, "", certain=False)]


@pytest.mark.parametrize(("available", "refused"), [(19.9, True), (20.0, False), (None, False)])
def test_only_what_is_certain_refuses(available: float | None, refused: bool) -> None:
    assert (costs.refusal(NEEDS, available, 1e9, "p") is not None) is refused


def test_a_peak_is_everything_a_step_needs_at_once() -> None:
    assert costs.peaks([*NEEDS, Requirement("sampling: weights", None, "")]) == {"training": 29.0, "sampling": 0.0}
