"""Find the files a user may edit: recipes, profiles, prompts, judges, card templates.

They live in `training/`, `eval/` and `model_cards/` at the top of the checkout and inside the wheel under
`gshf_release/assets/`. A path given by the user always beats a name.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from gshf_release.errors import RecipeError

FOLDERS = ("training", "eval", "model_cards")
MARKER = ".gshf-release"
"""A file of this name makes a folder a project: its copies of the assets come before the shipped ones."""


RUN = "run.json"
"""A file of this name makes a folder a run."""


def cache_folder() -> Path:
    """Return where fetched packages and environments are kept: `GSHF_CACHE`, else `~/.cache/gshf-release`."""
    return Path(os.environ.get("GSHF_CACHE") or Path.home() / ".cache" / "gshf-release")


def shipped() -> Path:
    """Return the folder that holds the project's own `training/`, `eval/` and `model_cards/`: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent


def project() -> Path | None:
    """Return the project that `gshf-release init` made and we stand in, if any; a run is none, for it may be anybody's."""
    here = Path.cwd()
    return here if (here / MARKER).is_file() and not (here / RUN).exists() else None


def roots() -> list[Path]:
    """Return where assets are looked for: the project we stand in, then the shipped ones."""
    own = project()
    return [shipped()] if own is None else [own, shipped()]


def names(folder: str, suffix: str) -> list[str]:
    """Return the sorted names (without suffix) of the assets in `folder`, for example `training/recipes`."""
    found = {path.name.removesuffix(suffix) for root in roots() for path in (root / folder).glob(f"*{suffix}")}
    return sorted(found)


def find(reference: str, folder: str, suffix: str) -> Path:
    """Return the path of an asset given as a path or as a bare name.

    A bare word is a name first: a file called `laptop` in the folder we stand in shall not become the profile of that name.

    Args:
        reference: A path to an existing file, or a name such as `quickstart`.
        folder: Where bare names are looked up, for example `training/recipes`.
        suffix: The file ending of bare names, for example `.yaml`.

    Raises:
        RecipeError: Neither exists; the nearest name is given.
    """
    path = Path(reference).expanduser()
    if path.is_file() and (reference.endswith(suffix) or path.name != reference):
        return path
    for root in roots():
        named = root / folder / f"{reference.removesuffix(suffix)}{suffix}"
        if named.is_file():
            return named
    if path.is_file():
        return path
    known = names(folder, suffix)
    nearest = difflib.get_close_matches(Path(reference).name.removesuffix(suffix), known, n=1)
    suggestion = f"Did you mean {nearest[0]!r}?" if nearest else f"Known names: {', '.join(known)}."
    raise RecipeError(f"{reference!r} is neither a file nor a name in {folder}.", hint=suggestion)
