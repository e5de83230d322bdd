"""Replay stored official judgments: the same pairs of answers, on a sample of prompts, before a substitute judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from gshf_release.data import user_files
from gshf_release.data.hashing import seed_from
from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval.annotations import Annotation, groups
from gshf_release.evaluation.alpaca_eval.annotations import read as read_annotations
from gshf_release.evaluation.calibration.agreement import Pairs
from gshf_release.evaluation.calibration.regression import Array
from gshf_release.evaluation.judging import alpaca_eval


class Comparison(NamedTuple):
    """Two answers to compare."""

    instruction: str
    baseline_answer: str
    model_answer: str
    baseline: str
    model: str


class Verdict(NamedTuple):
    """Records what a judge says of a comparison."""

    preference: float | None
    """For the model's answer, 0 to 1; None if the judgment failed."""
    model_first: bool | None = None
    """Whether the judge saw the model's answer first; None if that is not known."""


def model_first(comparison: Comparison) -> bool:
    """Return whether alpaca_eval's protocol shows the judge the model's answer first; drawn from the instruction alone."""
    first, second = {"output": comparison.baseline_answer}, {"output": comparison.model_answer}
    return alpaca_eval.Pair(comparison.instruction, first, second).switched


class SubstituteJudge(Protocol):
    """Whatever compares two answers: an LLM behind a server, stored judgments of one, a stub."""

    @property
    def name(self) -> str:
        """Return what results call it."""
        ...

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return a verdict for each comparison, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Official:
    """The stored judgments of several models by one judge against one baseline."""

    judge: str
    baseline: str
    models: tuple[str, ...]
    rows: dict[str, dict[str, Annotation]]
    """`{model: {instruction: its row}}`."""

    def shared_prompts(self) -> list[str]:
        """Return the instructions that every model has a judgment for, in the first model's order."""
        first, *others = (self.rows[model] for model in self.models)
        return [text for text in first if all(text in other for other in others)]


@dataclass(frozen=True, slots=True)
class ReplayedPairs:
    """Both judges on the same pairs. Prompts with a failed judgment are left out."""

    official: Array
    """(prompts, models), preference for the model's answer, 0 to 1."""
    substitute: Array
    """(prompts, models)"""
    pairs: Pairs
    failed: int
    """Judgments that failed."""


def read_official(paths: Sequence[Path]) -> Official:
    """Return the judgments in some annotations.json files.

    Raises:
        DataError: A file is broken, they mix judges or baselines, or a model or instruction comes twice.
    """
    runs = [group for path in paths for group in groups(read_annotations(path))]
    judges = {(group[0].annotator, group[0].generator_1): group[0].place for group in runs}
    if len(judges) > 1:
        (one, place), (other, elsewhere), *_ = judges.items()
        raise DataError(
            f"{place} is judged by {one[0]} against {one[1]}, but {elsewhere} by {other[0]} against {other[1]}.",
            hint="Give judgments of one judge and one baseline.",
        )
    rows: dict[str, dict[str, Annotation]] = {}
    for group in runs:
        model = group[0].generator_2
        if model in rows:
            raise DataError(f"{group[0].place}: the model {model} comes twice.", hint="Give each model's file once.")
        rows[model] = _by_instruction(group)
    _require_one_baseline(rows)
    ((judge, baseline),) = judges
    return Official(judge, baseline, tuple(rows), rows)


def _require_one_baseline(rows: dict[str, dict[str, Annotation]]) -> None:
    """Refuse files whose baseline gave different answers to a prompt: their win rates would not compare."""
    answers: dict[str, str] = {}
    for own in rows.values():
        for text, row in own.items():
            if answers.setdefault(text, row.output_1) != row.output_1:
                raise DataError(
                    f"{row.place}: the baseline's answer is another one than in an earlier file.",
                    hint="Give judgments against the same answers of the baseline.",
                )


def _by_instruction(group: Sequence[Annotation]) -> dict[str, Annotation]:
    found: dict[str, Annotation] = {}
    for row in group:
        if row.instruction in found:
            raise DataError(f"{row.place} judges an instruction that an earlier row has.", hint="Remove one of them.")
        if row.win is not None:
            found[row.instruction] = row
    return found


def sample(prompts: Sequence[str], size: int | None, seed: int) -> list[str]:
    """Return `size` prompts drawn without replacement, all if None; a larger sample contains the smaller one.

    Raises:
        DataError: There are fewer.
    """
    if size is None:
        return list(prompts)
    if size > len(prompts):
        raise DataError(
            f"A sample of {size} prompts was asked for, but the models share {len(prompts)}.", hint="Lower --sample."
        )
    order = sorted(prompts, key=lambda text: (seed_from(seed, "calibration sample", text), text))
    chosen = set(order[:size])
    return [text for text in prompts if text in chosen]


def replay(official: Official, prompts: Sequence[str], judge: SubstituteJudge) -> ReplayedPairs:
    """Return both judges' preferences on the pairs of all models on `prompts`.

    Raises:
        DataError: Every prompt has a failed judgment.
    """
    rows = [official.rows[model][text] for text in prompts for model in official.models]
    verdicts = judge.judge([_comparison(row) for row in rows])
    shape = (len(prompts), len(official.models))
    wins = np.array([row.win for row in rows], dtype=np.float64)
    preferences = np.array([np.nan if v.preference is None else v.preference for v in verdicts], dtype=np.float64)
    good = ~np.isnan(preferences)
    whole = good.reshape(shape).all(axis=1)
    if not whole.any():
        raise DataError(
            f"The judge {judge.name} left no prompt without a failed judgment.", hint="Look at its answers."
        )
    sides = np.array([np.nan if v.model_first is None else (1.0 if v.model_first else -1.0) for v in verdicts])
    longer = np.array([float(np.sign(len(row.output_2) - len(row.output_1))) for row in rows])
    pairs = Pairs(
        official=wins[good],
        substitute=preferences[good],
        prompt=[row.instruction for row, ok in zip(rows, good, strict=True) if ok],
        longer=longer[good],
        first=sides[good],
    )
    table = wins.reshape(shape)[whole], preferences.reshape(shape)[whole]
    return ReplayedPairs(*table, pairs=pairs, failed=int((~good).sum()))


def _comparison(row: Annotation) -> Comparison:
    return Comparison(row.instruction, row.output_1, row.output_2, row.generator_1, row.generator_2)


def judge_outputs(path: Path, official: Official, prompts: Sequence[str], judge: SubstituteJudge) -> tuple[str, Array]:
    """Return a new model's name and its preferences (prompts,) by the substitute; failed judgments are left out.

    Args:
        path: Its `model_outputs.json`: rows with instruction, output, generator.
        official: Has the baseline's answers.
        prompts: The sample.
        judge: The substitute.

    Raises:
        DataError: The file is broken, has no answer to a prompt of the sample, or fewer than two judgments came out.
    """
    answers, named = read_outputs(path)
    name = named or path.stem
    missing = [text for text in prompts if text not in answers]
    if missing:
        raise DataError(
            f"{path} has no answer to {len(missing)} of the {len(prompts)} sampled prompts.",
            hint="Give the model's complete model_outputs.json.",
        )
    baselines = official.rows[official.models[0]]
    verdicts = judge.judge(
        [Comparison(text, baselines[text].output_1, answers[text], official.baseline, name) for text in prompts]
    )
    found = np.array([verdict.preference for verdict in verdicts if verdict.preference is not None])
    if len(found) < 2:
        raise DataError(f"The judge {judge.name} gave {len(found)} judgments of {path}.", hint="Look at its answers.")
    return name, found


def read_outputs(path: Path) -> tuple[dict[str, str], str]:
    """Return `{instruction: answer}` of a `model_outputs.json`, and the model's name, empty if the file does not say it.

    Raises:
        DataError: It is not such a file (names the row), or holds the answers of several models.
    """
    hint = "Expected is AlpacaEval's model_outputs.json: a list of rows with instruction, output, generator."
    document = list(user_files.rows(path))
    if not document:
        raise DataError(f"{path} must hold a list of rows.", hint=hint)
    answers: dict[str, str] = {}
    for place, row in document:
        if isinstance(row, ValueError):
            raise DataError(f"{place} is not JSON: {row}.", hint=hint) from row
        instruction, output = (row.get("instruction"), row.get("output")) if isinstance(row, dict) else (None, None)
        if not isinstance(instruction, str) or not isinstance(output, str):
            raise DataError(f"{place} has no texts `instruction` and `output`.", hint=hint)
        answers[instruction] = output
    names = {str(row["generator"]) for _, row in document if row.get("generator")}
    if len(names) > 1:
        raise DataError(f"{path} holds the answers of {len(names)} models; one is expected.", hint=hint)
    return answers, names.pop() if names else ""


class StoredJudge:
    """A substitute whose judgments were stored before, in annotations.json files."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        """Read the judgments.

        Raises:
            DataError: A file is broken.
        """
        self.name = name
        self.paths = tuple(paths)
        self.rows = {
            (row.instruction, row.output_1, row.output_2): row for path in paths for row in read_annotations(path)
        }

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return the stored verdicts; one that was stored as null counts as failed.

        The order in which the answers were shown is not stored; it is the one that alpaca_eval draws.

        Raises:
            DataError: A pair was never judged.
        """
        found = []
        for one in comparisons:
            row = self.rows.get((one.instruction, one.baseline_answer, one.model_answer))
            if row is None:
                raise DataError(
                    f"{self.paths[0]} has no judgment of a pair of {one.model} that the official judge has.",
                    hint="Give the substitute's judgments of all models and sampled prompts, or let it judge them.",
                )
            found.append(Verdict(row.win, model_first(one)))
        return found
