"""liblinear alone and scikit-learn around it find the same coefficients, and the one does not disturb the other."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY

COMPARE = """
import sys
import numpy as np
from gshf_release.evaluation.alpaca_eval import length_control as control
from gshf_release.evaluation.alpaca_eval import liblinear

generator = np.random.default_rng(3)
problems = []
for rows in (40, 300):
    features = np.column_stack([np.tanh(generator.normal(size=rows)), generator.normal(size=rows), np.ones(rows)])
    target, weight = generator.random(rows), generator.random(rows)
    problems += [control.Problem(features, share, weight, features) for share in (target, np.ones(rows))]
alone = [control._fit(each, strength, slice(None)) for each in problems for strength in control.STRENGTHS]
solved = control.solve(problems[0])
assert liblinear.train() is not None
assert not [name for name in sys.modules if name.partition(".")[0] in ("sklearn", "pandas")], "nothing of it stays"

import sklearn.linear_model
liblinear.train.cache_clear()
assert liblinear.train() is None, "what is imported anyway is used"
around = [control._fit(each, strength, slice(None)) for each in problems for strength in control.STRENGTHS]
assert all(np.array_equal(one, other) for one, other in zip(alone, around, strict=True))
assert solved == control.solve(problems[0])
print(len(alone), "equal")
"""


def test_liblinear_alone_finds_scikit_learns_coefficients_to_the_bit() -> None:
    done = subprocess.run([sys.executable, "-c", COMPARE], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "40 equal"
