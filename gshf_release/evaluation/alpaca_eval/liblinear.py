"""scikit-learn's liblinear without the rest of scikit-learn, whose import takes several times as long as all the fits.

`LogisticRegression` imports scipy.stats and pandas on its way to one compiled function. `train` is that function, loaded from
the installed scikit-learn's own file and given what `LogisticRegression` gives it, so the coefficients are the same to the bit.
Its signature is private: only releases that were compared are trusted, for others there is no `train`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gshf_release.evaluation.alpaca_eval.data import Array

COMPARED = ("1.9.",)
"""Releases of scikit-learn whose private signature is the one called here."""
PACKAGES = ("sklearn", "sklearn.utils", "sklearn.svm")
EXTENSION = "sklearn.svm._liblinear"
L1_LOGISTIC_REGRESSION = 6
"""liblinear's number of the solver."""
TOLERANCE, ITERATIONS, NO_BIAS, EPSILON = 1e-4, 100, -1.0, 0.1
"""The defaults of `LogisticRegression`; epsilon is for another loss and is not read."""

Train = Callable[[Array, Array, float, int, Array], Array]
"""`train(features, classes, strength, random_state, weights)` returns the coefficients, (features,)."""


@cache
def train() -> Train | None:
    """Return the function; None if scikit-learn is imported anyway, or is of a release that was not compared."""
    if "sklearn" in sys.modules or not metadata.version("scikit-learn").startswith(COMPARED):
        return None
    return partial(_train, _load())


def _load() -> Any:
    """Import the extension below empty packages, and leave no trace that a later import of scikit-learn would find."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed")
    root = Path(found.origin).parent
    try:
        for name in PACKAGES:
            package = types.ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
        return importlib.import_module(EXTENSION)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
            del sys.modules[name]


def _train(library: Any, features: Array, classes: Array, strength: float, random_state: int, weights: Array) -> Array:
    library.set_verbosity_wrap(0)
    seed = np.random.RandomState(random_state).randint(np.iinfo("i").max)
    coefficients, _ = library.train_wrap(
        np.ascontiguousarray(features, dtype=np.float64),
        np.ascontiguousarray(classes, dtype=np.float64),
        False,
        L1_LOGISTIC_REGRESSION,
        TOLERANCE,
        NO_BIAS,
        strength,
        np.ones(2),
        ITERATIONS,
        seed,
        EPSILON,
        np.ascontiguousarray(weights, dtype=np.float64),
    )
    first: Array = coefficients[0]
    return first
