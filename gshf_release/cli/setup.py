"""`gshf-release setup NAME`."""

from __future__ import annotations

import shlex

import click

from gshf_release.cli.terminal import json_option, print_json, say, size

NAMES = ("vllm", "quant", "llama-cpp")
"""Those of `environments.specifications()`, written out so that --help reads no file."""


@click.command(name="setup")
@click.argument("name", type=click.Choice(NAMES))
@click.option("--pip-arguments", default="", metavar="TEXT", help="Further arguments of pip; also GSHF_PIP_ARGUMENTS.")
@json_option
def command(name: str, pip_arguments: str, as_json: bool) -> None:
    """Make an isolated environment of pinned versions for what cannot live beside the rest; once made, it is found.

    vllm samples (`engine: vllm` in a profile), quant quantizes with llm-compressor, llama-cpp quantizes, opens and serves GGUF
    files; llama-cpp is compiled, which takes minutes and a C++ compiler. A set-up that was stopped is begun again by the same
    command.

    \b
    Examples:
      gshf-release setup llama-cpp
      gshf-release setup vllm --pip-arguments "--extra-index-url https://download.pytorch.org/whl/cpu"
    """
    from gshf_release import environments
    from gshf_release.environments.creation import create, facts

    made = environments.find(name)
    if made is None:
        made = create(name, say, shlex.split(pip_arguments))
    found = facts(made)
    if as_json:
        print_json(found)
    say(f"{name} is set up: {made.folder} ({size(found['bytes'])}, made in {found['seconds']:.0f} s).")
