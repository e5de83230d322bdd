"""Lets a recipe name a Python function as its scorer (`python:package.module:function`) where the package cannot yet.

Three functions are replaced while a run is made: the one that copies a reward model into the run, the one that opens it, and
the check that it has been fetched. Everything else is the real loop. Where the package knows `python:` itself, nothing is
replaced.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from gshf_release import recipe as recipes
from gshf_release.records import Message
from gshf_release.rewards.settings import settings
from gshf_release.run.context import StageContext

PREFIX = "python:"


@dataclass(frozen=True, slots=True)
class Function:
    """A plain function behind the protocol of reward models."""

    function: Callable[[Sequence[Sequence[Message]]], Sequence[float]]

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        """Return its numbers, float32 (n,)."""
        return np.asarray(self.function(conversations), dtype=np.float32)


def _adopt(context: StageContext) -> None:
    folder = context.output("model")
    folder.mkdir(parents=True)
    (folder / "callable.txt").write_text(_reference(context, context.parameter("scorer")), encoding="utf-8")


def _open(context: StageContext, scorer: str) -> Any:
    module, _, name = _reference(context, scorer).removeprefix(PREFIX).partition(":")
    return Function(getattr(importlib.import_module(module), name))


def _reference(context: StageContext, scorer: str) -> str:
    return str(settings(context.recipe, scorer).model)


@contextlib.contextmanager
def python_rewards() -> Iterator[None]:
    """Let recipes name Python functions as scorers, in this process."""
    if hasattr(recipes, "PYTHON"):
        yield
        return
    with (
        mock.patch("gshf_release.rewards.stages.adopt", _adopt),
        mock.patch("gshf_release.rewards.stages.load_scorer", _open),
        mock.patch("gshf_release.pipeline.require_models"),
    ):
        yield
