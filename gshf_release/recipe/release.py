"""Define the recipe section of what is published, and under which name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gshf_release.recipe.parsing import PositiveInt, Section


class AllowedFinding(Section):
    """Something the secret scan takes for a secret, a path or an address, and which is none; the manifest shows it."""

    text: Annotated[str, Field(min_length=1)]
    """The text found, or a shell pattern for it."""
    reason: Annotated[str, Field(min_length=1)]


class Release(Section):
    """Says what the published repositories are called and what their card says about licences."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] | None = None
    """`OWNER/NAME`; `publish --to` overrides it. None names the folder after the run."""
    facts: str | None = None
    """A YAML file of facts for the card, or a name in model_cards; None uses what the run knows."""
    gguf: tuple[Literal["Q8_0", "BF16", "F16", "Q6_K", "Q5_K_M", "Q4_K_M"], ...] = ("Q8_0",)
    """Encodings of the GGUF files; with a K-quant (the last three), llama.cpp makes and measures (`setup llama-cpp`)."""
    measured_tokens: PositiveInt = 4096
    """How much text of the test role a quantization's loss is measured on."""
    compressed: tuple[Literal["fp8", "gptq:W4A16"], ...] = ()
    """Repositories in the compressed-tensors format, made by llm-compressor (`setup quant`)."""
    datasets: tuple[Literal["preferences", "judgments"], ...] = ()
    """Data sets to publish beside the weights: the pairs that it was trained on, and how its answers were judged."""
    allowed_findings: tuple[AllowedFinding, ...] = ()
    """False positives of the secret scan, each with its reason."""
    template_change: Annotated[str, Field(min_length=1)] | None = None
    """Why the chat template differs from the base model's; without it a difference is refused."""
