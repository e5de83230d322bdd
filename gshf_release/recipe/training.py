"""Define the recipe sections of preference pairs and of training: loss, optimiser, adapter."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gshf_release.recipe.parsing import PositiveInt, Section


class Pairs(Section):
    """From n scored responses to at most one preference pair a prompt."""

    source: Literal["online", "hybrid", "offline"] = "online"
    """The policy's own responses; those and `offline` (D_off of the cited algorithm); or `offline` alone, in one iteration."""
    offline: str | None = None
    """A file (JSONL, JSON, Parquet) or data set's folder with rows of `prompt`, `chosen` and `rejected`, or another form of
    docs/data.md."""
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
    `label_smoothing`. `robust`: its unbiased correction (arXiv 2403.00409). `ipo`: arXiv 2310.12036, equation 17, but
    on log-ratios per token, as TRL has it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """For `smoothed` and `robust` alone."""
    uncertainty_weight: Annotated[float, Field(ge=0)] = 0.0
    """Adds this times (deviation of the chosen - deviation of the rejected reward) to the argument of the sigmoid, so that what
    an ensemble of reward models disagrees about is learned less (arXiv 2312.11456, Option II, known from summaries)."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    sft_weight: Annotated[float, Field(ge=0)] = 0.0
    """Adds this times the mean of -log pi over the chosen tokens of an optimiser step to its preference loss (TRL's `sft`), so
    that the chosen responses do not lose probability together with the rejected ones. RPO (arXiv 2404.19733) divides by each
    response's own length and takes the mean over pairs; here every token counts alike."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-7
    """Peak. The default is for all weights; an adapter wants about ten times as much (alignment-handbook: 5e-7 and 5e-6)."""
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
