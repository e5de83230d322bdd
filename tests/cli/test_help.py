"""Help: an example for every command, as fast as the interpreter."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from gshf_release.cli import COMMANDS
from tests.conftest import REPOSITORY, Outcome


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(command: Callable[..., Outcome], name: str) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"  gshf-release {name} " in outcome.out


def test_the_commands_are_listed(command: Callable[..., Outcome]) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.out for name in COMMANDS)


def seconds(*arguments: str) -> float:
    """Return the least processor time of five starts of the interpreter, whatever else the machine does."""
    times = []
    for _ in range(5):
        begun = used()
        subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        times.append(used() - begun)
    return min(times)


def used() -> float:
    """Return the processor time of all processes started here that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_help_is_about_as_fast_as_the_interpreter() -> None:
    assert seconds("-m", "gshf_release", "--help") < seconds("-c", "import click") + 0.3


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['gshf-release', 'train', '--help']\nfrom gshf_release.cli import main\nmain()\n"
        "assert not {'torch', 'transformers', 'matplotlib', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
