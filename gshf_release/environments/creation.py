"""Making an environment: built in its own folder, finished when its manifest is written, last of all.

A killed set-up is begun again (pip keeps what it fetched and compiled); of two at once, the second waits for the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gshf_release.data import locks
from gshf_release.environments import (
    AUTO,
    MANIFEST,
    SAFE_PATH_VARIABLE,
    Environment,
    EnvironmentSpec,
    environments_folder,
    set_up_command,
    specifications,
)
from gshf_release.errors import EngineError, NetworkError, last_complaint

PIP_ARGUMENTS = "GSHF_PIP_ARGUMENTS"
"""Environment variable with further arguments of pip, for example an index that has torch's CPU build."""
SHOWN = ("Collecting", "Building", "Installing", "Successfully", "ERROR", "error")
"""How the lines of pip begin that are passed on."""
UNREACHABLE = ("Could not find a version", "NewConnectionError", "Temporary failure in name", "Read timed out")

Say = Callable[[str], None]


def create(name: str, say: Say, pip_arguments: Sequence[str] = (), device: str = AUTO) -> Environment:
    """Return an environment, made first unless it is there already.

    Args:
        name: One of `environments.names()`.
        say: Hears what is being done, and pip's own lines.
        pip_arguments: Further arguments of every `pip install`, after those of `GSHF_PIP_ARGUMENTS`.
        device: The one that it computes on, as in `specifications`.

    Raises:
        EngineError: A package cannot be installed, or does not import.
        NetworkError: The package index does not answer.
        KeyError: There is no environment of this name.
    """
    spec = specifications(device)[name]
    made = Environment(spec, spec.folder)
    with _alone(name, say):
        if not (spec.folder / MANIFEST).is_file():
            _build(made, [*shlex.split(os.environ.get(PIP_ARGUMENTS, "")), *pip_arguments], say)
            _name_others(spec, say)
    return made


def _build(made: Environment, pip_arguments: Sequence[str], say: Say) -> None:
    spec, begun = made.spec, time.monotonic()
    shutil.rmtree(spec.folder, ignore_errors=True)
    say(f"Making {spec.folder} ...")
    _run([sys.executable, "-m", "venv", str(spec.folder)], made, say)
    pip = [*made.command("pip"), "install", "--disable-pip-version-check", "--progress-bar", "off", *pip_arguments]
    pins = str(spec.pins_path)
    if spec.first:
        # With its own requirements: a build for a GPU brings libraries that the list of another machine does not have.
        wanted = [line for line in pinned(spec) if line.split("==")[0] in spec.first]
        _run([*pip, *wanted, "--constraint", pins], made, say)
    _run([*pip, *([] if spec.resolve else ["--no-deps"]), "--requirement", pins], made, say)
    _try(made, say)
    document = {
        "name": spec.name,
        "sha256": spec.sha256,
        "packages": pinned(spec),
        "seconds": round(time.monotonic() - begun, 1),
        "bytes": size(spec.folder),
    }
    temporary = spec.folder / f".{MANIFEST}"
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    temporary.replace(spec.folder / MANIFEST)


def _try(made: Environment, say: Say) -> None:
    """Import what the environment is for; without its device's driver that may fail, so there it only has to be installed."""
    spec = made.spec
    if spec.can_run_here:
        say(f"Trying {spec.imports} ...")
        code = f"import {spec.imports}"
    else:
        say(f"No {spec.device} here: {spec.imports} is installed, and tried where it first runs.")
        code = f"import importlib.util as u; u.find_spec({spec.imports!r}) or exit('error: no module {spec.imports}')"
    _run([str(made.python), "-c", code], made, say)


def facts(made: Environment) -> dict[str, Any]:
    """Return what the manifest of an environment says, and where it is.

    Raises:
        EngineError: The manifest is damaged.
    """
    try:
        document = json.loads((made.folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = f"Remove the folder and run: {set_up_command(made.spec)}"
        raise EngineError(f"{made.folder / MANIFEST} is damaged.", hint=hint) from error
    return {"path": str(made.folder), **document}


def pinned(spec: EnvironmentSpec) -> list[str]:
    """Return the pins of an environment, `package==version` each."""
    lines = (line.split("#")[0].strip() for line in spec.pins_path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder, without following links."""
    return sum(entry.lstat().st_size for entry in folder.rglob("*") if entry.is_file() and not entry.is_symlink())


def _run(command: Sequence[str], made: Environment, say: Say) -> None:
    """Run one step and pass on what it tells of its progress."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    variables |= {**made.spec.variables, SAFE_PATH_VARIABLE: "1"}
    last: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            if line.lstrip().startswith(SHOWN):
                say(f"  {line.strip()}")
    if process.returncode != 0:
        raise _failure(made.spec, list(last))


def _failure(spec: EnvironmentSpec, lines: Sequence[str]) -> EngineError | NetworkError:
    text = f"The environment {spec.name!r} could not be made: {last_complaint(lines)}."
    hint = f"The same command tries again; further arguments of pip go into {PIP_ARGUMENTS}."
    if any(mark in line for mark in UNREACHABLE for line in lines):
        return NetworkError(text, hint=hint)
    return EngineError(text, hint=hint)


@contextlib.contextmanager
def _alone(name: str, say: Say) -> Iterator[None]:
    """Hold the lock of an environment; the system releases it if the process dies."""
    environments_folder().mkdir(parents=True, exist_ok=True)
    with (environments_folder() / f".{name}.lock").open("a", encoding="utf-8") as stream:
        if not locks.take(stream):
            say(f"Another process is setting up {name}; waiting for it ...")
            locks.wait_for(stream)
        yield


def _name_others(spec: EnvironmentSpec, say: Say) -> None:
    """Name the environments of other pins or another Python: each takes gigabytes, but who shares the cache may use it."""
    for folder in sorted(environments_folder().glob(f"{spec.kind}-*")):
        if folder != spec.folder:
            say(f"{folder} was made by another version of gshf-release or Python; delete it if nobody uses it.")
