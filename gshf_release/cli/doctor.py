"""`gshf-release doctor [RECIPE]`."""

from __future__ import annotations

import sys

import click

from gshf_release.cli.terminal import json_option, print_json, profile_option, show


@click.command(name="doctor")
@click.argument("recipe", required=False)
@profile_option
@json_option
def command(recipe: str | None, profile: str, as_json: bool) -> None:
    """Show what this machine can do; with RECIPE, check what its run needs before hours are spent.

    A reward model that is here scores five answers of rising badness: the text it reads, their order and range are shown, and a
    wrong order is a warning.

    \b
    Examples:
      gshf-release doctor
      gshf-release doctor quickstart
    """
    from dataclasses import asdict

    from gshf_release import recipe as recipes
    from gshf_release.planning import doctor
    from gshf_release.recipe import profile as profiles

    findings = doctor.machine()
    if recipe is not None:
        findings += doctor.check(recipes.load(recipe), profiles.load(profile))
    if as_json:
        print_json([asdict(item) for item in findings])
    else:
        width = max(len(item.what) for item in findings)
        for item in findings:
            mark = "NO " if not item.ok else "!  " if item.warning else "ok "
            show(f"{mark} {item.what:{width}}  {'Warning: ' if item.warning else ''}{item.found}")
    if not all(item.ok for item in findings):
        sys.exit(1)
