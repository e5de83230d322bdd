"""The card data class holds everything that one card shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gshf_release.data.results import Cell
from gshf_release.recipe import Recipe
from gshf_release.release.assumptions import Assumption
from gshf_release.release.facts import Facts
from gshf_release.release.lineage import Lineage


@dataclass(frozen=True, slots=True)
class Card:
    """All that one card shows."""

    recipe: Recipe
    repository: str
    iteration: int
    cells: Sequence[Cell]
    facts: Facts
    figure: str = ""
    """Path of the figure inside the release, if there is one."""
    figure_text: str = ""
    weights: Mapping[int, str] = field(default_factory=dict)
    """The sha256 of the FP32 policy of every iteration so far."""
    base_sha256: str = ""
    """Of the file or folder the base came from."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Content hashes of `reward`, `reference` and `offline` (external preference data), as far as there are such."""
    assumptions: Sequence[Assumption] = ()
    lineage: Lineage | None = None
    """What tracing every trained response found; None claims nothing."""
    lineage_problem: str = ""
    """Why they could not be traced."""
    datasets: tuple[str, ...] = ()
    """Data sets of the release itself."""
    notices: tuple[str, ...] = ()
    """What weakens every number, such as a recipe that changed since they were made; it stands before them."""
    templates: Path | None = None
    """The run's copy of the templates, if they come from a project that is not here."""
