"""One adapter over all iterations: off it is the base, at zero it changes nothing, merged it is rounded once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gshf_release import loop
from gshf_release.diagnostics.validation import ValidationParameters, _trained
from gshf_release.errors import RecipeError
from gshf_release.models import lora
from gshf_release.models import stages as model_stages
from gshf_release.models.checkpoints import load_model
from gshf_release.models.logprobs import Tokens, completion_logps
from gshf_release.optimization import dpo, reference_logprobs
from gshf_release.recipe import Adapter, Recipe, parse
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.run.stage import Input, Stage, Task
from tests import tiny
from tests.optimization.plan import EXACT, Count, pairs, recipe

SMALL = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}
LAST = "iteration-2/policy"


def stages(chosen: Recipe) -> list[Stage]:
    """Return two iterations on the same hand-made pairs."""
    found = [model_stages.declare_base(chosen)]
    for number in (1, 2):
        source = f"iteration-{number}"
        found.append(
            Stage(
                f"{source}/pairs",
                "tests.optimization.plan:write_pairs",
                outputs=("pairs.parquet",),
                parameters=Count(count=6).as_json(),
            )
        )
        found.append(reference_logprobs.declare_reference_logprobs(source, "base", frozen=True))
        found.append(dpo.declare_dpo(number, init=loop.policy_stage(number - 1), sources=[source], adapter=True))
    return found


@pytest.fixture(scope="module")
def adapted(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two iterations of an adapter on the tiny FP32 base."""
    chosen = recipe(tiny_folder, adapter=SMALL, learning_rate=0.01)
    run = RunDirectory.create(tmp_path_factory.mktemp("adapter") / "run", chosen, EXACT)
    execute(stages(chosen), run, chosen, EXACT)
    return run


def open_policy(run: RunDirectory, policy: str) -> Any:
    return lora.load(load_model(run.path / "base" / "model", "fp32"), run.path / policy / "adapter").eval()


def logps(model: Any) -> list[float]:
    return completion_logps(model, [Tokens(pair.prompt_ids, pair.chosen_ids) for pair in pairs()], batch=2)


def test_the_first_loss_of_a_new_adapter_is_log_two(adapted: RunDirectory) -> None:
    steps = read_json(adapted.path / "iteration-1" / "policy" / "training.json")["steps"]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-6)
    assert steps[1]["loss"] < steps[0]["loss"]


def test_with_the_adapter_off_log_probabilities_are_the_base_s(adapted: RunDirectory) -> None:
    model, plain = open_policy(adapted, LAST), load_model(adapted.path / "base" / "model", "fp32")
    assert logps(model) != pytest.approx(logps(plain), abs=0.01), "on, it differs"
    with model.disable_adapter():
        assert logps(model) == logps(plain)


def test_the_second_iteration_goes_on_with_the_adapter_of_the_first(adapted: RunDirectory) -> None:
    """Its reference is still the base, so its first loss is where the first iteration ended, not log 2."""
    policy = dpo.declare_dpo(2, init="iteration-1/policy", sources=["iteration-2"], adapter=True)
    assert policy.inputs[:2] == (Input("base", "model"), Input("iteration-1/policy", "adapter"))
    assert Input("iteration-1/policy", "model") not in policy.inputs, "no merged weights are handed over"
    first, second = (read_json(adapted.path / f"iteration-{number}/policy/training.json")["steps"] for number in (1, 2))
    assert second[0]["loss"] < first[1]["loss"]
    assert not (adapted.path / LAST / "model" / "adapter_config.json").exists()


def test_the_merged_model_is_the_sum_rounded_once(adapted: RunDirectory) -> None:
    from safetensors.torch import load_file

    root = adapted.path
    merged = load_file(root / LAST / "model" / "model.safetensors")
    plain, adapter = (
        load_file(root / "base/model/model.safetensors"),
        load_file(root / LAST / "adapter/adapter_model.safetensors"),
    )
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert set(merged) == set(plain)
    for name, weight in plain.items():
        a, b = (adapter.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight") for side in "AB")
        expected = weight if a is None else weight + 8 / 4 * (b @ a)
        assert torch.equal(merged[name], expected.bfloat16()), name


def test_validation_compares_the_adapter_with_the_merged_model(adapted: RunDirectory) -> None:
    """KL(trained || merged BF16) is measured between these two."""
    chosen = adapted.recipe
    measure = next(stage for stage in loop.declare_loop(chosen) if stage.name == "iteration-2/validation/measure")
    assert Input(LAST, "adapter") in measure.inputs
    context = StageContext(adapted, chosen, EXACT, Task(measure))
    merged = load_model(adapted.path / LAST / "model", "rounded")
    trained, rounded = logps(_trained(context, measure.typed(ValidationParameters), "cpu")), logps(merged)
    assert trained == logps(open_policy(adapted, LAST))
    assert trained != rounded
    assert trained == pytest.approx(rounded, abs=0.2)


def test_an_adapter_leaves_no_path_behind(adapted: RunDirectory, tiny_folder: Path) -> None:
    for path in (adapted.path / LAST / "adapter").iterdir():
        assert str(adapted.path).encode() not in path.read_bytes()
    assert sorted(path.name for path in (adapted.path / LAST / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_new_adapter_is_drawn_from_its_seed(tiny_folder: Path) -> None:
    first, again, other = (
        lora.attach(tiny.model(), Adapter(rank=2), seed).state_dict() for seed in (1, 1, 2)
    )  # fmt: skip
    random = [name for name in first if "lora_A" in name]
    assert len(random) == 2 * 7
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in random)


def test_targets_that_the_base_does_not_have_are_one_line() -> None:
    with pytest.raises(RecipeError, match=r"targets \['no_such_layer'\] are no modules of the base"):
        lora.attach(tiny.model(), Adapter(targets=("no_such_layer",)), 0)


def test_another_reference_than_the_base_is_refused(tiny_folder: Path) -> None:
    content = tiny.recipe(tiny_folder, loop={"reference": "previous"}, training={"adapter": {}})
    with pytest.raises(RecipeError, match=r"adapter needs loop\.reference 'base', which is the model with the adapter"):
        parse(Recipe, content, "tiny")


def test_without_an_adapter_no_stage_knows_of_it(tiny_recipe: Recipe) -> None:
    for stage in loop.declare_loop(tiny_recipe):
        assert "training.adapter" not in stage.keys
        assert "adapter" not in stage.outputs
