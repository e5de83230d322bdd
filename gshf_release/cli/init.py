"""`gshf-release init DIR`."""

from __future__ import annotations

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
    import shutil

    from gshf_release import assets
    from gshf_release.errors import RecipeError

    root = assets.shipped()
    recipe = folder / "my-recipe.yaml"
    existing = [path for path in (recipe, *(folder / name for name in assets.FOLDERS)) if path.exists()]
    if existing:
        raise RecipeError(f"{existing[0]} exists; nothing was written.", hint="Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in assets.FOLDERS:
        shutil.copytree(root / name, folder / name)
    shutil.copyfile(root / RECIPE, recipe)
    (folder / assets.MARKER).touch()
    if as_json:
        print_json({"recipe": str(recipe)})
    say(f"Wrote {recipe} and editable copies of {', '.join(assets.FOLDERS)}.\nNext: edit {recipe}, then")
    say(f"  cd {folder}\n  gshf-release doctor {recipe.name}\n  gshf-release train {recipe.name}")
