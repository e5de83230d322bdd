"""Judges' files: what ships, what an override does, and that nobody calls a stand-in official."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gshf_release.errors import EngineError, RecipeError
from gshf_release.evaluation.judging import alpaca_eval, judges


def test_the_shipped_judges_can_be_read() -> None:
    found = {name: judges.load(name) for name in judges.names()}
    assert {name for name, settings in found.items() if settings.official} == {
        "weighted_alpaca_eval_gpt4_turbo",
        "mt_bench_gpt4_single",
        "mt_bench_gpt4_pair",
    }
    assert all(settings.name == name for name, settings in found.items())
    assert {settings.benchmark for settings in found.values()} == {"alpaca_eval_2", "mt_bench_single", "mt_bench_pair"}


def test_the_official_parameters_are_those_of_the_installed_package() -> None:
    settings = judges.load("weighted_alpaca_eval_gpt4_turbo")
    folder = alpaca_eval._package() / "evaluators_configs" / settings.annotator
    theirs = yaml.safe_load((folder / "configs.yaml").read_text())[settings.annotator]["completions_kwargs"]
    ours = settings.parameters
    assert theirs == {
        "model_name": settings.model,
        "max_tokens": ours.max_tokens,
        "temperature": ours.temperature,
        "logprobs": True,
        "top_logprobs": ours.top_logprobs,
    }


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'endpoint.adress'; did you mean 'endpoint.address'\?"):
        judges.load("mt_bench_gpt4_single", ("endpoint.adress=http://localhost/v1",))


def test_an_unknown_judge_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'mt_bench_gpt4_single'"):
        judges.load("mt_bench_gpt4_singel")


@pytest.mark.parametrize(
    "override", ["model=gpt-5", "parameters.temperature=0.5", "references=corrected", "parameters.seed=1"]
)
def test_an_official_judge_that_is_changed_is_not_official_any_more(override: str) -> None:
    settings = judges.load("mt_bench_gpt4_single", (override,))
    assert not settings.official
    corrected = "+corrected" if override == "references=corrected" else ""
    assert settings.identity == f"mt_bench_gpt4_single/{settings.model}{corrected}"


def test_another_address_price_or_patience_leaves_a_judge_official() -> None:
    settings = judges.load(
        "mt_bench_gpt4_single",
        ("endpoint.address=https://proxy/v1", "price.input=1", "endpoint.attempts=2", "model=gpt-4-0613"),
    )
    assert settings.official
    assert settings.identity == "mt_bench_gpt4_single"
    assert settings.endpoint.key_variable == "OPENAI_API_KEY"


def test_a_file_cannot_call_a_stand_in_official(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbenchmark: mt_bench_single\nofficial: true\nmodel: my-model\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="official: true cannot be with the model my-model"):
        judges.load(str(path))


def test_a_judge_without_model_or_address_says_what_to_set() -> None:
    with pytest.raises(EngineError, match=r"does not say which model is. Set model=NAME"):
        judges.load("openai-compatible-mt-bench-single").ready()
    with pytest.raises(EngineError, match="does not say where its model is"):
        judges.load("openai-compatible-mt-bench-single", ("model=m",)).ready()


def test_another_model_does_not_have_the_price_of_the_files() -> None:
    assert judges.load("mt_bench_gpt4_single").price.of(1e6, 1e6) == 90.0
    assert not judges.load("mt_bench_gpt4_single", ("model=other",)).price.known
    assert judges.load("mt_bench_gpt4_single", ("model=gpt-4", "endpoint.attempts=2")).price.known
    priced = judges.load("mt_bench_gpt4_single", ("model=other", "price.input=1", "price.output=2")).price
    assert (priced.of(1e6, 1e6), priced.batch) == (3.0, 1.0)


def test_what_judgments_depend_on_leaves_price_and_patience_out() -> None:
    base = judges.load("mt_bench_gpt4_single").protocol
    assert judges.load("mt_bench_gpt4_single", ("price.input=1", "endpoint.attempts=9")).protocol == base
    for override in ("endpoint.address=http://other/v1", "parameters.max_tokens=9", "references=corrected"):
        assert judges.load("mt_bench_gpt4_single", (override,)).protocol != base


def test_each_judge_names_the_benchmark_files_that_it_reads() -> None:
    assert judges.load("weighted_alpaca_eval_gpt4_turbo").files == ()
    single = judges.load("mt_bench_gpt4_single").files
    corrected = judges.load("openai-compatible-mt-bench-single").files
    assert [file.name for file in single] == ["mt_bench_judge_prompts.jsonl", "mt_bench_reference_gpt-4.jsonl"]
    assert corrected[1].name == "mt_bench_reference_gpt-4-0125-preview.jsonl"
