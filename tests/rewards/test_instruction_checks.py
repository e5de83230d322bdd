"""Rules as a reward: the same values in a run as by hand, no score for what was cut off, one line for every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gshf_release import pipeline
from gshf_release.cli import cli
from gshf_release.data.records import Message, Prompt, RuleCheck, Sample, Score
from gshf_release.data.results import find
from gshf_release.diagnostics.row_metrics import rule_cells
from gshf_release.errors import CheckpointError, EngineError, RecipeError
from gshf_release.planning import doctor, preflight
from gshf_release.planning.plan import make_plan
from gshf_release.prompts.instruction_prompts import instruction_prompts, write_prompts
from gshf_release.prompts.instruction_rules import INSTRUCTIONS, TRAINING_RULES, check_rules, share_kept
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.release.card import reward_name
from gshf_release.report.tables import rules_table
from gshf_release.rewards.instruction_checks import InstructionChecks, load_rules
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from tests import tiny

EXACT = Profile(inference_precision="fp32", threads=1)
OWN_RULES = """
import re
from gshf_release.prompts.instruction_rules import Rule, words

RULES = [
    Rule(
        name="has-word",
        group="word",
        pattern=re.compile(r"write one sentence about (\\w+)", re.IGNORECASE),
        kept=lambda response, topic: len(words(response)) % 2 == 0,
    ),
]
"""


def recipe(folder: Path, prompts: Path, **reward: Any) -> Recipe:
    content = tiny.recipe(folder, reward=reward, loop={"iterations": 1})
    ending = folder / "ending"
    content["base"]["model"] = str(ending if ending.exists() else tiny.save_ending(ending))
    content["prompts"] = {
        "source": str(prompts),
        "roles": {"per_iteration": 6, "validation": 2, "test": 3, "second_scorer": 8},
    }
    content["evaluation"]["prompts"] = None
    content["sampling"] |= {"n": 12, "max_new_tokens": 16}
    return parse(Recipe, content, "tiny")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    write_prompts(instruction_prompts(40, 0, TRAINING_RULES), path)
    return path


def run_until(chosen: Recipe, path: Path, *names: str) -> RunDirectory:
    stages = pipeline.build(chosen).stages
    by_name = {stage.name: stage for stage in stages}
    needed, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [item.stage for item in by_name[name].inputs]
    run = RunDirectory.create(path, chosen, EXACT)
    execute(stages, run, chosen, EXACT, goal=[stage for stage in stages if stage.name in needed])
    return run


def rows(run: RunDirectory, stage: str, file: str, kind: Any) -> list[Any]:
    return kind.read(*sorted((run.path / stage).glob(f"**/{file}")))


@pytest.mark.parametrize("all_or_nothing", [False, True])
def test_a_run_scores_what_the_rules_say_by_hand(
    tiny_folder: Path, tmp_path: Path, prompts: Path, all_or_nothing: bool
) -> None:
    chosen = recipe(tiny_folder, prompts, checks="instructions", all_or_nothing=all_or_nothing)
    run = run_until(chosen, tmp_path / "run", "iteration-1/rewards")
    asked = {
        row.prompt_id: row.messages[-1]["content"] for row in rows(run, "iteration-1/prompts", "*.parquet", Prompt)
    }
    samples = rows(run, "iteration-1/samples", "samples.parquet", Sample)
    found = {
        (row.prompt_id, row.sample_index): row for row in rows(run, "iteration-1/rewards", "scores.parquet", Score)
    }
    assert {sample.finish_reason for sample in samples} == {"stop", "length"}
    for sample in samples:
        checks = check_rules(asked[sample.prompt_id], sample.text, INSTRUCTIONS, ended=sample.finish_reason == "stop")
        reward = found[sample.prompt_id, sample.sample_index].reward
        assert reward == share_kept(checks, all_or_nothing=all_or_nothing)
        assert reward == 0 or sample.finish_reason == "stop"
    stated = rows(run, "iteration-1/rewards", "rule-checks.parquet", RuleCheck)
    assert len(stated) == len(samples) * 4
    assert {row.rule for row in stated} >= {"topic", "one-sentence"}


def test_a_policy_is_evaluated_rule_by_rule(tiny_folder: Path, tmp_path: Path, prompts: Path) -> None:
    chosen = recipe(tiny_folder, prompts, checks="instructions")
    run = run_until(chosen, tmp_path / "run", "base/test/judgments")
    cells = json.loads((run.path / "results" / "base.test.judgments.json").read_text(encoding="utf-8"))
    kept = [
        entry for entry in cells["cells"] if entry["metric"] == "kept: one-sentence" and entry["decoding"] == "greedy"
    ]
    checks = rows(run, "base/test/reward-scores", "rule-checks.parquet", RuleCheck)
    greedy = [row.kept for row in checks if row.rule == "one-sentence" and row.decoding == "greedy"]
    assert [entry["value"] for entry in kept] == [pytest.approx(100 * sum(greedy) / len(greedy))]
    assert kept[0]["n"] == 3


def test_shares_and_paired_gains_of_rules_by_hand() -> None:
    def check(prompt: str, rule: str, kept: bool, decoding: str = "greedy") -> RuleCheck:
        return RuleCheck(prompt, 0, decoding, rule, kept, required=False)

    base = [check("p", "a", False), check("p", "b", False), check("q", "a", True), check("q", "a", False)]
    own = [check("p", "a", True), check("p", "b", False), check("q", "a", True), check("q", "a", True)]
    place = {"judge": "reward", "table": "test", "artefact": "x"}
    cells = [*rule_cells(base, base, row="base", **place), *rule_cells(own, base, row="iteration-1", **place)]

    def value(row: str, metric: str) -> float | None:
        found = find(cells, row=row, metric=metric)
        return None if found is None else found.value

    assert value("base", "kept: a") == 25.0  # nothing of p, half of q
    assert value("iteration-1", "kept: a") == 100.0
    assert value("iteration-1", "kept: a, gain") == 75.0
    assert value("iteration-1", "all rules kept") == 50.0
    assert value("iteration-1", "all rules kept, gain") == 50.0
    assert value("base", "kept: a, gain") is None
    gain = find(cells, row="iteration-1", metric="kept: a, gain")
    assert gain is not None
    assert gain.standard_error == pytest.approx(25.0)  # differences 100 and 50: deviation 35.36 over sqrt 2
    table = rules_table(cells, "test")
    assert table.header == ["rule", "prompts", "base", "iteration-1", "last gain"]
    assert [row[0] for row in table.rows] == ["a", "b", "all rules kept"]
    assert table.rows[0][1] == "2"


def test_the_rules_are_those_of_the_last_user_turn() -> None:
    turns = [
        Message(role="system", content="Use no commas."),
        Message(role="user", content="Use at least nine words."),
        Message(role="assistant", content="No."),
        Message(role="user", content="Use no commas."),
        Message(role="assistant", content="It rains today"),
    ]
    assert InstructionChecks(INSTRUCTIONS).score([turns]).tolist() == [1.0]


def test_a_list_of_ones_own_scores_and_a_change_of_it_is_noticed(
    tiny_folder: Path, tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "even_number_of_words.py"
    module.write_text(OWN_RULES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    chosen = recipe(tiny_folder, prompts, checks="python:even_number_of_words:RULES")
    run = run_until(chosen, tmp_path / "run", "iteration-1/rewards")
    assert {row.rule for row in rows(run, "iteration-1/rewards", "rule-checks.parquet", RuleCheck)} == {"has-word"}
    assert "RULES" in str(reward_name(chosen))
    module.write_text(OWN_RULES + "# changed\n", encoding="utf-8")
    shutil.rmtree(run.path / "iteration-1" / "rewards")
    with pytest.raises(EngineError, match="has changed since this run began"):
        run_until(chosen, run.path, "iteration-1/rewards")


def test_prompts_without_rules_are_told_before_any_work(tiny_folder: Path, tmp_path: Path, prompts: Path) -> None:
    chosen = recipe(tiny_folder, prompts, checks="instructions")
    assert all(finding.ok and not finding.warning for finding in preflight.findings(chosen) if "rules" in finding.what)
    lines = prompts.read_text(encoding="utf-8").splitlines()
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([json.dumps({"prompt": "Why is gold good?"}), *lines]), encoding="utf-8")
    (warning,) = [
        each for each in preflight.findings(recipe(tiny_folder, mixed, checks="instructions")) if each.warning
    ]
    assert warning.found.startswith("1 of 41 prompts of prompts.source state no rule")
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(f'{{"prompt": "Why is gold good for {n} banks?"}}\n' for n in range(40)), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"No prompt of prompts.source states a rule that 'instructions' knows"):
        preflight.require_ready(recipe(tiny_folder, plain, checks="instructions"))


def test_plan_and_doctor_know_that_no_reward_model_is_needed(tiny_folder: Path, tmp_path: Path, prompts: Path) -> None:
    chosen = recipe(tiny_folder, prompts, checks="instructions")
    plan = make_plan(chosen, Profile(), tmp_path / "run")
    assert plan.reward_parameters == 0.0
    assert not plan.missing
    (said,) = [finding.found for finding in doctor.check(chosen, Profile()) if finding.what == "reward"]
    assert said == f"{len(INSTRUCTIONS)} kinds of rules, checked by a program"
    assert reward_name(chosen) == "rules that the prompts state, checked by a program: the share that is kept"


@pytest.mark.parametrize(
    ("reward", "line"),
    [
        ({"checks": "instructions", "model": "a"}, "`model` and `checks` exclude each other"),
        ({"checks": "instrctions"}, "checks is 'instructions' or python:package.module:NAME"),
        ({"all_or_nothing": True}, "`all_or_nothing` belongs to `checks`"),
    ],
)
def test_a_description_that_makes_no_sense_is_one_line(
    tiny_folder: Path, prompts: Path, reward: dict[str, Any], line: str
) -> None:
    with pytest.raises(RecipeError, match=line):
        recipe(tiny_folder, prompts, **reward)


def test_the_answers_of_a_file_are_scored_by_rules(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    prompt = "Write one sentence about rain. Use no commas. End with a question mark."
    rows = [{"prompt": prompt, "response": text} for text in ("Is rain wet?", "Rain, is it wet?", "It is wet today.")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = CliRunner().invoke(cli, ["reward", "score", str(file), "--kind", "checks", "--model", "instructions"])
    assert done.exit_code == 0, done.output
    scored = (tmp_path / "answers.scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reward"] for line in scored] == [1.0, 0.5, 0.0]
    wrong = CliRunner().invoke(cli, ["reward", "score", str(file), "--kind", "checks", "--model", "instrctions"])
    assert "instrctions" in str(wrong.exception)


def test_the_command_writes_the_prompts(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "prompts.jsonl"
    done = CliRunner().invoke(cli, ["prompts", "--instructions", "5", "--out", str(out), "--seed", "0"])
    assert done.exit_code == 0, done.output
    written = [json.loads(line)["prompt"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert written == instruction_prompts(5, 0, TRAINING_RULES)
    wrong = CliRunner().invoke(cli, ["prompts", "--instructions", "5", "quickstart", "--out", str(out)])
    assert wrong.exit_code == 2
    assert "Give a RECIPE, or --instructions COUNT." in wrong.output


def test_the_rule_in_the_documents_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "my_rules.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rules = load_rules("python:my_rules:RULES")
    (written,) = [rule for rule in rules if rule.name == "same-first-letter"]
    (prompt,) = instruction_prompts(1, 0, [written], rules_each=1)
    letter = prompt[-3]
    messages = [
        Message(role="user", content=prompt),
        Message(role="assistant", content=f"{letter}a {letter}e {letter}i"),
    ]
    (check,) = [
        one for one in InstructionChecks(rules).check(messages[:1], messages[1]["content"]) if "letter" in one.rule
    ]
    assert check.kept
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]) <= 10
