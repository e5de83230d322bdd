"""`gshf-release samples RUN`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from gshf_release.cli.terminal import json_option, print_json, say, show, stale_line


@click.command(name="samples")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many prompts.")
@click.option(
    "--set", "name", type=click.Choice(["test", "eval"]), default="test", show_default=True, help="Which set."
)
@click.option("--decoding", default="greedy", show_default=True, metavar="greedy|T=0.7", help="Which answers.")
@click.option("--find", "wanted", metavar="TEXT", help="Only prompts that contain TEXT, in the order of the set.")
@json_option
def command(run: Path, count: int, name: str, decoding: str, wanted: str | None, as_json: bool) -> None:
    """Show a prompt with the answers of the base and of every iteration.

    Without --find it is the first prompt on which the last iteration is better than the base, after the line that says on how
    many it is; of several, prompts at equal distances in the order of their gains.

    \b
    Examples:
      gshf-release samples runs/quickstart
      gshf-release samples runs/quickstart --count 5 --decoding T=0.7
      gshf-release samples runs/quickstart --find volcano --count 3
    """
    from gshf_release.errors import RunError
    from gshf_release.report.samples import answered_prompts, first_better, gain_line, sample_lines, spread_over_gains
    from gshf_release.run.directory import RunDirectory

    directory = RunDirectory.open(run)
    found = every = answered_prompts(directory, name, decoding)
    if wanted is not None:
        found = [one for one in found if wanted.casefold() in one.messages[-1]["content"].casefold()][:count]
    elif found:
        found = [first_better(found)] if count == 1 else spread_over_gains(found, count)
    if not found:
        raise RunError(
            f"No prompt of {name} was answered by every policy" + (f" and has {wanted!r}." if wanted else ".")
        )
    for line in stale_line(directory):
        say(line)
    if as_json:
        print_json({"set": name, "decoding": decoding, "prompts": [asdict(one) for one in found]})
        return
    show(gain_line(every))
    for one in found:
        show("\n".join(sample_lines(one, decoding)))
