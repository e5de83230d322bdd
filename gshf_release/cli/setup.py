"""`gshf-release setup NAME`."""

from __future__ import annotations

import shlex

import click

from gshf_release.cli.terminal import json_option, print_json, say, size

NAMES = ("vllm", "quant", "llama-cpp")
"""Those of `environments.specifications()`, written out so that --help reads no file."""
DEVICES = ("cuda", "cpu")
"""Those of `environments.DEVICES`, likewise."""


@click.command(name="setup")
@click.argument("name", type=click.Choice(NAMES))
@click.option("--pip-arguments", default="", metavar="TEXT", help="Further arguments of pip; also GSHF_PIP_ARGUMENTS.")
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="What vllm is to compute on, if not on what this machine has: a cluster's GPUs may have no network.",
)
@json_option
def command(name: str, pip_arguments: str, device: str | None, as_json: bool) -> None:
    """Make an isolated environment of pinned versions for what cannot live beside the rest; once made, it is found.

    vllm samples (`engine: vllm` in a profile), quant quantizes with llm-compressor, llama-cpp quantizes, opens and serves GGUF
    files; llama-cpp is compiled, which takes minutes and a C++ compiler. A set-up that was stopped is begun again by the same
    command.

    \b
    Examples:
      gshf-release setup llama-cpp
      gshf-release setup vllm --device cuda
      gshf-release setup vllm --pip-arguments "--extra-index-url https://download.pytorch.org/whl/cpu"
    """
    from gshf_release import environments
    from gshf_release.environments.creation import create, facts

    wanted = device or environments.AUTO
    if device and not environments.specifications(device)[name].device:
        raise click.UsageError(f"{name} is one environment for all devices.")
    made = environments.find(name, wanted)
    if made is None:
        made = create(name, say, shlex.split(pip_arguments), wanted)
    found = facts(made)
    if as_json:
        print_json(found)
    say(
        f"{name}{made.spec.purview} is set up: {made.folder} ({size(found['bytes'])}, made in {found['seconds']:.0f} s)."
    )
