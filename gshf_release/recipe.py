"""The recipe: *what* a run does. A frozen, fully checked model of the YAML file a user writes.

Every key is read by the code; an unknown key is an error that names the nearest valid one. Defaults come from section 3.3 of
arXiv 2405.07863 unless a comment says otherwise; `# assumption` marks what no source states.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

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


class Filters(Section):
    """Rules that drop a written prompt; each is counted by its name and can be switched off."""

    minimum_words: Annotated[int, Field(ge=0)] = 3
    """`too short`: fewer words; 0 switches the rule off. Self-instruct drops prompts of three words too."""
    maximum_words: Annotated[int, Field(ge=0)] = 150
    """`too long`: more words; 0 switches the rule off."""
    blacklist: tuple[str, ...] = (
        *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"),
        *("draw", "plot", "go to"),
    )
    """`blacklisted word`: words and phrases that mostly ask for what a text model cannot do (self-instruct's list). It drops
    good prompts too, such as one about the plot of a novel; an empty list switches the rule off."""
    leading_punctuation: bool = True
    """`leading punctuation`: begins with an ASCII punctuation mark."""
    leading_non_ascii: bool = False
    """`leading non-ASCII`: begins with a character outside ASCII. Self-instruct drops these, and other languages with them."""
    program_writing: bool = True
    """`program writing`: begins with 'Write a program' or the like, which models tend to put before any task."""
    cut_ending: bool = True
    """`cut ending`: ends in a comma, colon, dash, opening bracket, dots, or in 'and', 'or', 'but' or an article."""


class Writer(Section):
    """Who writes the AI prompts."""

    model: str = "base"
    """`base` (the run's base model), another model as in `base.model`, or `served:NAME`, a model of the profile's server."""
    revision: str | None = None
    sha256: str | None = None


class Augmentation(Section):
    """AI prompts of the self-instruct type (arXiv 2212.10560), which `gshf-release prompts` writes."""

    target: PositiveInt = 60_000
    """Prompts wanted; as many as the model card of FsfairX-Zephyr-Chat-v0.1 says were used."""
    seeds: str = "seed"
    """A JSONL file of prompts, or a name in training/prompts: what the writer is shown."""
    writer: Writer = Writer()
    shown_seeds: PositiveInt = 6
    """Seeds shown in one request."""
    shown_generated: Annotated[int, Field(ge=0)] = 2
    """Written prompts shown in one request, once there are some; until then more seeds take their place."""
    asked: PositiveInt = (
        12  # assumption: self-instruct stops its completion model after about eight, Alpaca asks for 17
    )
    """New prompts asked for in one request."""
    temperature: Annotated[float, Field(gt=0)] = 1.0  # Alpaca's; self-instruct has 0.7 with a presence penalty of 2
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: PositiveInt = 1024
    requests_per_round: PositiveInt = 32
    """Requests that see the same state of the pool; the unit of resumption."""
    maximum_requests: PositiveInt = 20_000
    """Where to stop if the target is not reached."""
    filters: Filters = Filters()
    similarity: Share = 0.7
    """A prompt is dropped if its ROUGE-L F with a seed, an earlier or an excluded prompt exceeds this."""
    decontaminate: tuple[Literal["alpaca-eval", "mt-bench"], ...] = ("alpaca-eval", "mt-bench")
    """Benchmarks whose prompts, and near-copies of them, are removed."""
    license: str | None = None
    """The Hub's identifier of the licence of the written prompts, for the card of the data set."""


class Prompts(Section):
    """Where prompts come from and how they are divided."""

    source: str = "seed"
    """Rows of `{"prompt": ...}` or `{"messages": [...]}`: a JSONL, JSON or Parquet file, a data set's folder, or a name in
    training/prompts."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """A bad row stops the run with its file and line, or is skipped and counted."""
    system: str | None = None
    """A system turn put before every conversation that has none, in training and evaluation alike."""
    empty_system: bool = False
    """Put an empty system turn before a conversation that has none: some supervised models were trained with one."""
    bos: Literal["template", "always", "never"] = "template"
    """Whether a prompt begins with the tokenizer's BOS: as its chat template says, exactly once, or not at all. One that begins
    every turn, as `<|im_start|>` does in some models, belongs to the first turn and always stays."""
    control_tokens: Literal["text", "template"] = "text"
    """What the tokenizer's special tokens are inside somebody's message: plain text, or the special tokens themselves, as
    transformers renders them. Reward models read them as text in either case."""
    exclude: tuple[str, ...] = ()
    """Earlier runs (their directories) or JSONL files: prompts used there are not used again."""
    roles: Roles = Roles()
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _one_system_turn(self) -> Self:
        if self.system is not None and self.empty_system:
            raise ValueError("system and empty_system exclude each other")
        return self


class Keep(Section):
    """Which iterations' large files stay. `gshf-release prune` removes the others; no result depends on them."""

    weights: Literal["all", "final"] = "all"
    """FP32 weights."""
    optimiser: Literal["none", "final", "all"] = "none"
    """States of the optimiser at the end of an iteration."""


class Loop(Section):
    """Algorithm 2 of arXiv 2405.07863, with the choices its implementations disagree about made explicit."""

    algorithm: Literal["gshf", "raft"] = "gshf"
    """`gshf`: DPO on pairs. `raft`: a supervised step on the best response to each prompt (arXiv 2304.06767); it reads no key
    about pairs and their loss, and those that a recipe sets are named when the run begins."""
    iterations: PositiveInt = 3
    init: Literal["previous", "base"] = "previous"
    """Where each optimisation starts: pi_(t-1) as in the authors' public runs, or pi_0 as Algorithm 2 says."""
    reference: str = "base"
    """The policy that DPO stays near: `base` (pi_0, as cited), `previous` (pi_(t-1)), or any checkpoint: a folder or Hub id."""
    reference_revision: str | None = None
    """Branch, tag or commit of a `reference` on the Hub."""
    history: Literal["current", "all"] = "current"
    """Train on the pairs of this iteration, or of all so far as Algorithm 2 says."""
    final: Literal["last", "validation"] = "last"
    """Which iteration is the release: the last, or the one with the highest validation reward within the budgets below."""
    kl_budget: Annotated[float, Field(gt=0)] | None = None
    """For `validation`: nats per response that the released policy may be from the base."""
    length_budget: Annotated[float, Field(gt=0)] | None = None
    """For `validation`: how many times as long as the base's its answers may be."""
    keep: Keep = Keep()

    @model_validator(mode="after")
    def _revision_is_of_a_checkpoint(self) -> Self:
        if self.reference_revision is not None and self.reference in ("base", "previous"):
            raise ValueError("reference_revision belongs to a reference on the Hub; the base has base.revision")
        return self

    @model_validator(mode="after")
    def _reference_is_computed_once(self) -> Self:
        if self.reference == "previous" and self.history == "all":
            raise ValueError("reference 'previous' needs history 'current': older pairs know only their own reference")
        return self

    @model_validator(mode="after")
    def _budgets_are_read(self) -> Self:
        if self.final == "last" and (self.kl_budget, self.length_budget) != (None, None):
            raise ValueError("kl_budget and length_budget need final 'validation'")
        if self.final == "validation" and self.kl_budget is None and self.length_budget is None:
            raise ValueError(
                "final 'validation' needs kl_budget or length_budget: reward alone rewards leaving the base"
            )
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
    revision: str | None = None
    """Branch, tag or commit for a Hub id."""
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

    @model_serializer(mode="wrap")
    def _without_an_unset_revision(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the key out where it says nothing: fingerprints of runs that are older than the key hold."""
        document: dict[str, Any] = dump(self)
        if self.revision is None:
            document.pop("revision", None)
        return document

    @model_validator(mode="after")
    def _revision_is_of_another_base(self) -> Self:
        if self.revision is not None and self.base == "base":
            raise ValueError("revision belongs to a base of its own; the run's base has base.revision")
        return self


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

    source: Literal["online", "hybrid", "offline"] = "online"
    """The policy's own responses; those and `offline` (D_off of the cited algorithm); or `offline` alone, in one iteration."""
    offline: str | None = None
    """A file (JSONL, JSON, Parquet) or data set's folder with rows of `prompt`, `chosen` and `rejected`."""
    choice: Literal["best-vs-worst", "best-vs-random", "first-vs-random", "rejection-sampling"] = "best-vs-worst"
    etas: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """The falling temperatures of `rejection-sampling`, in units of the reward; the last is the target's."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Subtracted from the reward per unit of length before the choice."""
    length_unit: Literal["characters", "tokens"] = "characters"
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Subtracted from the reward per nat of log pi_(t-1) - log pi_0 before the choice (arXiv 2304.06767)."""
    minimum_margin: Annotated[float, Field(ge=0)] = 0.0
    """A pair is dropped unless what it was chosen by differs by more than this."""
    cut: Literal["keep", "drop", "lose"] = "keep"
    """What becomes of a response cut by max_new_tokens, which has no EOS: `keep` ranks it by its reward like any other, `drop`
    leaves it out of the choice, `lose` ranks it below every response that ended, so that it may be rejected but not chosen."""
    max_tokens: PositiveInt = 4096
    """Pairs whose prompt plus completion is longer on either side are dropped whole, never truncated."""

    @model_validator(mode="after")
    def _offline_pairs_are_given(self) -> Self:
        if (self.source == "online") != (self.offline is None):
            raise ValueError("source 'hybrid' or 'offline' and a file under offline need each other")
        return self

    @model_validator(mode="after")
    def _etas_fall(self) -> Self:
        if (self.choice == "rejection-sampling") != bool(self.etas):
            raise ValueError("choice 'rejection-sampling' and etas need each other")
        if any(later >= earlier for earlier, later in itertools.pairwise(self.etas)):
            raise ValueError("etas must fall")
        return self


class Adapter(Section):
    """A low-rank adapter (LoRA, arXiv 2106.09685) that is trained in place of all weights: one over all iterations.

    There is no dropout: the first loss would not be that of policy = reference.
    """

    rank: PositiveInt = 64  # assumption: no source of the loop trains an adapter
    alpha: Annotated[float, Field(gt=0)] = 64.0  # assumption; the update is scaled by alpha / rank
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    """Names of the linear layers it is added to; every one of a Llama or Mistral by default."""

    @model_validator(mode="after")
    def _embeddings_stay(self) -> Self:
        if {"lm_head", "embed_tokens"} & set(self.targets):
            raise ValueError("targets may not name lm_head or embed_tokens, which many models share with each other")
        return self


class Training(Section):
    """Direct preference optimisation of one iteration."""

    loss: Literal["sigmoid", "smoothed", "robust", "ipo"] = "sigmoid"
    """`sigmoid`: DPO (arXiv 2305.18290, equation 7). `smoothed`: conservative DPO, for labels wrong with probability
    `label_smoothing`. `robust`: its unbiased correction (arXiv 2403.00409). `ipo`: arXiv 2310.12036, equation 17."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """For `smoothed` and `robust` alone."""
    uncertainty_weight: Annotated[float, Field(ge=0)] = 0.0
    """Adds this times (deviation of the chosen - deviation of the rejected reward) to the argument of the sigmoid, so that what
    an ensemble of reward models disagrees about is learned less (arXiv 2312.11456, Option II, known from summaries)."""
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
    """Arithmetic of the forward and backward pass; the weights that are trained are FP32 in both cases."""
    adapter: Adapter | None = None
    """Train an adapter on the frozen base, which then is the reference; None trains all weights."""
    checkpoint_every: PositiveInt = 50
    """Optimiser steps between two checkpoints: what a killed optimisation may lose."""

    @model_validator(mode="after")
    def _uncertainty_enters_a_sigmoid(self) -> Self:
        if self.uncertainty_weight and self.loss == "ipo":
            raise ValueError("uncertainty_weight needs a loss of a sigmoid, which 'ipo' is not")
        return self

    @model_validator(mode="after")
    def _smoothing_has_an_effect(self) -> Self:
        smooths = self.loss in ("smoothed", "robust")
        if smooths != (self.label_smoothing > 0):
            raise ValueError("label_smoothing above 0 and the losses 'smoothed' and 'robust' need each other")
        return self


class SecondScorer(ScoreSource):
    """A scorer that training never sees: other features, other prompts. It judges what the loop has learned."""


class Evaluation(Section):
    """What is measured after every iteration and at the end."""

    prompts: str | None = "quickstart"
    """A JSONL file of evaluation prompts, or a name in eval/prompts; None evaluates on the test role alone."""
    max_new_tokens: PositiveInt = 2048
    control_temperature: Annotated[float, Field(gt=0, lt=0.7)] = 0.3
    """The base is also decoded at this temperature: a gain that it reaches too is mere sharpening."""
    best_of: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Compare with the best of n of the base's own answers to the test prompts, chosen by the training reward; every policy
    then also answers at temperature 1."""
    second_scorer: SecondScorer = SecondScorer()
    benchmarks: tuple[str, ...] = ()
    """Names in eval/benchmarks, or files: what `gshf-release eval` asks of every policy beside the above."""
    only: bool = False
    """No training and no scorers: the run only evaluates `base` on benchmarks, as `gshf-release eval MODEL` does."""


class Plan(Section):
    """Facts for `train --plan` that cannot be read from files here. No stage reads them."""

    parameters: Annotated[float, Field(gt=0)] | None = None
    """Of the base, where it is not here to be counted."""
    reward_parameters: Annotated[float, Field(gt=0)] | None = None
    """Of the reward model."""
    response_tokens: PositiveInt | None = None
    """Mean length to expect of a response; None expects every one to reach the limit."""
    prompt_tokens: PositiveInt | None = None
    """Mean length of a prompt in tokens; None reckons with 4.3 characters a token."""


class AllowedFinding(Section):
    """Something the secret scan takes for a secret, a path or an address, and which is none; the manifest shows it."""

    text: Annotated[str, Field(min_length=1)]
    """The text found, or a shell pattern for it."""
    reason: Annotated[str, Field(min_length=1)]


class Release(Section):
    """What the published repositories are called and what their card says about licences."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] | None = None
    """`OWNER/NAME`; `publish --to` overrides it. None names the folder after the run."""
    facts: str | None = None
    """A YAML file of facts for the card, or a name in model_cards; None uses what the run knows."""
    gguf: tuple[Literal["Q8_0", "BF16", "F16", "Q6_K", "Q5_K_M", "Q4_K_M"], ...] = ("Q8_0",)
    """Encodings of the GGUF files; with a K-quant (the last three), llama.cpp makes and measures (`setup llama-cpp`)."""
    compressed: tuple[Literal["fp8", "gptq:W4A16"], ...] = ()
    """Repositories in the compressed-tensors format, made by llm-compressor (`setup quant`)."""
    datasets: tuple[Literal["preferences", "judgments"], ...] = ()
    """Data sets to publish beside the weights: the pairs that it was trained on, and how its answers were judged."""
    allowed_findings: tuple[AllowedFinding, ...] = ()
    """False positives of the secret scan, each with its reason."""
    template_change: Annotated[str, Field(min_length=1)] | None = None
    """Why the chat template differs from the base model's; without it a difference is refused."""


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
    plan: Plan = Plan()
    release: Release = Release()

    @model_validator(mode="after")
    def _offline_pairs_are_trained_on(self) -> Self:
        if self.pairs.source == "offline" and self.loop.iterations != 1:
            raise ValueError("pairs.source 'offline' has the same pairs in every iteration: set loop.iterations to 1")
        if self.pairs.source != "online" and self.loop.algorithm != "gshf":
            raise ValueError("offline pairs need loop.algorithm 'gshf'")
        if self.pairs.source != "online" and self.loop.reference == "previous":
            raise ValueError("offline pairs need a fixed loop.reference")
        return self

    @model_validator(mode="after")
    def _reference_is_without_the_adapter(self) -> Self:
        if self.training.adapter is not None and self.loop.reference != "base":
            raise ValueError("training.adapter needs loop.reference 'base', which is the model with the adapter off")
        return self

    @model_validator(mode="after")
    def _uncertainty_comes_from_an_ensemble(self) -> Self:
        if self.training.uncertainty_weight and (not self.reward.models or self.pairs.source != "online"):
            raise ValueError("training.uncertainty_weight needs reward.models and the policy's own pairs alone")
        return self

    @model_validator(mode="after")
    def _stand_ins_have_prompts(self) -> Self:
        if self.evaluation.only:
            return self
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
        apply_override(content, override)
    return parse(Recipe, content, str(path))


def parse(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Return `content` as `model`; every mistake becomes one line that names the key and the way out."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(_explain(error, model))}.") from error


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one dotted `key=value`; the value is read as YAML.

    Raises:
        RecipeError: It is not of that form, or goes through a key that holds a value.
    """
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
