"""Estimates of what a run takes, from counts and formulas alone: tokens, hours, memory per device, disk.

Every number carries its formula. They are meant to be right within a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gshf_release.models.size import ModelSize
from gshf_release.optimization.policy import PolicyParameters
from gshf_release.optimization.reference_logprobs import ReferenceParameters
from gshf_release.preference.ranking import LogRatioParameters
from gshf_release.prompts.split import ROLE_IDENTITY, PromptFileParameters, RoleParameters
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile
from gshf_release.rewards.settings import settings
from gshf_release.rewards.stages import ScorerParameters, ScoringParameters
from gshf_release.run.stage import Kind, Stage
from gshf_release.sampling.stage import SamplingParameters

TRAINING_BYTES = 16
"""Per parameter: FP32 weights and gradients, and AdamW's two FP32 moments."""
CHECKPOINT_BYTES = {"none": 12, "fsdp": 12, "zero-2": 16, "zero-3": 12}
"""Per parameter: FP32 weights and AdamW's moments; ZeRO-2 writes the weights twice, as the model's and as the optimiser's."""
CHECKPOINTS = 3
"""Two are kept while a third is written."""
LAYER_BYTES = 34
"""Per token and unit of width: activations of a layer in 16 bits (arXiv 2205.05198, section 4.1, without the 5as/h of attention
scores, which are never stored here)."""
ADAPTER_WIDTHS = 3.5
"""Inputs and outputs of a linear layer in units of the model's width, on average over a Llama's seven."""
ADAPTER_FORMULA = f"rank x layers x targets x {ADAPTER_WIDTHS} x width"
LOGIT_TABLES, MEASURE_TABLES = 3, 6
"""Copies of the FP32 logits: in training logits, log-probabilities and gradient; in measuring two for each of three models."""
CACHE = "sampling: key-value cache"
RESPONSE_BYTES = 8.3
"""Per token on disk: a 4-byte id and 4.3 characters, before compression."""
ESTIMATED: tuple[Kind, ...] = (
    *("sampling", "scoring", "log-ratios", "reference", "training", "measuring"),
    "reward training",
)
"""The kinds of stages of which hours are estimated; the rest of a training run only reads and writes files."""


@dataclass(frozen=True, slots=True)
class Work:
    """Counts of a whole run; tokens are those to expect, `at_most` if every response reaches the limit."""

    iterations: int
    prompts: int
    responses: int
    sampled_tokens: float
    sampled_tokens_at_most: float
    pairs: int
    trained_tokens: float
    """Over all epochs, both sides of every pair."""
    tokens: Mapping[str, float]
    """What each stage of an estimated kind samples or computes over."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something a step needs, in 1e9 bytes or hours; None if it cannot be known here."""

    step: str
    amount: float | None
    formula: str
    certain: bool = True
    """False where it depends on lengths or on the libraries: such a need alone refuses nothing."""


def count(stages: Sequence[Stage], recipe: Recipe, prompt_tokens: float, response_tokens: float) -> Work:
    """Return the counts of declared stages: what they say they sample, score and train on.

    Args:
        stages: The training graph.
        recipe: For the epochs.
        prompt_tokens: Mean tokens of a prompt.
        response_tokens: Mean tokens of a response; each stage's own limit is respected.
    """
    by_name = {stage.name: stage for stage in stages}
    tokens = _tokens(by_name, recipe, prompt_tokens, response_tokens)
    sampling = [stage for stage in stages if stage.kind == "sampling"]
    training = [stage for stage in stages if stage.kind == "training"]
    return Work(
        iterations=recipe.loop.iterations,
        prompts=sum(_asked(stage) for stage in stages if stage.identity == ROLE_IDENTITY),
        responses=sum(_responses(stage, by_name) for stage in sampling),
        sampled_tokens=sum(tokens[stage.name] for stage in sampling),
        sampled_tokens_at_most=sum(_sampled(stage, by_name, math.inf) for stage in sampling),
        pairs=_pairs({source for stage in training for source in stage.typed(PolicyParameters).sources}, by_name),
        trained_tokens=sum(tokens[stage.name] for stage in training),
        tokens=tokens,
    )


def _tokens(
    by_name: Mapping[str, Stage], recipe: Recipe, prompt_tokens: float, response_tokens: float
) -> dict[str, float]:
    """Return the tokens that each stage samples or computes over."""
    sequence = prompt_tokens + response_tokens
    pair = (1 if recipe.loop.algorithm == "raft" else 2) * sequence
    found: dict[str, float] = {}
    for name, stage in by_name.items():
        match stage.kind:
            case "sampling":
                found[name] = _sampled(stage, by_name, response_tokens)
            case "scoring":
                samples = by_name[stage.typed(ScoringParameters).samples]
                found[name] = found[samples.name] + _responses(samples, by_name) * prompt_tokens
            case "log-ratios":
                samples = by_name[stage.typed(LogRatioParameters).samples]
                found[name] = found[samples.name] + _responses(samples, by_name) * prompt_tokens
            case "reference":
                found[name] = _pairs([stage.typed(ReferenceParameters).source], by_name) * pair
            case "training":
                found[name] = recipe.training.epochs * _pairs(stage.typed(PolicyParameters).sources, by_name) * pair
            case "measuring":
                found[name] = recipe.prompts.roles.validation * sequence
            case "reward training":
                scorer = stage.typed(ScorerParameters).scorer
                chosen = settings(recipe, scorer).contrasts
                contrasts = _responses(by_name[f"{scorer}/answers"], by_name) * len(chosen.kinds)
                found[name] = chosen.epochs * contrasts * (1 - chosen.held_out) * 2 * sequence
    return found


def _asked(stage: Stage) -> int:
    """Return how many prompts a stage of prompts puts out."""
    part = stage.typed(RoleParameters)
    return part.stop - part.start


def _responses(stage: Stage, by_name: Mapping[str, Stage]) -> int:
    drawn = stage.typed(SamplingParameters)
    return _asked(by_name[drawn.prompts]) * len(drawn.decodings)


def _sampled(stage: Stage, by_name: Mapping[str, Stage], mean: float) -> float:
    """Return the tokens of a stage's responses if each has `mean`, or its limit where that is less."""
    drawn = stage.typed(SamplingParameters)
    return _asked(by_name[drawn.prompts]) * sum(min(decoding.max_new_tokens, mean) for decoding in drawn.decodings)


def _pairs(sources: Iterable[str], by_name: Mapping[str, Stage]) -> int:
    """Return how many pairs (or winners) sources put out at most: one a prompt, or all that came from elsewhere."""
    drawn = {source: by_name.get(f"{source}/prompts") for source in sources}
    return sum(
        _asked(stage) if stage else by_name[f"{source}/pairs"].typed(PromptFileParameters).count
        for source, stage in drawn.items()
    )


def stage_hours(
    stages: Sequence[Stage],
    tokens: Mapping[str, float],
    profile: Profile,
    parameters: float | None,
    reward_parameters: float | None,
) -> dict[str, Requirement]:
    """Return the hours of each stage on one device, with its kind as the step; stages of other kinds are not in it."""
    seconds = _seconds(profile, parameters, reward_parameters)
    found = {}
    for stage in stages:
        if stage.kind in ESTIMATED:
            each, formula = seconds[stage.kind]
            found[stage.name] = Requirement(
                stage.kind, None if each is None else tokens[stage.name] * each / 3600, formula
            )
    return found


def hours(of_stages: Mapping[str, Requirement]) -> list[Requirement]:
    """Return the hours of each kind of work on one device: the sum of its stages' hours."""
    kinds = {kind: [need for need in of_stages.values() if need.step == kind] for kind in ESTIMATED}
    return [
        Requirement(kind, total(needs) if known(needs) else None, needs[0].formula)
        for kind, needs in kinds.items()
        if needs
    ]


def _seconds(
    profile: Profile, parameters: float | None, reward_parameters: float | None
) -> dict[Kind, tuple[float | None, str]]:
    """Return the seconds of a device for one token of each kind of work, None where unknown, and the formula of all tokens.

    Operations per token: 2 per parameter forwards, 4 backwards (arXiv 2001.08361).
    """
    hardware, passes = profile.hardware, 8 if profile.activation_checkpointing else 6
    again = " (one forward pass again)" if profile.activation_checkpointing else ""

    def each(operations: float, size: float | None, rate: float | None = hardware.flops) -> float | None:
        return None if size is None or rate is None else operations * size / rate

    sampling = each(1 / hardware.at_parameters, parameters, hardware.tokens_per_second)
    return {
        "sampling": (sampling, "tokens / (tokens_per_second x at_parameters / parameters)"),
        "scoring": (each(2, reward_parameters), "tokens x 2 x reward parameters / flops"),
        "log-ratios": (each(4, parameters), "tokens x 2 models x 2 x parameters / flops"),
        "reference": (each(2, parameters), "tokens x 2 x parameters / flops"),
        "training": (each(passes, parameters), f"tokens x {passes} x parameters / flops{again}"),
        "measuring": (each(6, parameters), "tokens x 3 models x 2 x parameters / flops"),
        "reward training": (each(6, reward_parameters), "tokens x 6 x reward parameters / flops"),
    }


def training_memory(
    recipe: Recipe, profile: Profile, base: ModelSize, parameters: float | None, prompt_tokens: float
) -> list[Requirement]:
    """Return the memory of a device that trains, in 1e9 bytes, with every response at the limit."""
    bf16 = recipe.training.precision == "bf16"
    longest = min(prompt_tokens + recipe.sampling.max_new_tokens, recipe.pairs.max_tokens)
    tokens = 2 * min(profile.micro_batch_pairs, recipe.training.batch_pairs) * longest
    activations = _activations(base, tokens, 2 if bf16 else 4, checkpointing=profile.activation_checkpointing)
    kept = "one layer and the inputs of all" if profile.activation_checkpointing else "all layers"
    of_layer = f"{LAYER_BYTES} bytes x tokens x width a layer, {kept}"
    found = _adapter_states(recipe, base, parameters) if recipe.training.adapter else _full_states(profile, parameters)
    if bf16 and recipe.training.adapter is None:
        found.append(_need("training: BF16 copies", 2, parameters, "parameters x 2 bytes", certain=False))
    formula = f"{of_layer}; {LOGIT_TABLES} tables of tokens x vocabulary x 4 bytes"
    return [*found, _need("training: activations", 1, activations, formula, certain=False)]


def host_memory(recipe: Recipe, profile: Profile, parameters: float | None) -> list[Requirement]:
    """Return the memory of a machine that its training processes take while they load, in 1e9 bytes; nothing for one process.

    Each reads the whole model into the machine's memory before its part goes to a device.
    """
    if profile.world_size == 1:
        return []
    width = 2 if recipe.training.adapter is not None and recipe.training.precision == "bf16" else 4
    formula = f"{profile.processes} processes x parameters x {width} bytes, while they load"
    return [_need("training: whole models", profile.processes * width, parameters, formula)]


def _full_states(profile: Profile, parameters: float | None) -> list[Requirement]:
    """Return what a device holds of weights, gradients and moments; several processes may divide some of it."""
    states = "training: weights, gradients and AdamW's moments"
    divided = {"none": 0, "zero-2": TRAINING_BYTES - 4, "zero-3": TRAINING_BYTES, "fsdp": TRAINING_BYTES}
    part = divided[profile.sharding]
    factor = TRAINING_BYTES - part + part / profile.world_size
    formula = f"parameters x {TRAINING_BYTES} bytes"
    if part:
        formula = f"parameters x ({TRAINING_BYTES - part} + {part} / {profile.world_size} processes) bytes"
    return [_need(states, factor, parameters, formula)]


def _adapter_states(recipe: Recipe, base: ModelSize, parameters: float | None) -> list[Requirement]:
    """Return what a device holds of the frozen base, and of the adapter with its gradients and moments."""
    width = 2 if recipe.training.precision == "bf16" else 4
    return [
        _need("training: frozen base", width, parameters, f"parameters x {width} bytes"),
        _need(
            "training: adapter",
            TRAINING_BYTES,
            adapter_parameters(recipe, base),
            f"{ADAPTER_FORMULA} x {TRAINING_BYTES} bytes",
            certain=False,
        ),
    ]


def adapter_parameters(recipe: Recipe, base: ModelSize) -> float | None:
    """Return about how many parameters the recipe's adapter has."""
    adapter = recipe.training.adapter
    if adapter is None or base.layers is None or base.width is None:
        return None
    return float(adapter.rank * base.layers * len(adapter.targets) * ADAPTER_WIDTHS * base.width)


def inference_memory(
    recipe: Recipe,
    profile: Profile,
    base: ModelSize,
    parameters: float | None,
    reward_parameters: float | None,
    device: str,
    prompt_tokens: float,
    available: float | None = None,
) -> list[Requirement]:
    """Return the memory of a device that samples, scores and measures, in 1e9 bytes, with every response at the limit.

    Of a GPU's `available` memory vLLM takes the share that the profile names, whatever the responses need.
    """
    width = 4 if device == "cpu" or profile.inference_precision == "fp32" else 2
    longest = (prompt_tokens + recipe.sampling.max_new_tokens) * profile.concurrent_batches
    each = f" / {profile.copy_devices} devices" if profile.copy_devices > 1 else ""
    weights = _need("sampling: weights", width / profile.copy_devices, parameters, f"parameters x {width} bytes{each}")
    if profile.engine == "vllm":
        cache = _vllm_cache(profile, weights.amount, device, available)
    else:
        cache = _key_value_cache(profile, base, width, longest)
    table = None if base.vocabulary is None else 4.0 * base.vocabulary * profile.scoring_batch * longest
    tables = f"{MEASURE_TABLES} tables of batch x tokens x vocabulary x 4 bytes"
    exact = 2 if recipe.training.adapter is not None and recipe.training.precision == "bf16" else 4
    side_by_side, formula = exact + 2 * width, f"parameters x ({exact} + 2 x {width} bytes)"
    if profile.measure_in_turn:
        side_by_side, formula = max(exact, width), f"parameters x {max(exact, width)} bytes, one at a time"
    return [
        weights,
        cache,
        _need("measuring: weights of three models", side_by_side, parameters, formula),
        _need("measuring: logits", MEASURE_TABLES, table, tables, certain=False),
        _need("scoring: weights", width, reward_parameters, f"reward parameters x {width} bytes"),
    ]


def _key_value_cache(profile: Profile, base: ModelSize, width: int, longest: float) -> Requirement:
    """Return what the transformers engine keeps of the tokens that it has read."""
    kept = profile.sampling_batch * longest
    if profile.sampling_tokens is not None:
        kept = min(kept, float(profile.sampling_tokens * profile.concurrent_batches))
    known = base.layers is not None and base.key_values is not None
    cache = 2.0 * (base.layers or 0) * (base.key_values or 0) * kept if known else None
    formula = f"batch x tokens x 2 x layers x key-values x {width} bytes"
    return _need(CACHE, width, cache, formula, certain=False)


def _vllm_cache(profile: Profile, weights: float | None, device: str, available: float | None) -> Requirement:
    """Return what vLLM takes for it: a number on a CPU, a share of a GPU less the weights (1e9 bytes)."""
    if device == "cpu":
        return _need(CACHE, 2**30, profile.vllm.cpu_cache_gb, "vllm.cpu_cache_gb x 2^30 bytes", certain=False)
    formula = f"{profile.vllm.memory_share:g} of the device, less the weights"
    known = available is not None and weights is not None
    left = profile.vllm.memory_share * (available or 0.0) - (weights or 0.0) if known else None
    return Requirement(CACHE, left, formula, certain=False)


def _activations(base: ModelSize, tokens: float, arithmetic: int, *, checkpointing: bool) -> float | None:
    """Return the bytes of activations of one micro-batch of `tokens` tokens."""
    if base.layers is None or base.width is None or base.vocabulary is None:
        return None
    layer = LAYER_BYTES * tokens * base.width * arithmetic / 2
    body = base.layers * tokens * base.width * arithmetic + layer if checkpointing else base.layers * layer
    return body + LOGIT_TABLES * 4.0 * tokens * base.vocabulary


def disk(
    recipe: Recipe,
    work: Work,
    base: ModelSize,
    parameters: float | None,
    reward_parameters: float | None,
    prompt_tokens: float,
    sharding: str = "none",
) -> list[Requirement]:
    """Return what a run keeps on disk at its peak, in 1e9 bytes. `sharding` is the profile's."""
    base_bytes = 4 if recipe.base.model.endswith(".gguf") else 2
    iterations = recipe.loop.iterations
    data = work.sampled_tokens * RESPONSE_BYTES + work.responses * prompt_tokens * 4
    if recipe.training.adapter is None:
        width, trained, size = 4, parameters, "parameters"
    else:  # the policy is merged and rounded
        width, trained, size = 2, adapter_parameters(recipe, base), ADAPTER_FORMULA
    written = CHECKPOINT_BYTES[sharding]
    writing = f"{CHECKPOINTS} x {size} x {written} bytes, while it trains"
    return [
        _need("base", base_bytes, parameters, f"parameters x {base_bytes} bytes"),
        _need("reward model", 2, reward_parameters, "reward parameters x 2 bytes"),
        _need("policies", width * iterations, parameters, f"{iterations} iterations x parameters x {width} bytes"),
        _need("checkpoints", CHECKPOINTS * written, trained, writing),
        Requirement("responses", data / 1e9, f"tokens x {RESPONSE_BYTES} bytes and the prompts' ids"),
    ]


def _need(step: str, factor: float, size: float | None, formula: str, *, certain: bool = True) -> Requirement:
    return Requirement(step, None if size is None else factor * size / 1e9, formula, certain)


def known(needs: Sequence[Requirement]) -> bool:
    """Return whether every amount is known."""
    return all(need.amount is not None for need in needs)


def total(needs: Sequence[Requirement]) -> float:
    """Return the sum of what is known."""
    return sum(need.amount or 0.0 for need in needs)


def peaks(needs: Sequence[Requirement]) -> dict[str, float]:
    """Return `{step: 1e9 bytes}`: what each step needs at once, as far as it is known."""
    found: dict[str, float] = {}
    for need in needs:
        step = need.step.partition(":")[0]
        found[step] = found.get(step, 0.0) + (need.amount or 0.0)
    return found


def refusal(
    needs: Sequence[Requirement], available: float | None, parameters: float | None, profile: str
) -> str | None:
    """Return in one line why a run cannot fit a device, or None; only what is certain counts."""
    certain = [need for need in needs if need.certain and need.amount is not None]
    worst = max(certain, key=lambda need: need.amount or 0.0, default=None)
    if worst is None or worst.amount is None or available is None or parameters is None or worst.amount <= available:
        return None
    step, _, what = worst.step.partition(": ")
    doing = "Full fine-tuning" if step == "training" else step.capitalize()
    return (
        f"{doing} of {parameters / 1e9:.3g} billion parameters needs {worst.amount:.0f} GB for {what} alone; a device of the "
        f"profile {profile!r} has {available:.0f} GB."
    )
