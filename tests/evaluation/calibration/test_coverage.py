"""How often calibrated 90 % intervals contain the official win rate, over simulated judges and resampled prompts.

Print the coverage: `pytest -s tests/evaluation/calibration/test_coverage.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gshf_release.errors import CalibrationError, DataError
from gshf_release.evaluation.calibration import regression as lines
from gshf_release.evaluation.calibration.document import official_rate, refusal
from gshf_release.evaluation.calibration.regression import Array
from gshf_release.evaluation.calibration.replay import read_official
from tests.evaluation.calibration.judged import official_rows

pytestmark = pytest.mark.slow
SIMULATIONS = 1000
SAMPLE = 300
AGREEMENTS = (0.75, 0.97)


def real(test_data: Path) -> Array:
    """Return the official preferences (prompts, models) of all stored models, percent."""
    paths = sorted((test_data / "alpaca_eval" / "annotations").glob("*.json.gz"))
    if not paths:
        pytest.skip(f"no stored judgments in {test_data}; set GSHF_TEST_DATA")
    official = read_official(paths)
    return np.array(
        [[100 * (official.rows[m][text].win or 0.0) for m in official.models] for text in official.shared_prompts()]
    )


def made_up() -> Array:
    rows = official_rows(800, {str(k): strength for k, strength in enumerate(np.linspace(0.05, 0.6, 9))})
    return 100 * (np.array([[row["preference"] for row in own] for own in rows.values()]).T - 1)


@pytest.mark.parametrize("kind", ["made-up", "real"])
def test_ninety_percent_intervals_cover(kind: str, test_data: Path) -> None:
    population = real(test_data) if kind == "real" else made_up()
    truth = population.mean(axis=0)
    inner = np.argsort(truth)[1:-1]
    generator = np.random.default_rng(17)
    inside, slopes, intercepts, tried, refused = 0, 0, 0, 0, 0
    for _ in range(SIMULATIONS):
        agreement = generator.uniform(*AGREEMENTS)
        official = population[generator.integers(0, len(population), len(population))]
        substitute = np.where(generator.random(official.shape) < agreement, official, 100 - official)
        new = int(generator.choice(inner))
        others = [k for k in range(len(truth)) if k != new]
        part = generator.permutation(len(official))[:SAMPLE]
        line = lines.fit(official[np.ix_(part, others)], substitute[np.ix_(part, others)])
        beta = line.beta_interval()
        slopes += beta.low <= 2 * agreement - 1 <= beta.high
        start = line.invert(0.0, 0.0, tau=False)
        intercepts += start.low <= -100 * (1 - agreement) / (2 * agreement - 1) <= start.high
        rates, own = substitute[np.ix_(part, others)].mean(axis=0), substitute[:, new]
        try:
            if reason := refusal(line):
                raise CalibrationError(reason)
            error = float(own.std(ddof=1)) / math.sqrt(len(own))
            found = official_rate(line, (rates.min(), rates.max()), float(own.mean()), error, 0.9)
        except CalibrationError:
            refused += 1
            continue
        tried += 1
        inside += found.low <= truth[new] <= found.high
    text = f"{kind}: estimate {shown(inside, tried)} of {tried} judges ({refused} refused), "
    text += f"slope {shown(slopes, SIMULATIONS)}, intercept {shown(intercepts, SIMULATIONS)}"
    print(text)
    assert tried >= 200
    assert 0.85 <= inside / tried <= 0.95, text
    assert 0.85 <= slopes / SIMULATIONS <= 0.95, text
    assert 0.85 <= intercepts / SIMULATIONS <= 0.95, text


def shown(hits: int, of: int) -> str:
    share = hits / of
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / of):.1f} %"


@pytest.mark.parametrize("kind", ["constant", "longer"])
def test_models_that_scatter_around_the_line_widen_the_interval(kind: str) -> None:
    """A judge that likes some models better, by a constant or by their length in three comparisons of ten."""
    population = made_up()
    generator = np.random.default_rng(18)
    inside, tried, taus = 0, 0, []
    for _ in range(SIMULATIONS):
        official = population[generator.integers(0, len(population), len(population))]
        substitute = np.where(generator.random(official.shape) < 0.9, official, 100 - official)
        if kind == "constant":
            substitute += generator.normal(0, 6, official.shape[1])
        else:
            longer = generator.random(official.shape) < generator.beta(3, 3, official.shape[1])
            substitute = np.where(generator.random(official.shape) < 0.3, 100 * longer, substitute)
        new = int(generator.integers(official.shape[1]))
        others = [k for k in range(official.shape[1]) if k != new]
        line = lines.fit(official[:, others], substitute[:, others])
        taus.append(line.tau)
        rate = substitute[:, new]
        try:
            found = line.invert(float(rate.mean()), float(rate.var(ddof=1)) / len(rate))
        except DataError:
            continue  # no slope, which the command refuses
        tried += 1
        inside += found.low <= population[:, new].mean() <= found.high
    text = f"{kind}: estimate {shown(inside, tried)} of {tried} judges, median tau {np.median(taus):.1f}"
    print(text)
    assert np.median(taus) == pytest.approx(6, rel=0.25), text
    assert tried >= 200
    assert 0.85 <= inside / tried <= 0.95, text


def test_errors_in_the_official_rates_do_not_flatten_the_line() -> None:
    # 60 prompts: ordinary least squares on such noisy official rates falls short of the true 0.8 on average.
    population = made_up()[:, :5]
    generator = np.random.default_rng(19)
    fitted, plain = [], []
    for _ in range(400):
        official = population[generator.integers(0, len(population), 60)]
        independent = population[generator.integers(0, len(population), 60)]
        substitute = np.where(generator.random(official.shape) < 0.9, independent, 100 - independent)
        y, x = official.mean(axis=0), substitute.mean(axis=0)
        plain.append(np.polyfit(y, x, 1)[0])
        fitted.append(lines.fit(official, substitute).beta)
    assert abs(np.median(fitted) - 0.8) < 0.04
    assert np.median(plain) < np.median(fitted)
