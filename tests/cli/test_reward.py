"""The subcommands of `reward`: an example in every help, and no heavy library to show it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import REPOSITORY, Outcome

SUBCOMMANDS = ("train", "score", "agreement")


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_an_example_and_speaks_json(command: Callable[..., Outcome], name: str) -> None:
    outcome = command("reward", name, "--help")
    assert outcome.code == 0
    assert f"  gshf-release reward {name} " in outcome.out
    assert "--json" in outcome.out


def test_the_subcommands_are_listed(command: Callable[..., Outcome]) -> None:
    outcome = command("reward", "--help")
    assert all(f"  {name} " in outcome.out for name in SUBCOMMANDS)


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['gshf-release', 'reward', 'train', '--help']\n"
        "from gshf_release.cli import main\nmain()\n"
        "assert not {'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
