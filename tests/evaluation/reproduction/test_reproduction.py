"""Reproduction: one fault planted at each rung is found at that rung, and noise within a rung's budget is none."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gshf_release.data.results import Cell, write_cells
from gshf_release.errors import DataError, RecipeError
from gshf_release.evaluation.alpaca_eval.data import AlpacaEvalData
from gshf_release.evaluation.metrics import doubt
from gshf_release.evaluation.reproduction.claims import (
    CONTRADICTED,
    UNCHECKABLE,
    VERIFIED,
    Measured,
    Metric,
    Reproduction,
    Rung,
    load,
    published,
    reproduce,
)
from gshf_release.evaluation.reproduction.evidence import changed_answers, from_judgments, from_outputs, from_run
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL
from tests.conftest import Outcome

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
WINS = [1.0] * 30 + [0.0] * 70
"""30 % ± 100 * sqrt(.21 / 99)."""
ERROR = 100 * math.sqrt(0.21 / 99)
NAME = "fsfairx-zephyr-7b"


def claims(path: Path, **changes: Any) -> Path:
    """Write a file of claims on a made-up model: 30 % of wins, answers of 120 characters, MT-Bench 7.5."""
    content: dict[str, Any] = {
        "name": "someone/model",
        "source": "a page",
        "benchmark": "AlpacaEval 2",
        "judge": "the official one",
        "baseline": "the official one",
        "rows": [{"row": "iteration-1", "win rate": 30.0, "length": 120}],
        "length_unit": "characters",
        "claims": [
            {
                "row": "iteration-1",
                "metric": "standard error",
                "value": round(ERROR, 3),
                "rounding": 0.0005,
                "source": "p",
            },
            {"row": "iteration-1", "benchmark": "mt_bench", "metric": "average", "value": 7.5, "source": "a page"},
        ],
        "official_judges": {"alpaca_eval_2": [JUDGE], "mt_bench": ["gpt-4"]},
        "noise": {"answers": {"win rate": 0.5}, "weights": {"win rate": 2.0, "length": 5}, "recipe": {"win rate": 2.0}},
    }
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


def rows(wins: list[float], length: int = 120, **changes: str) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"made-up task {number}",
            "output_1": "b" * 100,
            "generator_1": "gpt4_1106_preview",
            "output_2": "m" * length,
            "generator_2": "model",
            "annotator": JUDGE,
            "preference": 1 + win,
        }
        | changes
        for number, win in enumerate(wins)
    ]


def annotations(folder: Path, wins: list[float] = WINS, name: str = "annotations.json", **changes: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(rows(wins, **changes)), encoding="utf-8")
    return path


def outputs(folder: Path, length: int = 120) -> Path:
    path = folder / "model_outputs.json"
    answers = [
        {"instruction": f"made-up task {n}", "output": "m" * length, "generator": "model"} for n in range(len(WINS))
    ]
    path.write_text(json.dumps(answers), encoding="utf-8")
    return path


def run(folder: Path, win_rate: float, *, length: float = 120.0, judge: str = JUDGE, **more: Any) -> Path:
    """Write what an evaluated run leaves."""
    place = {"table": "alpaca_eval_2", "row": "iteration-1", "n": 100}
    cells = [
        Cell(**place, metric="win rate", value=win_rate, standard_error=ERROR, judge=judge, unit="%"),
        Cell(**place, metric="length", value=length, unit="characters"),
        *more.get("cells", []),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_cells(cells, folder / "results.json")
    return folder


def verdict(folder: Path, deepest: Rung, measured: list[Measured], **changes: Any) -> Reproduction:
    return reproduce(load(str(claims(folder / "claims.yaml", **changes))), measured, deepest)


def on_board(metric: Metric, value: float) -> Measured:
    return Measured("published", "iteration-1", "alpaca_eval_2", metric, value)


def status(found: Reproduction, metric: str) -> tuple[str, str | None]:
    (outcome,) = [each for each in found.outcomes if each.claim.metric == metric]
    return outcome.status, outcome.rung


def judged(folder: Path, rung: Rung = "judgments", **changes: Any) -> list[Measured]:
    return from_judgments("iteration-1", annotations(folder, **changes), rung, AlpacaEvalData(missing="not here"))


def test_what_was_only_looked_up_is_not_counted_as_recomputed(tmp_path: Path) -> None:
    found = verdict(tmp_path, "judgments", judged(tmp_path))
    assert found.looked_up + found.recomputed == found.count(VERIFIED) > 0
    looked_up = [one for one in found.outcomes if (one.status, one.rung) == (VERIFIED, "published")]
    assert found.looked_up == len(looked_up)
    told = f"{found.recomputed} claims verified by recomputation, {found.looked_up} agree with the leaderboard only"
    assert found.verdict.startswith(told)
    document = found.document()
    assert (document["verified_by_recomputation"], document["agree_with_leaderboard_only"]) == (
        found.recomputed,
        found.looked_up,
    )


def test_true_claims_are_verified_at_every_rung(tmp_path: Path) -> None:
    measured = judged(tmp_path) + from_outputs("iteration-1", outputs(tmp_path))
    measured += judged(tmp_path, "answers", name="again.json")
    measured += from_run("iteration-1", run(tmp_path / "run", 31.0), "weights")
    measured += from_run("iteration-1", run(tmp_path / "other", 27.0), "recipe")
    found = verdict(tmp_path, "recipe", measured)
    assert status(found, "win rate") == (VERIFIED, "recipe")
    assert status(found, "length") == (VERIFIED, "recipe")
    assert status(found, "average") == (UNCHECKABLE, None)
    assert found.count(CONTRADICTED) == 0


def test_a_wrong_leaderboard_number_breaks_as_published(tmp_path: Path) -> None:
    board = {"package": "p", "file": "f", "model": "m", "row": "iteration-1"}
    reported = load(str(claims(tmp_path / "claims.yaml", leaderboard=board)))
    found = reproduce(reported, [on_board("win rate", 30.006), on_board("length", 120)], "judgments")
    assert status(found, "win rate") == (CONTRADICTED, "published")
    assert status(found, "length") == (VERIFIED, "published")


def test_one_changed_judgment_breaks_at_judgments(tmp_path: Path) -> None:
    measured = judged(tmp_path, wins=[0.99, *WINS[1:]])  # 29.99 %, printed as 30.00 it could not be
    assert status(verdict(tmp_path, "answers", measured), "win rate") == (CONTRADICTED, "judgments")


def test_longer_answers_break_at_answers(tmp_path: Path) -> None:
    measured = judged(tmp_path) + from_outputs("iteration-1", outputs(tmp_path, length=121))
    found = verdict(tmp_path, "answers", measured)
    assert status(found, "length") == (CONTRADICTED, "answers")
    assert status(found, "win rate") == (VERIFIED, "judgments")
    assert "breaks at answers: iteration-1 length" in found.verdict


def test_another_opinion_of_the_same_answers_breaks_at_answers(tmp_path: Path) -> None:
    measured = judged(tmp_path) + judged(tmp_path, "answers", name="again.json", wins=[1.0] * 32 + [0.0] * 68)
    found = verdict(tmp_path, "answers", measured)  # 2 points; 2.576 * 0.5 + 0.005 are allowed
    assert status(found, "win rate") == (CONTRADICTED, "answers")


def test_other_weights_break_at_weights(tmp_path: Path) -> None:
    measured = judged(tmp_path) + judged(tmp_path, "answers", name="again.json")
    measured += from_run("iteration-1", run(tmp_path / "run", 24.5), "weights")
    found = verdict(tmp_path, "weights", measured)  # 5.5 points; 2.576 * sqrt(0.5² + 2²) + 0.005 = 5.32 are allowed
    assert status(found, "win rate") == (CONTRADICTED, "weights")
    assert status(found, "length") == (VERIFIED, "weights")


def test_another_recipe_breaks_at_recipe(tmp_path: Path) -> None:
    measured = from_run("iteration-1", run(tmp_path / "weights", 30.5), "weights")
    measured += from_run("iteration-1", run(tmp_path / "recipe", 22.0), "recipe")
    found = verdict(tmp_path, "recipe", measured)  # 8 points; 2.576 * sqrt(0.25 + 4 + 4) + 0.005 = 7.40 are allowed
    assert status(found, "win rate") == (CONTRADICTED, "recipe")


def test_a_rung_carries_the_noise_of_those_before_it(tmp_path: Path) -> None:
    reported = load(str(claims(tmp_path / "claims.yaml")))
    rungs: tuple[Rung, ...] = ("published", "judgments", "answers", "weights", "recipe")
    allowed = [reported.tolerance("win rate", rung, 0.005) for rung in rungs]
    noise = (0, 0, 0.25, 4.25, 8.25)
    assert allowed == pytest.approx([0.005 + 2.576 * math.sqrt(variance) for variance in noise])


def test_no_deeper_rung_is_looked_at_than_asked_for(tmp_path: Path) -> None:
    measured = judged(tmp_path) + from_run("iteration-1", run(tmp_path / "run", 0.0), "recipe")
    assert verdict(tmp_path, "answers", measured).count(CONTRADICTED) == 0


def test_another_judge_contradicts_nothing(tmp_path: Path) -> None:
    measured = from_run("iteration-1", run(tmp_path / "run", 80.0, judge="my judge"), "weights")
    found = verdict(tmp_path, "weights", measured)
    assert status(found, "win rate") == (UNCHECKABLE, None)
    assert "judged by my judge, not by the official judge" in found.outcomes[0].why


@pytest.mark.parametrize(("value", "expected"), [(36.0, VERIFIED), (40.0, CONTRADICTED)])
def test_a_calibrated_judge_is_compared_with_its_own_error(tmp_path: Path, value: float, expected: str) -> None:
    place = {"table": "alpaca_eval_2", "row": "iteration-1", "judge": "my judge"}
    own = Cell(**place, metric="calibrated win rate", value=value, standard_error=2.0)
    path = run(tmp_path / "run", 80.0, judge="my judge", cells=[own])
    found = verdict(tmp_path, "weights", from_run("iteration-1", path, "weights"))
    assert status(found, "win rate") == (expected, "weights")  # 2.576 * sqrt(2² + 2² + 0.5²) = 7.4 are allowed


def test_without_the_borrowed_files_the_length_controlled_rate_is_uncheckable(tmp_path: Path) -> None:
    changed = {"rows": [{"row": "iteration-1", "LC win rate": 28.0}]}
    found = verdict(tmp_path, "judgments", judged(tmp_path), **changed)
    assert status(found, "LC win rate")[0] == UNCHECKABLE
    assert "not here" in found.outcomes[0].why


def test_what_nobody_published_is_said(tmp_path: Path) -> None:
    gone = [{"row": "iteration-1", "rungs": ["judgments"], "why": "they are lost"}]
    found = verdict(tmp_path, "answers", [], unavailable=gone)
    assert "judgments: they are lost" in found.outcomes[0].why
    assert "answers: needs --outputs" in found.outcomes[0].why


def test_mt_bench_is_checked_from_its_ratings(tmp_path: Path) -> None:
    path = tmp_path / "gpt-4_single.jsonl"
    scores = {(question, turn): 6 + (question + turn) % 4 for question in range(81, 161) for turn in (1, 2)}
    lines = [
        {"question_id": q, "model": "m", "judge": ["gpt-4", "p"], "turn": t, "score": s, "tstamp": 1.0, "judgment": "-"}
        for (q, t), s in scores.items()
    ]
    for changed, expected in ((0, VERIFIED), (1, CONTRADICTED)):
        for line in lines[:40]:
            line["score"] += changed
        path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        measured = from_judgments("iteration-1", path, "judgments", AlpacaEvalData())
        assert status(verdict(tmp_path, "judgments", measured), "average") == (expected, "judgments")


def test_judged_answers_must_be_the_published_ones(tmp_path: Path) -> None:
    assert changed_answers(outputs(tmp_path), annotations(tmp_path)) == 0
    assert changed_answers(outputs(tmp_path), annotations(tmp_path, length=119)) == len(WINS)


def test_a_claim_with_an_unknown_key_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="metrc"):
        load(str(claims(tmp_path / "c.yaml", claims=[{"row": "a", "metrc": "win rate", "value": 1, "source": "s"}])))


def test_a_run_without_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no results\.json"):
        from_run("iteration-1", tmp_path, "weights")


def test_the_last_iteration_agrees_with_the_installed_leaderboard() -> None:
    if importlib.util.find_spec("alpaca_eval") is None:
        pytest.skip("the package alpaca-eval is not installed")
    reported = load(NAME)
    board = published(reported)
    assert {entry.metric: round(entry.value or 0, 4) for entry in board} == {
        "win rate": 35.9465,
        "LC win rate": 34.7874,
        "standard error": 1.441,
        "length": 2275,
    }
    found = reproduce(reported, board, "judgments")
    assert (found.count(VERIFIED), found.count(CONTRADICTED)) == (4, 0)


def test_a_package_that_is_not_installed_is_no_contradiction(tmp_path: Path) -> None:
    board = {"package": "no_such_package", "file": "f", "model": "m", "row": "iteration-1"}
    reported = load(str(claims(tmp_path / "claims.yaml", leaderboard=board)))
    found = reproduce(reported, published(reported), "judgments")
    assert found.count(UNCHECKABLE) == len(found.outcomes)
    assert "no_such_package is not installed" in found.outcomes[0].why


def test_the_real_answers_have_the_published_length(command: Callable[..., Outcome], test_data: Path) -> None:
    path = test_data / "alpaca_eval" / "model_outputs" / "FsfairX-Zephyr-Chat-v0.1.json"
    if not path.is_file():
        pytest.skip(f"no {path}; set GSHF_TEST_DATA")
    outcome = command("reproduce", NAME, "--outputs", path, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    (length,) = [c for c in document["claims"] if (c["row"], c["metric"]) == ("iteration-3", "length")]
    assert (length["status"], length["rung"]) == (VERIFIED, "answers")
    assert length["checks"][-1]["measured"] == 2275


def test_cut_real_answers_are_contradicted(command: Callable[..., Outcome], test_data: Path, tmp_path: Path) -> None:
    path = test_data / "alpaca_eval" / "model_outputs" / "FsfairX-Zephyr-Chat-v0.1.json"
    if not path.is_file():
        pytest.skip(f"no {path}; set GSHF_TEST_DATA")
    answers = json.loads(path.read_text(encoding="utf-8"))
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps([row | {"output": row["output"][:2000]} for row in answers]), encoding="utf-8")
    outcome = command("reproduce", NAME, "--outputs", f"iteration-3={cut}")
    assert outcome.code == 3
    assert "breaks at answers: iteration-3 length" in outcome.line


def test_without_inputs_the_command_says_what_each_rung_needs(command: Callable[..., Outcome]) -> None:
    outcome = command("reproduce", NAME)
    assert outcome.code == 0
    for option in ("--annotations", "--outputs", "--rejudged", "--run"):
        assert option in outcome.out
    assert "Uncheckable: base, mt_bench (average)" in outcome.out
    assert "(contrast)" in outcome.out


def test_a_contradiction_is_exit_code_three(command: Callable[..., Outcome], tmp_path: Path) -> None:
    path = claims(tmp_path / "claims.yaml")
    wrong = annotations(tmp_path, wins=[*np.roll(WINS, 1).tolist()[:-1], 0.0], length=130)
    outcome = command("reproduce", path, "--annotations", wrong, "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["claims"][1]["breaks_at"] == "judgments"
    assert "breaks at judgments: iteration-1 length" in outcome.line


def test_new_judgments_of_other_answers_are_refused(command: Callable[..., Outcome], tmp_path: Path) -> None:
    path, again = claims(tmp_path / "claims.yaml"), annotations(tmp_path, name="again.json", length=90)
    outcome = command("reproduce", path, "--outputs", outputs(tmp_path), "--rejudged", again)
    assert outcome.code == 1
    assert "100 judged answers are not those" in outcome.line


def test_a_row_without_a_claim_is_one_line(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("reproduce", NAME, "--outputs", "iteration-9=missing.json")
    assert outcome.code == 1
    assert "no claim on a row 'iteration-9'" in outcome.line


def test_a_run_needs_its_rung(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("reproduce", NAME, "--run", tmp_path)
    assert outcome.code == 2
    assert "--from weights or --from recipe" in outcome.err


def test_a_run_is_compared_from_the_command(command: Callable[..., Outcome], tmp_path: Path) -> None:
    path, folder = claims(tmp_path / "claims.yaml"), run(tmp_path / "run", 30.5)
    assert command("reproduce", path, "--from", "weights", "--run", folder).code == 0
    assert command("reproduce", path, "--from", "recipe", "--run", run(tmp_path / "bad", 60.0)).code == 3


@pytest.mark.parametrize(("flip", "kept", "code"), [(False, 805, 0), (True, 805, 3), (False, 400, 0)])
def test_real_judgments_give_the_leaderboards_row(
    command: Callable[..., Outcome], test_data: Path, tmp_path: Path, flip: bool, kept: int, code: int
) -> None:
    """claude-2's 805 stored judgments against its row, to every digit; one flipped one breaks the claim, half say nothing."""
    folder = test_data / "alpaca_eval"
    stored = folder / "annotations" / "claude-2.json.gz"
    if not stored.is_file() or importlib.util.find_spec("alpaca_eval") is None:
        pytest.skip(f"no {stored}, or no alpaca-eval; set GSHF_TEST_DATA")
    board = load(NAME).leaderboard
    assert board is not None
    named = board.model_dump() | {"model": "claude-2", "row": "iteration-1"}
    row = {"row": "iteration-1", "win rate": 17.19, "LC win rate": 28.16, "length": 1069}
    numerical = {"LC win rate": 0.16}
    path = claims(tmp_path / "claims.yaml", rows=[row], claims=[], leaderboard=named, numerical=numerical)
    judged = json.loads(gzip.decompress(stored.read_bytes()))
    if flip:
        judged[400]["preference"] = 3 - judged[400]["preference"]
    given = tmp_path / "annotations.json"
    given.write_text(json.dumps(judged[:kept]), encoding="utf-8")
    data = ("--data", folder, "--allow-unverified-data")
    outcome = command("reproduce", path, "--annotations", given, *data, "--json")
    assert outcome.code == code, outcome.err
    stated = json.loads(outcome.out)["claims"]
    if kept < len(judged):
        assert CONTRADICTED not in {each["status"] for each in stated}
        assert "judgments" not in {each["rung"] for each in stated}
        return
    found = {each["metric"]: (each["status"], each["rung"]) for each in stated}
    assert found["win rate"] == (CONTRADICTED if flip else VERIFIED, "judgments")
    assert found["length"] == (VERIFIED, "judgments")
    if not flip:
        assert found["LC win rate"] == (VERIFIED, "judgments")


@pytest.mark.parametrize("model", ["phi-2", "someone/other", "MODEL-2"])
def test_judgments_and_answers_of_another_model_are_refused_with_both_names(
    command: Callable[..., Outcome], tmp_path: Path, model: str
) -> None:
    path = claims(tmp_path / "claims.yaml")
    for option, file, key in (
        ("--annotations", annotations(tmp_path), "generator_2"),
        ("--outputs", outputs(tmp_path), "generator"),
    ):
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps([row | {key: model} for row in content]), encoding="utf-8")
        outcome = command("reproduce", path, option, file)
        assert outcome.code == 1
        assert f"{file} is about {model!r}, the claims on iteration-1 are about someone/model." in outcome.line
        assert outcome.out == ""


def test_a_name_is_the_same_with_another_owner_case_or_separator(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = claims(tmp_path / "claims.yaml", name="Someone/My-Model_v0.1", models={"iteration-1": ["mine-iteration-1"]})
    for model in ("my-model-v0.1", "someone--my model V0.1", "mine-iteration-1"):
        content = [row | {"generator_2": model} for row in rows(WINS)]
        file = tmp_path / "a.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        outcome = command("reproduce", path, "--annotations", file)
        assert outcome.code == 0, outcome.err
        assert "Warning" not in outcome.err


def test_answers_that_name_no_model_are_said_to_be_unchecked(command: Callable[..., Outcome], tmp_path: Path) -> None:
    path, file = claims(tmp_path / "claims.yaml"), outputs(tmp_path)
    content = [{"instruction": row["instruction"], "output": row["output"]} for row in json.loads(file.read_text())]
    file.write_text(json.dumps(content), encoding="utf-8")
    outcome = command("reproduce", path, "--outputs", file, "--json")
    assert outcome.code == 0, outcome.err
    told = f"{file} names no model; the claims on iteration-1 are about someone/model. That it is this one was not checked."
    assert json.loads(outcome.out)["notices"] == [told]
    assert told in outcome.err


def test_a_run_that_evaluates_something_of_another_name_is_said(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    place = {"table": "alpaca_eval_2", "row": "checkpoint-500", "n": 805, "judge": JUDGE}
    (tmp_path / "run").mkdir()
    write_cells([Cell(**place, metric="win rate", value=30.5, unit="%")], tmp_path / "run/results.json")
    outcome = command("reproduce", claims(tmp_path / "claims.yaml"), "--from", "weights", "--run", tmp_path / "run")
    assert "is about 'checkpoint-500', the claims on iteration-1 are about someone/model." in outcome.err


def test_a_run_that_measured_a_part_confirms_and_contradicts_nothing(tmp_path: Path) -> None:
    place = {"table": "alpaca_eval_2", "row": "iteration-1", "n": 20, "of": 805, "judge": JUDGE}
    write_cells([Cell(**place, metric="win rate", value=90.0, unit="%")], tmp_path / "results.json")
    (measured,) = from_run("iteration-1", tmp_path, "weights")
    assert (measured.value, measured.why) == (
        None,
        f"only 20 of 805 judgments were made in {tmp_path / 'results.json'}",
    )


def test_a_part_of_mt_bench_confirms_and_contradicts_nothing_and_says_so(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tmp_path / "gpt-4_single.jsonl"
    row = {"model": "model", "judge": ["gpt-4", "p"], "turn": 1, "score": 2, "tstamp": 1.0, "judgment": "-"}
    path.write_text("\n".join(json.dumps(row | {"question_id": 81 + n}) for n in range(80)), encoding="utf-8")
    outcome = command("reproduce", claims(tmp_path / "claims.yaml"), "--annotations", path, "--json")
    assert outcome.code == 0, outcome.err
    told = f"{path} is not compared with the claims on mt_bench (average): only 80 of 160 judgments are in {path.name}."
    assert json.loads(outcome.out)["notices"] == [told]
    assert f"Warning: {told}" in outcome.err


def test_judgments_that_are_compared_with_nothing_are_named_with_the_reason(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = annotations(tmp_path, annotator="my-judge")
    outcome = command("reproduce", claims(tmp_path / "claims.yaml"), "--annotations", path)
    assert (
        f"Warning: {path} is not compared with the claims on alpaca_eval_2 (win rate, standard error): judged by my-judge, not "
        "by the official judge; calibrate it to compare."
    ) in outcome.err


def test_a_run_whose_judge_was_another_model_confirms_and_contradicts_nothing(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    place = {"table": "alpaca_eval_2", "row": "iteration-1", "n": 100, "judge": JUDGE}
    folder = run(tmp_path / "run", 90.0, cells=[Cell(**place, metric=doubt(OTHER_MODEL), value=1.0)])
    outcome = command(
        "reproduce", claims(tmp_path / "claims.yaml"), "--from", "weights", "--run", f"iteration-1={folder}"
    )
    assert outcome.code == 0, outcome.err
    told = f"is not compared with the claims on alpaca_eval_2 (win rate, standard error): judgments were {OTHER_MODEL}."
    assert f"Warning: {folder / 'results.json'} {told}" in outcome.err
