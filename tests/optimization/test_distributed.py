"""How a batch and a policy's state are divided among processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gshf_release.errors import RecipeError, RunError
from gshf_release.optimization.distributed import arguments, check_sharding, deepspeed_config, split_batch
from gshf_release.recipe import Training
from gshf_release.recipe.profile import load


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 16))
def test_a_step_has_the_recipe_s_batch_whatever_the_number_of_processes(
    processes: int, micro_batch: int, accumulated: int
) -> None:
    batch = processes * micro_batch * accumulated
    found, times = split_batch(batch, micro_batch, processes)
    assert found * times * processes == batch


def test_a_micro_batch_wider_than_the_share_is_narrowed() -> None:
    assert split_batch(8, 4, 4) == (2, 1)
    assert split_batch(3, 4, 1) == (3, 1)


@pytest.mark.parametrize(
    ("batch", "micro_batch", "processes", "text"),
    [
        (128, 2, 3, "batch_pairs 128 is not a multiple of the profile's 3 training processes"),
        (12, 4, 2, "batch_pairs 12 is not a multiple of the profile's micro_batch_pairs 4 in each of 2 processes"),
        (3, 2, 1, "batch_pairs 3 is not a multiple of the profile's micro_batch_pairs 2[.]"),
    ],
)
def test_what_does_not_divide_is_refused(batch: int, micro_batch: int, processes: int, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        split_batch(batch, micro_batch, processes)


def test_one_process_needs_no_arguments() -> None:
    assert arguments("none", 1, bf16=True) == {}


@pytest.mark.parametrize(("sharding", "stage"), [("zero-2", 2), ("zero-3", 3)])
def test_deepspeed_keeps_fp32_weights_and_autocasts(sharding: str, stage: int) -> None:
    found = arguments(sharding, 8, bf16=True)
    assert found == {"bf16": False, "deepspeed": deepspeed_config(stage, bf16=True)}
    assert found["deepspeed"]["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert found["deepspeed"]["bf16"] == {"enabled": False}
    assert found["deepspeed"]["zero_optimization"]["stage"] == stage


def test_deepspeed_that_is_missing_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match="'8-gpu-zero3' shards with DeepSpeed, which is not installed"):
        check_sharding(Training(), load("8-gpu-zero3"))
    check_sharding(Training(), load("fsdp"))


@pytest.mark.parametrize("name", ["8-gpu-zero3", "fsdp"])
def test_the_weights_under_an_adapter_are_not_divided(name: str) -> None:
    training = Training(adapter={"rank": 4})  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"divides the weights \(.*\), which training\.adapter cannot"):
        check_sharding(training, load(name))
    check_sharding(training, load(name).model_copy(update={"sharding": "none"}))
