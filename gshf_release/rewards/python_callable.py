"""A reward that is the user's own Python function: `python:package.module:function`.

The function takes a list of conversations, each a list of `{"role": ..., "content": ...}`, and returns one number each.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gshf_release.data.hashing import sha256_file
from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.recipe import PYTHON
from gshf_release.rewards import Inference
from gshf_release.run import trust
from gshf_release.run.directory import read_json

FILE = "callable.json"


class PythonReward:
    """Calls the function and checks what it returns."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.function = load_function(reference)

    @classmethod
    def open(cls, folder: Path, how: Inference) -> Self:
        """Load the function that a run has adopted.

        Raises:
            EngineError: The user has not said that it may be imported; or its file is no longer what the run adopted, so the
                scores would not be of one reward.
        """
        adopted = read_json(folder / FILE)
        reference = str(adopted.get("callable"))
        trust.require(reference)
        require_unchanged(reference, adopted.get("source_sha256"), folder)
        return cls(reference)

    @classmethod
    def adopt(cls, reference: str, folder: Path) -> None:
        """Record in a run which function it uses, by the hash of the file that defines it; who names it trusts it.

        Raises:
            EngineError: It cannot be imported.
        """
        trust.allow([reference])
        folder.mkdir(parents=True)
        load_function(reference)
        document = {"callable": reference, "source_sha256": module_sha256(reference)}
        (folder / FILE).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return the function's numbers, float32 (n,).

        Raises:
            EngineError: It failed, or returned another number of values, or something that is no finite number.
        """
        if not conversations:
            return np.zeros(0, dtype=np.float32)
        copies = [[dict(turn) for turn in conversation] for conversation in conversations]
        try:
            returned = self.function(copies)
        except Exception as error:
            raise EngineError(f"{self.reference} failed: {_described(error)}.") from error
        return self._checked(returned, len(conversations))

    def _checked(self, returned: Any, count: int) -> npt.NDArray[np.float32]:
        try:
            values = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise EngineError(f"{self.reference} returned {type(returned).__name__}, not a list of numbers.") from error
        if values.shape != (count,):
            found = f"{len(values)} values" if values.ndim == 1 else f"an array of shape {values.shape}"
            raise EngineError(f"{self.reference} returned {found} for {count} conversations; it must return one each.")
        with np.errstate(over="ignore"):
            rewards = values.astype(np.float32)
        (bad,) = np.nonzero(~np.isfinite(rewards))
        if bad.size:
            raise EngineError(
                f"{self.reference} returned {values[bad[0]]} for conversation {bad[0] + 1} of {count}; a reward is a finite "
                "32-bit number."
            )
        return rewards


def load_function(reference: str) -> Callable[..., Any]:
    """Return the function that `python:package.module:function` names; modules of the current folder are found.

    Raises:
        EngineError: There is no such module or function.
    """
    function = load_named(reference)
    if not callable(function):
        raise EngineError(f"{reference} is not a function but {type(function).__name__}.")
    return function  # type: ignore[no-any-return]


def load_named(reference: str) -> Any:
    """Return the object that `python:package.module:name` names; modules of the current folder are found.

    Raises:
        EngineError: There is no such module or name.
    """
    module_name, separator, name = reference.removeprefix(PYTHON).partition(":")
    if not (separator and module_name and name):
        raise EngineError(f"{reference!r} is not of the form python:package.module:name.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise EngineError(
            f"{reference}: the module {module_name!r} cannot be imported: {_described(error)}.",
            hint="It must be installed, or lie in the current folder or on PYTHONPATH.",
        ) from error
    if not hasattr(module, name):
        raise EngineError(f"{reference}: {module_name!r} has no {name!r}.")
    return getattr(module, name)


def require_unchanged(reference: str, sha256: object, folder: Path) -> None:
    """Refuse a function, or other object, whose file is no longer what a run adopted.

    Raises:
        EngineError: Scores would not be of one reward.
    """
    if module_sha256(reference) != sha256:
        raise EngineError(
            f"The file of {reference} has changed since this run began.",
            hint=f"Restore it; or remove {folder} to begin again with the new one.",
        )


def module_sha256(reference: str) -> str | None:
    """Return the hash of the file that defines what `python:package.module:name` names; None without a Python file.

    A function may come from another module than the named one.
    """
    found = load_named(reference)
    module = getattr(found, "__module__", None) or reference.removeprefix(PYTHON).partition(":")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    return sha256_file(Path(file)) if file is not None and Path(file).is_file() else None


def _described(error: Exception) -> str:
    """Return the kind, first line and place of an error in somebody else's code."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    theirs = [frame for frame in frames if frame.filename not in (__file__, importlib.__file__)]
    return f"{text} ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else text
