"""Judges: what a file in eval/judges says about a model that judges.

settings = judges.load("openai-compatible-mt-bench-single", ("model=my-model", "endpoint.address=http://localhost:8000/v1"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gshf_release.data import assets
from gshf_release.data.hashing import sha256_json
from gshf_release.errors import EngineError
from gshf_release.evaluation.alpaca_eval.annotations import LETTER_SHARE
from gshf_release.prompts.benchmark_files import (
    MT_BENCH_CORRECTED_REFERENCES,
    MT_BENCH_JUDGE_PROMPTS,
    MT_BENCH_REFERENCES,
    BenchmarkFile,
)
from gshf_release.recipe import Name, PositiveInt, Section, apply_override, parse, read_mapping
from gshf_release.recipe.profile import Server
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory

FOLDER = "eval/judges"
Benchmark = Literal["alpaca_eval_2", "mt_bench_single", "mt_bench_pair"]
Dollars = Annotated[float, Field(ge=0)]


class Parameters(Section):
    """Says how the judge is asked. All of it is part of a judgment's identity."""

    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """None (`null`) of this, `max_tokens`, `top_p` and `seed` is left out of the request: the server's own counts."""
    max_tokens: PositiveInt | None = 2048
    """The longest judgment, in tokens, thoughts included."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    top_logprobs: Annotated[int, Field(ge=1, le=20)] | None = None
    """Ask for the log-probabilities of so many alternatives; None asks for none."""
    seed: int | None = None
    """For servers that draw reproducibly; repeats count on from it."""
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the limit: OpenAI's reasoning models want the second."""
    system_role: bool = True
    """Whether the server takes a system turn. If not (Gemma, older Mistral), its text heads the user's turn."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the request that the server knows, for example `{"reasoning_effort": "low"}`."""

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is usual and came later: the identity of judgments made before shall stay what it is."""
        content: dict[str, Any] = dump(self)
        return {key: value for key, value in content.items() if key != "system_role" or value is not True}


class Price(Section):
    """US dollars per million tokens; None is unknown, 0 is free."""

    input: Dollars | None = None
    output: Dollars | None = None
    batch: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the Batch API takes, as a share of that."""

    @property
    def known(self) -> bool:
        """Return whether costs can be reckoned."""
        return self.input is not None and self.output is not None

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return US dollars; what is unknown counts as nothing."""
        return (prompt_tokens * (self.input or 0.0) + completion_tokens * (self.output or 0.0)) / 1e6


class JudgeSettings(Section):
    """One judge: a model, where it is, how it is asked and what that costs."""

    name: Name
    benchmark: Benchmark
    official: bool = False
    """Whether its numbers are those of the leaderboard. Only the leaderboard's own model, asked its way, may say so."""
    annotator: str = "weighted_alpaca_eval_gpt4_turbo"
    """AlpacaEval: whose prompt and weighting of log-probabilities is used, a name in alpaca-eval's evaluators_configs."""
    letter_share: Annotated[float, Field(gt=0, le=1)] = (
        LETTER_SHARE  # assumption: the letters are what the judge meant to say
    )
    """AlpacaEval: what both letters must hold of the first token's probability to be weighed; below it the text counts. An
    official judge is weighed whatever they hold, as the library does, and says so."""
    references: Literal["original", "corrected"] = "original"
    """MT-Bench: the reference answers of the published numbers, or those without their 13 mistakes."""
    model: str | None = None
    """What the server calls it."""
    endpoint: Server = Server()
    parameters: Parameters = Parameters()
    price: Price = Price()
    context: PositiveInt | None = None
    """Tokens that prompt and judgment may have together; a longer prompt counts as a failed judgment. None: not known."""
    expected_tokens: PositiveInt = 300
    """Tokens of an average judgment, for the estimate of the cost."""
    answer_attempts: PositiveInt = 3
    """How often an empty answer is asked for again before the judgment counts as failed."""
    failed_share: Annotated[float, Field(ge=0, lt=1)] = 0.02  # assumption: 16 of AlpacaEval's 805, 3 of MT-Bench's 160
    """The share of failed judgments above which the result is refused."""

    @model_validator(mode="after")
    def _official_is_the_leaderboards(self) -> Self:
        if self.official and (reason := _departure(self)):
            raise ValueError(f"official: true cannot be with {reason}; set official to false")
        return self

    @property
    def identity(self) -> str:
        """Return what results call the judge: the name alone for an official one; any other says its model and references."""
        if self.official:
            return self.name
        corrected = self.benchmark != "alpaca_eval_2" and self.references == "corrected"
        return f"{self.name}/{self.model}" + ("+corrected" if corrected else "")

    @property
    def protocol(self) -> dict[str, Any]:
        """Return everything that judgments depend on, and nothing else: price, patience and key are free to change."""
        kept = {"benchmark", "annotator", "letter_share", "references", "model", "parameters", "context"}
        return self.model_dump(mode="json", include=kept) | {"address": self.endpoint.address}

    @property
    def files(self) -> tuple[BenchmarkFile, ...]:
        """Return the benchmark data that this judge reads."""
        if self.benchmark == "alpaca_eval_2":
            return ()
        return (MT_BENCH_JUDGE_PROMPTS, reference_file(self.references))

    def ready(self) -> tuple[str, Server]:
        """Return the model and where it is.

        Raises:
            EngineError: One of them is not set.
        """
        if self.model is None or self.endpoint.address is None:
            raise EngineError(
                f"The judge {self.name} does not say {'which model' if self.model is None else 'where its model'} is.",
                hint="Set model=NAME and endpoint.address=http://HOST:PORT/v1, or write both into a copy of its file.",
            )
        return self.model, self.endpoint


OFFICIAL: dict[str, tuple[tuple[str, ...], Parameters]] = {
    "alpaca_eval_2": (("gpt-4-1106-preview",), Parameters(temperature=1.0, max_tokens=1, top_logprobs=5)),
    "mt_bench_single": (("gpt-4", "gpt-4-0613"), Parameters(temperature=0.0, max_tokens=2048)),
    "mt_bench_pair": (("gpt-4", "gpt-4-0613"), Parameters(temperature=0.0, max_tokens=2048)),
}
"""The leaderboards' models and parameters. MT-Bench's authors say that their `gpt-4` was gpt-4-0613 (FastChat's issue 2284)."""


def load(reference: str, overrides: Sequence[str] = (), run: RunDirectory | None = None) -> JudgeSettings:
    """Return the judge in a file or of a name in eval/judges, with `key=value` overrides applied.

    An official judge whose model, parameters or references are overridden is not official any more. Another model than the
    file's does not have the price in the file: it is unknown unless it is overridden too.

    Args:
        reference: The file or name.
        overrides: As `key=value`.
        run: A run whose copy serves where the file is gone.

    Raises:
        RecipeError: No such judge, unknown key (the nearest is named), or a value out of range.
    """
    path = source_path(reference, run)
    content = read_mapping(path)
    settings = parse(JudgeSettings, content, str(path))
    if not overrides:
        return settings
    if any(override.startswith("model=") and override != f"model={settings.model}" for override in overrides):
        content.pop("price", None)
    for override in overrides:
        apply_override(content, override)
    stand_in = parse(JudgeSettings, content | {"official": False}, str(path))
    return stand_in.model_copy(update={"official": settings.official and _departure(stand_in) is None})


def source_path(reference: str, run: RunDirectory | None) -> Path:
    """Return the file of a judge, or the run's copy of it where it is gone.

    Raises:
        RecipeError: There is neither.
    """
    return input_copies.find_input(
        run, input_key(reference), reference, lambda: assets.find(reference, FOLDER, ".yaml")
    )


def input_key(reference: str) -> str:
    """Return what the run's copy of a judge's file is called."""
    return f"judge.{sha256_json(reference)[:8]}"


def names() -> list[str]:
    """Return the names of the judges in eval/judges."""
    return assets.names(FOLDER, ".yaml")


def reference_file(references: str) -> BenchmarkFile:
    """Return the benchmark file of `original` or `corrected` references."""
    return MT_BENCH_REFERENCES if references == "original" else MT_BENCH_CORRECTED_REFERENCES


def _departure(settings: JudgeSettings) -> str | None:
    """Return in what a judge departs from the leaderboard's, or None."""
    models, parameters = OFFICIAL[settings.benchmark]
    if settings.model not in models:
        return f"the model {settings.model}"
    if settings.parameters != parameters:
        return "other parameters than the leaderboard's"
    if settings.benchmark == "alpaca_eval_2":
        return (
            None if settings.annotator == "weighted_alpaca_eval_gpt4_turbo" else f"the annotator {settings.annotator}"
        )
    return None if settings.references == "original" else "corrected references"
