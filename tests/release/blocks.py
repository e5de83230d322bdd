"""The code blocks of a card, and how they are run: as printed, with only the model's name changed where it is not on a Hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


def blocks(card: str, language: str) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def languages(card: str) -> set[str]:
    """Return the languages of all code blocks of a card."""
    return set(re.findall(r"^```(\w+)$", card, re.MULTILINE))


def python(code: str) -> None:
    """Execute a Python block."""
    exec(compile(code, "card", "exec"), {})


def shell(code: str, folder: Path, environment: dict[str, str]) -> str:
    """Execute a shell block in a folder, with the programs of this environment and this checkout; return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = os.environ | environment | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}
    program = f'gshf-release() {{ "{sys.executable}" -m gshf_release "$@"; }}\n'
    command = ["bash", "-euo", "pipefail", "-c", program + code]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bibliography(code: str) -> dict[str, str]:
    """Return the fields of a BibTeX block of one entry; fails if it is not well formed."""
    entry = re.fullmatch(r"@misc\{([\w.:-]+),\n(.*)\n\}\n", code, re.DOTALL)
    assert entry, code
    fields = [re.fullmatch(r"  (\w+) += \{([^{}]*)\},?", line) for line in entry.group(2).splitlines()]
    assert all(fields), code
    return {"key": entry.group(1)} | {field.group(1): field.group(2) for field in fields if field}
