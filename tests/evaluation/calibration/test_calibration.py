"""Calibration with a stub judge of known agreement: what comes out is what was put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import CalibrationError, DataError
from gshf_release.evaluation.calibration import Calibration, calibrate, load
from gshf_release.evaluation.calibration.replay import Official, StoredJudge, judge_outputs, read_official, sample
from tests.conftest import Outcome
from tests.evaluation.calibration.judged import STRENGTHS, StubJudge, official_rows, write

ROWS = official_rows(400)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    return read_official(write(ROWS, tmp_path_factory.mktemp("official")))


@pytest.fixture(scope="module")
def found(official: Official) -> Calibration:
    return calibrate(official, StubJudge(ROWS, agreement=0.85))


def test_a_judge_equal_to_the_official_one_changes_nothing(official: Official) -> None:
    found = calibrate(official, StubJudge(ROWS))
    assert found.slope is not None
    assert found.slope.value == pytest.approx(1)
    assert found.estimate(30.0, 2.0).value == pytest.approx(30)
    assert found.estimate(30.0, 2.0).low == pytest.approx(30 - 1.645 * 2, abs=0.01)
    assert (found.agreement.accuracy.value, found.agreement.kappa, found.spearman) == (100, 1, 1)


def test_the_stubs_agreement_comes_out(found: Calibration) -> None:
    accuracy = found.agreement.accuracy
    assert accuracy is not None
    assert accuracy.standard_error is not None
    assert abs(accuracy.value - 85) < 3 * accuracy.standard_error
    assert accuracy.standard_error < 1
    assert found.agreement.pairs == 6 * 400


def test_the_slope_is_the_inverse_of_what_the_flips_leave(found: Calibration) -> None:
    # A flip of 15 % turns an official rate p into 15 + 0.7 p: official = (substitute - 15) / 0.7.
    assert found.slope is not None
    assert found.intercept is not None
    assert found.slope.low < 1 / 0.7 < found.slope.high
    assert found.intercept.low < -15 / 0.7 < found.intercept.high


def test_an_estimate_contains_what_the_official_judge_says(found: Calibration) -> None:
    inside = [entry for entry in found.leave_one_out if entry.contains is not None]
    assert len(inside) == 4  # the weakest and the strongest are outside the others' range
    assert sum(bool(entry.contains) for entry in inside) >= 3
    assert {entry.model for entry in found.leave_one_out if entry.refused} == {"weak", "best"}


def test_a_judge_that_tosses_coins_is_refused(official: Official) -> None:
    found = calibrate(official, StubJudge(ROWS, agreement=0.5))
    assert "not surely above zero" in found.refused
    assert found.slope is None
    with pytest.raises(CalibrationError, match="says nothing about the official win rate"):
        found.estimate(50.0, 1.0)


def test_a_judge_that_prefers_the_worse_answer_is_refused(official: Official) -> None:
    assert "not surely above zero" in calibrate(official, StubJudge(ROWS, agreement=0.1)).refused


def test_a_judge_that_always_says_the_same_is_refused(official: Official) -> None:
    found = calibrate(official, StubJudge(ROWS, first=1.0))  # the order is drawn by prompt: the same for every model
    assert "not surely above zero" in found.refused
    assert found.spearman is None


@pytest.mark.parametrize("side", [0, 1])
def test_a_model_outside_the_range_is_refused(found: Calibration, side: int) -> None:
    edge = found.range[side]
    found.estimate(edge, 1.0)
    with pytest.raises(CalibrationError, match="outside the calibrated range"):
        found.estimate(edge + (0.01 if side else -0.01), 1.0)


def test_a_taste_for_length_is_found(official: Official, found: Calibration) -> None:
    leaning = calibrate(official, StubJudge(ROWS, longer=0.3)).agreement.length_bias
    assert leaning is not None
    assert leaning.standard_error is not None
    # On 30 % of pairs it takes the longer answer, where the official judge took it in about half.
    assert leaning.value == pytest.approx(15, abs=3 * leaning.standard_error)
    fair = found.agreement.length_bias
    assert fair is not None
    assert fair.standard_error is not None
    assert abs(fair.value) < 3 * fair.standard_error


def test_a_taste_for_the_first_answer_is_found(official: Official) -> None:
    leaning = calibrate(official, StubJudge(ROWS, first=0.3)).agreement.position_bias
    assert leaning is not None
    assert leaning.standard_error is not None
    assert leaning.value == pytest.approx(15, abs=3 * leaning.standard_error)


def test_prompts_with_a_failed_judgment_are_left_out_and_counted(official: Official) -> None:
    found = calibrate(official, StubJudge(ROWS, fails=frozenset({"made-up task 3", "made-up task 8"})))
    assert (found.prompts, found.failed) == (398, 12)


def test_a_saved_calibration_is_read_back_as_it_was(
    found: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = found.save(tmp_path / "calibration.json")
    assert load(path) == found
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path))
    from gshf_release.evaluation.calibration import default_path

    found.save(default_path("some/judge"))
    assert load("some/judge").estimate(40.0, 1.0) == found.estimate(40.0, 1.0)


def test_a_damaged_calibration_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="no calibration of this version"):
        load(tmp_path / "c.json")
    with pytest.raises(DataError, match="There is no calibration"):
        load(tmp_path / "other.json")


def test_a_larger_sample_contains_the_smaller() -> None:
    prompts = [f"task {number}" for number in range(50)]
    assert set(sample(prompts, 10, 0)) < set(sample(prompts, 30, 0))
    assert sample(prompts, 10, 0) == sample(list(reversed(prompts)), 10, 0)[::-1]
    assert sample(prompts, 10, 0) != sample(prompts, 10, 1)
    with pytest.raises(DataError, match="the models share 50"):
        sample(prompts, 51, 0)


def test_a_larger_error_or_level_widens_the_interval(found: Calibration) -> None:
    narrow, wide, sure = found.estimate(40, 1), found.estimate(40, 3), found.estimate(40, 1, 0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert sure.low < narrow.low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotator": "other"}, "but .* by other against"),
        ({"generator_1": "other"}, "against other"),
    ],
)
def test_mixed_judges_and_baselines_are_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    rows = {model: own[:30] for model, own in ROWS.items()}
    rows["best"] = [own | change for own in rows["best"]]
    with pytest.raises(DataError, match=message):
        read_official(write(rows, tmp_path))


def test_other_answers_of_the_baseline_are_refused(tmp_path: Path) -> None:
    rows = {model: own[:30] for model, own in ROWS.items()}
    rows["best"] = [*rows["best"][:9], rows["best"][9] | {"output_1": "another"}]
    with pytest.raises(DataError, match=r"best\.json row 10: the baseline's answer is another one"):
        read_official(write(rows, tmp_path))


def test_a_model_given_twice_is_refused(tmp_path: Path) -> None:
    paths = write({"weak": ROWS["weak"]}, tmp_path)
    with pytest.raises(DataError, match="the model weak comes twice"):
        read_official([*paths, *paths])


def test_two_models_are_too_few(tmp_path: Path) -> None:
    official = read_official(write({model: ROWS[model] for model in ("weak", "best")}, tmp_path))
    with pytest.raises(DataError, match="at least 3 models, found 2"):
        calibrate(official, StubJudge(ROWS))


def test_too_few_prompts_are_refused(official: Official) -> None:
    with pytest.raises(DataError, match="at least 20 prompts"):
        calibrate(official, StubJudge(ROWS), sample_size=10)


def test_models_of_equal_strength_carry_no_line(tmp_path: Path) -> None:
    same = [row["preference"] for row in ROWS["fair"]]
    rows = {
        model: [row | {"preference": value} for row, value in zip(ROWS[model], same, strict=True)]
        for model in ("weak", "fair", "best")
    }
    with pytest.raises(DataError, match="same official win rate"):
        calibrate(read_official(write(rows, tmp_path)), StubJudge(rows, agreement=0.9))


def stored(rows: dict[str, list[dict[str, Any]]], judge: StubJudge, folder: Path) -> list[Path]:
    """Write the stub's judgments as a substitute's annotations.json."""
    from gshf_release.evaluation.calibration.replay import Comparison

    own = {}
    for model, each in rows.items():
        asked = [Comparison(r["instruction"], r["output_1"], r["output_2"], r["generator_1"], model) for r in each]
        verdicts = judge.judge(asked)
        own[model] = [
            row | {"annotator": "mine", "preference": None if v.preference is None else 1 + v.preference}
            for row, v in zip(each, verdicts, strict=True)
        ]
    return write(own, folder)


def test_stored_judgments_stand_in_for_the_judge(official: Official, found: Calibration, tmp_path: Path) -> None:
    judge = StoredJudge("stub", stored(ROWS, StubJudge(ROWS, agreement=0.85), tmp_path))
    assert calibrate(official, judge) == found


def test_a_pair_that_was_never_judged_is_named(official: Official, tmp_path: Path) -> None:
    paths = stored(ROWS, StubJudge(ROWS), tmp_path)
    with pytest.raises(DataError, match="has no judgment of a pair of"):
        calibrate(official, StoredJudge("stub", paths[:-1]))


def test_a_new_model_is_judged_on_the_sample(official: Official, tmp_path: Path) -> None:
    path = outputs(tmp_path, "fair")
    prompts = sample(official.shared_prompts(), 100, 0)
    name, preferences = judge_outputs(path, official, prompts, StubJudge(ROWS))
    assert (name, len(preferences)) == ("fair", 100)
    expected = [row["preference"] - 1 for row in ROWS["fair"] if row["instruction"] in set(prompts)]
    assert sorted(preferences) == sorted(expected)


def outputs(folder: Path, model: str, rows: int = 400) -> Path:
    path = folder / "model_outputs.json"
    answers = [
        {"instruction": row["instruction"], "output": row["output_2"], "generator": model} for row in ROWS[model][:rows]
    ]
    path.write_text(json.dumps(answers), encoding="utf-8")
    return path


def test_the_command_prints_and_saves(command: Callable[..., Outcome], tmp_path: Path) -> None:
    others = {model: own for model, own in ROWS.items() if model != "fair"}
    files = [part for path in write(others, tmp_path / "official") for part in ("--annotations", path)]
    mine = [part for path in stored(ROWS, StubJudge(ROWS, 0.9), tmp_path / "m") for part in ("--stored", path)]
    saved = tmp_path / "c.json"
    call = ("calibrate", "mine", *files, *mine, "--sample", 300, "--out", saved, "--outputs", outputs(tmp_path, "fair"))
    shown = command(*call)
    assert shown.code == 0, shown.err
    assert "Cohen's kappa" in shown.out
    assert "calibrated" in shown.out
    document = json.loads(command(*call, "--json").out)
    new = document["new_model"]
    assert new["n"] == 300
    assert new["low"] < 100 * STRENGTHS["fair"] + 5
    assert load(saved).estimate(new["substitute"], new["substitute_error"]).value == pytest.approx(new["estimate"])


def test_the_command_refuses_a_judge_without_agreement(command: Callable[..., Outcome], tmp_path: Path) -> None:
    files = [part for path in write(ROWS, tmp_path / "official") for part in ("--annotations", path)]
    mine = [part for path in stored(ROWS, StubJudge(ROWS, 0.5), tmp_path / "m") for part in ("--stored", path)]
    saved = tmp_path / "c.json"
    outcome = command("calibrate", "mine", *files, *mine, "--out", saved, "--json")
    assert outcome.code == 1
    assert "not surely above zero" in outcome.line
    assert json.loads(outcome.out)["refused"]
    assert not saved.exists()


def test_the_command_refuses_a_model_outside_the_range(command: Callable[..., Outcome], tmp_path: Path) -> None:
    others = {model: own for model, own in ROWS.items() if model != "best"}
    files = [part for path in write(others, tmp_path / "official") for part in ("--annotations", path)]
    mine = [part for path in stored(ROWS, StubJudge(ROWS, 0.9), tmp_path / "m") for part in ("--stored", path)]
    new = outputs(tmp_path, "best")
    outcome = command("calibrate", "mine", *files, *mine, "--outputs", new, "--out", tmp_path / "c.json", "--json")
    assert outcome.code == 1
    assert "outside the calibrated range" in outcome.err.splitlines()[-1]
    assert "outside the calibrated range" in json.loads(outcome.out)["new_model"]["refused"]


def test_failed_judgments_are_said_before_the_table(command: Callable[..., Outcome], tmp_path: Path) -> None:
    judge = StubJudge(ROWS, 0.9, fails=frozenset({"made-up task 3", "made-up task 8"}))
    files = [part for path in write(ROWS, tmp_path / "official") for part in ("--annotations", path)]
    mine = [part for path in stored(ROWS, judge, tmp_path / "m") for part in ("--stored", path)]
    outcome = command("calibrate", "mine", *files, *mine, "--out", tmp_path / "c.json")
    assert outcome.code == 0, outcome.err
    assert (
        "Warning: 12 of 2400 judgments failed; a prompt on which one failed is left out for every model: 398 prompts remain."
    ) in outcome.err
