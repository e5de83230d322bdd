"""How much longer `gshf-release --help` takes than the bare interpreter. Not a test: run it by hand.

python -m tests.benchmarks.help --repeats 11
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click

from tests.benchmarks.inputs import REPOSITORY
from tests.benchmarks.sides import in_turns, spread, timed

SIDES = {
    "gshf-release --help": ["-m", "gshf_release", "--help"],
    "gshf-release train --help": ["-m", "gshf_release", "train", "--help"],
    "bare interpreter": ["-c", "pass"],
}


def start(arguments: list[str]) -> float:
    command = [sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return timed(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))


@click.command()
@click.option("--repeats", default=11, show_default=True)
def main(repeats: int) -> None:
    """Measure and print."""
    start(SIDES["gshf-release --help"])  # compiles what is not compiled yet
    sides = {side: lambda arguments=arguments: start(arguments) for side, arguments in SIDES.items()}
    seconds = in_turns(sides, repeats)
    document = {"benchmark": "help", "load": round(os.getloadavg()[0], 1), "added": {}}
    for side, values in seconds.items():
        bare = seconds["bare interpreter"]
        added = spread([own - other for own, other in zip(values, bare, strict=True)])
        document["added"][side] = {key: round(value, 4) for key, value in added.items()}
        click.echo(
            f"{side}: {spread(values)['median']:.3f} s, {added['median']:+.3f} s ({added['least']:+.3f} to"
            f" {added['most']:+.3f}) on the bare interpreter; least of all {min(values) - min(bare):+.3f} s"
        )
        document["added"][side]["least_of_all"] = round(min(values) - min(bare), 4)
    click.echo(json.dumps(document))


if __name__ == "__main__":
    main()
