"""Refuse formats that the base model cannot have before any work, rather than at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gshf_release import environments
from gshf_release.errors import ReleaseError
from gshf_release.recipe import Recipe
from gshf_release.release.quantization import schemes
from gshf_release.release.quantization.schemes import K_QUANTS, Scheme


def wanted(recipe: Recipe) -> list[Scheme]:
    """Return the formats that a recipe releases."""
    gguf = [schemes.parse(f"gguf:{encoding}") for encoding in recipe.release.gguf]
    return [*gguf, *(schemes.parse(name) for name in recipe.release.compressed)]


def check_base(recipe: Recipe, locate: Callable[[], Path]) -> None:
    """Refuse a base model whose release could not be written; its policies have its architecture and tokenizer.

    Args:
        recipe: The recipe.
        locate: Returns the base model's folder; a GGUF file, which already is what it would become, is not checked.

    Raises:
        ReleaseError: Names the recipe key and the nearest that fits.
    """
    chosen = wanted(recipe)
    path = locate() if chosen else None
    if path is None or not path.is_dir():
        return
    for key, own in (
        ("release.gguf", [scheme for scheme in chosen if scheme.kind == "gguf"]),
        ("release.compressed", [scheme for scheme in chosen if scheme.kind != "gguf"]),
    ):
        try:
            schemes.check(path, own, weights=False)
        except ReleaseError as error:
            raise ReleaseError(f"{key}: {error.message}", hint=error.hint) from error


def check_environments(recipe: Recipe) -> None:
    """Refuse to begin a release whose quantizations need an environment that is not set up.

    Raises:
        EngineError: Names the command that sets it up.
    """
    if set(recipe.release.gguf) & set(K_QUANTS):
        environments.require("llama-cpp")
    if recipe.release.compressed:
        environments.require("quant")
