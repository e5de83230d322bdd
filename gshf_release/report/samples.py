"""Pick prompts of an evaluated run with the answers of every policy to them, by a rule that cannot flatter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gshf_release.data.printable import one_line
from gshf_release.data.records import Message, Prompt, Sample, Score
from gshf_release.errors import RunError
from gshf_release.evaluation.stages import decodings
from gshf_release.prompts.split import EVALUATION, FILE, stage_name
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import iteration_row, tasks
from gshf_release.sampling.stage import FILE as SAMPLES

PROMPTS = {"test": stage_name("test"), "eval": EVALUATION}
"""Sets of prompts and the stages that put them out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One policy's answer to a prompt."""

    row: str
    text: str
    reward: float
    ended: bool
    """False if the token limit cut it off."""


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt with the answers of the base and of every iteration, decoded alike."""

    prompt_id: str
    messages: list[Message]
    answers: list[Answer]

    @property
    def gain(self) -> float:
        """The last policy's reward minus the base's."""
        return self.answers[-1].reward - self.answers[0].reward


def answered_prompts(run: RunDirectory, name: str = "test", decoding: str = "greedy") -> list[AnsweredPrompt]:
    """Return every prompt of a set that all policies have answered, in the order of the set.

    Args:
        run: An evaluated run.
        name: `test` or `eval`.
        decoding: `greedy`, `T=0.7` and so on.

    Raises:
        RunError: The run has no such answers.
    """
    if decoding not in (known := [one.label for one in decodings(run.recipe, "iteration-1")]):
        raise RunError(f"No policy answered with {decoding!r}.", hint=f"There are: {', '.join(known)}.")
    rows = ["base", *(iteration_row(number) for number in range(1, run.recipe.loop.iterations + 1))]
    by_row = {row: _answers(run, row, name, decoding) for row in rows}
    prompts = Prompt.read(*_files(run, PROMPTS[name], FILE))
    return [
        AnsweredPrompt(prompt.prompt_id, prompt.messages, [by_row[row][prompt.prompt_id] for row in rows])
        for prompt in prompts
        if all(prompt.prompt_id in answers for answers in by_row.values())
    ]


def spread_over_gains(prompts: Sequence[AnsweredPrompt], count: int = 1) -> list[AnsweredPrompt]:
    """Return `count` prompts at equal distances in the order of gain: of five the 10th, 30th, ... percentile.

    Of equal gains the prompt that comes first in the set stands first.
    """
    ranked = sorted(prompts, key=lambda prompt: prompt.gain)
    count = min(count, len(ranked))
    return [ranked[(2 * number + 1) * len(ranked) // (2 * count)] for number in range(count)]


def first_better(prompts: Sequence[AnsweredPrompt]) -> AnsweredPrompt:
    """Return the first prompt on which the last policy is better than the base; the first of all if there is none."""
    return next((prompt for prompt in prompts if prompt.gain > 0), prompts[0])


def gain_line(prompts: Sequence[AnsweredPrompt]) -> str:
    """Return how many prompts the last policy gained and lost on."""
    up, down = (sum(sign * prompt.gain > 0 for prompt in prompts) for sign in (1, -1))
    row = prompts[0].answers[-1].row
    return f"{row} against the base: {up} of {len(prompts)} prompts better, {len(prompts) - up - down} equal, {down} worse."


def sample_lines(prompt: AnsweredPrompt, decoding: str) -> list[str]:
    """Return a prompt and its answers as text, a line each."""
    width = max(len(answer.row) for answer in prompt.answers)
    asked = one_line(prompt.messages[-1]["content"])
    return [
        f"Prompt ({decoding}): {asked}",
        *(
            f"  {answer.row:{width}}  {answer.reward:5.2f}  {one_line(answer.text)}{'' if answer.ended else ' [cut off]'}"
            for answer in prompt.answers
        ),
    ]


def _answers(run: RunDirectory, row: str, name: str, decoding: str) -> dict[str, Answer]:
    samples = Sample.read(*_files(run, f"{row}/{name}/answers", SAMPLES))
    scores = {
        (score.prompt_id, score.sample_index): score.reward
        for score in Score.read(*_files(run, f"{row}/{name}/reward-scores", "scores.parquet"))
    }
    return {
        sample.prompt_id: Answer(row, sample.text, scores[key], sample.finish_reason == "stop")
        for sample in samples
        if sample.decoding == decoding and (key := (sample.prompt_id, sample.sample_index)) in scores
    }


def _files(run: RunDirectory, stage: str, file: str) -> list[Path]:
    declared = next((known for known in run.plan if known.name == stage), None)
    found = [] if declared is None else [run.folder(task) / file for task in tasks([declared])]
    if not found or not all(path.is_file() for path in found):
        raise RunError(f"{run.path} has no {stage}.", hint=f"Run: gshf-release eval {run.path}")
    return found
