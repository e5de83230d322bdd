"""Which prompts are shown, and what is said of each policy's answer."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gshf_release.cli import cli
from gshf_release.data.records import Message, Sample
from gshf_release.errors import RunError
from gshf_release.report.samples import (
    Answer,
    AnsweredPrompt,
    answered_prompts,
    first_better,
    gain_line,
    sample_lines,
    spread_over_gains,
)
from gshf_release.run.directory import RunDirectory


def prompt(name: str, gain: float) -> AnsweredPrompt:
    answers = [Answer("base", "one\x1b[2J", 0.0, ended=False), Answer("iteration-1", "two\nlines", gain, ended=True)]
    return AnsweredPrompt(name, [Message(role="user", content=name)], answers)


def test_the_shown_prompt_is_the_first_that_got_better_beside_how_many_did() -> None:
    prompts = [
        prompt("b", 0.0),
        prompt("c", -1.0),
        prompt("d", 0.5),
        prompt("e", 1.0),
        prompt("f", 0.5),
        prompt("g", 0.5),
    ]
    assert first_better(prompts).prompt_id == "d"
    assert first_better(prompts[:2]).prompt_id == "b"
    assert gain_line(prompts) == "iteration-1 against the base: 4 of 6 prompts better, 1 equal, 1 worse."


def test_several_prompts_lie_at_equal_distances_in_the_order_of_gains() -> None:
    prompts = [prompt(str(number), number) for number in (7, 3, 9, 1, 5, 0, 8, 2, 6, 4)]
    assert [one.gain for one in spread_over_gains(prompts, 5)] == [1, 3, 5, 7, 9]
    assert [one.gain for one in spread_over_gains(prompts, 99)] == list(range(10))


def test_an_answer_is_one_line_that_moves_no_cursor() -> None:
    assert sample_lines(prompt("why?", 0.25), "greedy") == [
        "Prompt (greedy): why?",
        "  base          0.00  one\\x1b[2J [cut off]",
        "  iteration-1   0.25  two\\nlines",
    ]


def test_the_answers_are_those_of_the_run(finished: RunDirectory) -> None:
    run = finished
    found = answered_prompts(run, "test", "T=0.7")
    assert len(found) == run.recipe.prompts.roles.test
    stored = Sample.read(*sorted((run.path / "iteration-1" / "test" / "answers").glob("**/samples.parquet")))
    texts = {sample.prompt_id: sample.text for sample in stored if sample.decoding == "T=0.7"}
    assert {one.prompt_id: one.answers[1].text for one in found} == texts
    with pytest.raises(RunError, match="No policy answered with"):
        answered_prompts(run, "test", "T=0.5")


def test_the_command_prints_them(finished: RunDirectory) -> None:
    done = CliRunner().invoke(cli, ["samples", str(finished.path), "--count", "2", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert len(document["prompts"]) == 2
    assert [answer["row"] for answer in document["prompts"][0]["answers"]] == ["base", "iteration-1", "iteration-2"]
    nothing = CliRunner().invoke(cli, ["samples", str(finished.path), "--find", "no such words"])
    assert "has 'no such words'" in str(nothing.exception)
