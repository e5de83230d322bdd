"""AlpacaEval 2's protocol: which of two answers a judge prefers, weighed by the probabilities of its first token.

The prompt, the tokens that are weighed and the order of the two answers are those of the installed `alpaca-eval`; its
configuration files are read, nothing of it is imported or copied. Rows come out as its `annotations.json` stores them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from gshf_release.data.records import Message
from gshf_release.errors import DataError, EngineError
from gshf_release.evaluation.judging.cache import Judgment
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.verdicts import letters
from gshf_release.evaluation.verdicts.reading import (
    BY_TEXT,
    CONTRADICTION,
    DOUBTS,
    FEW_LETTERS,
    FEW_LETTERS_WEIGHED,
    LAST_COUNTS,
    THOUGHT,
    Reading,
    is_cut,
    without_verdict,
)
from gshf_release.evaluation.verdicts.thinking import Answer, set_aside
from gshf_release.recipe import read_mapping

Row = Mapping[str, Any]
SEED = 0
"""Of alpaca_eval's annotators."""
EQUAL = 1.5
"""The preference between two equal answers, for which no judge is asked."""
NO_LETTER = "neither letter in the answer"


@dataclass(frozen=True, slots=True)
class Annotator:
    """Says how a configuration of alpaca-eval asks and reads."""

    template: str
    numerator: str
    """The token that says that the first answer is better."""
    denominators: tuple[str, ...]
    """All tokens that say something."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison."""

    instruction: str
    first: Row
    """The baseline's row."""
    second: Row
    """The model's row."""

    @property
    def switched(self) -> bool:
        """Return whether the judge sees the model's answer first: drawn from the instruction as alpaca_eval does.

        Source: `RandomSwitchTwoColumnsProcessor` in alpaca_eval/processors.py.
        """
        return random.Random(f"is_switched_outputs{self.instruction}{SEED}").choices([False, True], k=1)[0]


@cache
def annotator(name: str) -> Annotator:
    """Return a configuration of the installed alpaca-eval.

    Raises:
        EngineError: The package or the configuration is not there, or reads something else than the first token.
    """
    folder = _package() / "evaluators_configs"
    path = folder / name / "configs.yaml"
    if not path.is_file():
        raise EngineError(f"The installed alpaca-eval has no annotator {name!r}.", hint=f"See the folders in {folder}.")
    settings = next(iter(read_mapping(path).values()))
    weighing = settings.get("completion_parser_kwargs", {})
    if settings.get("fn_completion_parser") != "logprob_parser" or weighing.get("is_binarize", True):
        raise EngineError(
            f"alpaca-eval's annotator {name!r} does not weigh log-probabilities.",
            hint="Use weighted_alpaca_eval_gpt4_turbo, AlpacaEval 2's.",
        )
    template = (folder / settings["prompt_template"]).read_text(encoding="utf-8")
    return Annotator(template, weighing["numerator_token"], tuple(weighing["denominator_tokens"]))


def annotate(
    outputs: Sequence[Row], baseline: Sequence[Row], session: JudgeSession, repeat: int = 0
) -> list[dict[str, Any]]:
    """Return alpaca_eval's annotations of a model's outputs against a baseline's, in the order of the baseline.

    `preference` is 1 + the probability that the model's answer (`output_2`) is better, 1.5 for equal answers, and None for a
    failed judgment. A row says under `letter_share` what the letters hold of the answer's first token, under `note` what makes
    one doubt its preference, under `reasoning` what the judge thought, and under `failed` why there is none.

    Args:
        outputs: The model's rows `{"instruction", "output", "generator", "dataset"?}`.
        baseline: The other's; instructions that the model did not answer are left out.
        session: A judge of AlpacaEval 2.
        repeat: Number of the repetition; each asks anew.

    Raises:
        DataError: An instruction twice, or one that the baseline has not.
        EngineError: The judge refuses, is too expensive, or fails too often.
        NetworkError: The server gave up.
    """
    pairs = match(outputs, baseline)
    style = annotator(session.settings.annotator)
    asked = [pair for pair in pairs if pair.first["output"] != pair.second["output"]]

    def understood(judgment: Judgment) -> str:
        return read_preference(judgment, style, session.settings).reading.failed

    judgments = session.judge([messages(pair, style) for pair in asked], repeat=repeat, understood=understood)
    found = {
        pair.instruction: (judgment, read_preference(judgment, style, session.settings))
        for pair, judgment in zip(asked, judgments, strict=True)
    }
    rows = [_row(pair, found.get(pair.instruction), session.settings.identity) for pair in pairs]
    what = f"AlpacaEval 2 of {_generator(outputs)}"
    session.accept([preferred.reading for _, preferred in found.values()], len(rows), what)
    return rows


def match(outputs: Sequence[Row], baseline: Sequence[Row]) -> list[Pair]:
    """Return the pairs of rows with the same instruction, in the order of the baseline.

    Raises:
        DataError: An instruction twice, or one that the baseline has not.
    """
    first, second = _by_instruction(baseline, "the baseline"), _by_instruction(outputs, "the model's outputs")
    unknown = [number for number, row in enumerate(outputs, 1) if row["instruction"] not in first]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(outputs)} outputs answer instructions the baseline has not (first: row {unknown[0]}).",
            hint="Compare outputs of the same instructions, character by character.",
        )
    return [Pair(text, row, second[text]) for text, row in first.items() if text in second]


def messages(pair: Pair, style: Annotator) -> list[Message]:
    """Return what the judge is told: alpaca_eval's messages, to the character.

    An answer that itself holds ChatML's marks stays inside the message; alpaca_eval would cut the prompt there.
    """
    shown = (pair.second, pair.first) if pair.switched else (pair.first, pair.second)
    values = {"instruction": pair.instruction, "output_1": shown[0]["output"], "output_2": shown[1]["output"]}
    return [
        Message(role=role, content=_filled(content, values).strip())
        for role, content in re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", style.template, re.DOTALL)
    ]


def preference(logprobs: object, style: Annotator) -> float | None:
    """Return 1 + the probability that the second answer *as shown* is better, by the library's formula to the letter.

    It is 2 - p(numerator) / sum of p(denominators) over the very first token's alternatives that are spelled exactly so
    (`logprob_parser` in alpaca_eval/completion_parsers.py); None if none of them has a probability.
    """
    known = letters.exactly(logprobs, style.denominators)
    total = sum(known.values())
    return 2.0 - known.get(style.numerator, 0.0) / total if total > 0 else None


@dataclass(frozen=True, slots=True)
class Preference:
    """Records what was read of one judgment."""

    reading: Reading[float]
    """1 + the probability that the second answer as shown is better."""
    share: float | None
    """The probability of both letters at the answer's first token; None if it has no probabilities."""
    answer: Answer
    """The text, with its thinking set aside."""


def read_preference(judgment: Judgment, style: Annotator, settings: JudgeSettings) -> Preference:
    """Return what a judgment prefers, how sure the letters are of it, and what makes one doubt it.

    The official judge's first token is weighed by the library's formula. For every other judge all spellings of a letter count
    together, at the first token of its answer; where they hold less than `letter_share` of that token's probability, the
    letter of the text counts, 1 or 2, and where the text names none the judgment is failed. So it is without
    log-probabilities, for the official judge too.
    """
    answer = set_aside(judgment.text)
    first, second = style.numerator, next(each for each in style.denominators if each != style.numerator)
    weighed = letters.weigh(judgment.logprobs, first, second, judgment.text)
    named = letters.named(answer.text, first, second, cut=is_cut(judgment.finish_reason))
    share = None if weighed is None else weighed.share
    enough = share is not None and share >= settings.letter_share
    value = None
    if settings.official:
        value = preference(judgment.logprobs, style)
    elif weighed is not None and enough:
        value = 1 + weighed.second
    doubts = [THOUGHT] if answer.thinking or judgment.reasoning.strip() else []
    if value is not None:
        towards_first = named is not None and named.letter == first
        contradicts = named is not None and (value > EQUAL if towards_first else value < EQUAL)
        doubts += [CONTRADICTION] * contradicts + [FEW_LETTERS_WEIGHED] * (not enough)
    elif named is not None:
        value = 1.0 if named.letter == first else 2.0
        doubts += [BY_TEXT if weighed is None else FEW_LETTERS] + [LAST_COUNTS] * named.several
    doubts += [judgment.doubt] if judgment.doubt else []
    failed = judgment.failed
    if not failed and value is None:
        failed = without_verdict(answer, judgment.reasoning, judgment.finish_reason, NO_LETTER)
    reading: Reading[float] = (
        Reading(None, failed) if failed else Reading(value, doubts=tuple(sorted(doubts, key=DOUBTS.index)))
    )
    return Preference(reading, share, answer)


def _row(pair: Pair, judged: tuple[Judgment, Preference] | None, judge: str) -> dict[str, Any]:
    """Return one annotation, with the names of columns that alpaca_eval 0.6.6 gives; equal answers were not judged."""
    row: dict[str, Any] = {
        "instruction": pair.instruction,
        "output_1": pair.first["output"],
        "generator_1": pair.first["generator"],
        "dataset": pair.second.get("dataset", pair.first.get("dataset")),
        "output_2": pair.second["output"],
        "generator_2": pair.second["generator"],
        "annotator": judge,
        "preference": EQUAL,
        "preference_price_per_example": None,
        "preference_time_per_example": None,
        "preference_version": f"alpaca_eval=={importlib.metadata.version('alpaca_eval')}",
        "preference_date": None,
        "preference_raw_completion": None,
    }
    if judged is None:
        return row
    judgment, preferred = judged
    value = preferred.reading.value
    row["preference"] = 3.0 - value if value is not None and pair.switched else value
    if judgment.asked_at:
        row |= {
            "preference_price_per_example": judgment.cost,
            "preference_time_per_example": judgment.seconds,
            "preference_date": datetime.fromtimestamp(judgment.asked_at, UTC).replace(tzinfo=None).isoformat(),
            "preference_raw_completion": _raw(judgment, preferred.answer),
        }
    if preferred.share is not None:
        row["letter_share"] = preferred.share
    return row | judgment.remarks(preferred.reading, preferred.answer.thinking)


def _raw(judgment: Judgment, answer: Answer) -> dict[str, Any]:
    """Return the judgment as alpaca_eval keeps OpenAI's answer, so that its own parser can read it again."""
    return {
        "finish_reason": judgment.finish_reason,
        "index": 0,
        "logprobs": None if judgment.logprobs is None else {"content": judgment.logprobs},
        "message": {"content": answer.text, "role": "assistant"},
        "text": answer.text,
        "total_tokens": judgment.prompt_tokens + judgment.completion_tokens,
    }


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with its placeholders replaced as alpaca_eval does: one after the other, the first place of each.

    Source: `make_prompts` in alpaca_eval/utils.py. A placeholder inside an instruction is therefore filled instead of the
    template's own.
    """
    for name in dict.fromkeys(re.findall(r"{([^ \s]+?)}", template)):
        template = template.replace("{" + name + "}", values[name], 1)
    return template


def _by_instruction(rows: Sequence[Row], what: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for number, row in enumerate(rows, 1):
        for key in ("instruction", "output", "generator"):
            if not isinstance(row.get(key), str):
                raise DataError(f"Row {number} of {what} has no text under {key!r}.")
        if row["instruction"] in found:
            raise DataError(f"Row {number} of {what} repeats an instruction.", hint="Give each instruction once.")
        found[row["instruction"]] = row
    return found


def _generator(rows: Sequence[Row]) -> str:
    return str(rows[0]["generator"]) if rows else "no outputs"


def _package() -> Path:
    """Return the folder of alpaca_eval, without importing it: that alone takes seconds and reads .env files."""
    spec = importlib.util.find_spec("alpaca_eval")
    if spec is None or spec.origin is None:
        raise EngineError(
            "AlpacaEval's judge prompt comes from the package alpaca-eval, which is not installed.",
            hint='Run pip install "gshf-release[eval]".',
        )
    return Path(spec.origin).parent
