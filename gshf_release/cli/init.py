"""`gshf-release init DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json, say

RECIPE = Path("training/recipes/starter.yaml")


@click.command(name="init")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Write a short recipe (my-recipe.yaml) and editable copies of the assets into FOLDER. Never overwrites a file.

    \b
    Example:
      gshf-release init my-release
    """
    from gshf_release.data import assets
    from gshf_release.errors import RecipeError

    recipe = folder / "my-recipe.yaml"
    sources = {recipe: assets.shipped() / RECIPE} | {folder / name: assets.shipped() / name for name in assets.FOLDERS}
    for target, source in sources.items():
        if target.exists() and not _same(target, source):
            raise RecipeError(f"{target} exists; nothing was written.", hint="Choose another folder.")
    _write(folder, sources)
    if as_json:
        print_json({"recipe": str(recipe)})
    say(f"Wrote {recipe} and editable copies of {', '.join(assets.FOLDERS)}.\nNext: edit {recipe}, then")
    say(f"  cd {folder}\n  gshf-release doctor {recipe.name}\n  gshf-release train {recipe.name}")


def _same(target: Path, source: Path) -> bool:
    """Return whether something is there as it would be written: by the same command, which may have been killed then."""
    from gshf_release.data.hashing import tree

    return target.is_dir() == source.is_dir() and tree(target) == tree(source)


def _write(folder: Path, sources: Mapping[Path, Path]) -> None:
    """Copy everything under temporary names and rename it into place, the mark of a project last."""
    import shutil

    from gshf_release.data import assets

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".init.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for target, source in sources.items():
        if not target.exists():
            shutil.copytree(source, partial / target.name) if source.is_dir() else shutil.copyfile(
                source, partial / target.name
            )
            (partial / target.name).replace(target)
    partial.rmdir()
    (folder / assets.MARKER).touch()
