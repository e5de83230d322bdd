"""MT-Bench's protocol: grades of single answers, and games between two models, as FastChat's llm_judge makes them.

The prompts' templates and the reference answers are benchmark data; rows come out as FastChat's gen_judgment.py writes them.
Beside its keys a row has `answered_by`, the model that the server named, `reasoning`, the judge's thinking, `note`, what makes
one doubt the verdict, and `failed`, why there is none, each only where there is something to say; in a row of two games they
begin with `g1_` or `g2_`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gshf_release.data.records import Message
from gshf_release.errors import DataError
from gshf_release.evaluation.judging.cache import Judgment
from gshf_release.evaluation.judging.judges import reference_file
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.mt_bench.judgments import winner_of
from gshf_release.evaluation.mt_bench.ratings import NO_WINNER, UNPARSED, rating, read_rating, read_winner
from gshf_release.evaluation.verdicts.reading import Reading
from gshf_release.evaluation.verdicts.thinking import Answer, set_aside
from gshf_release.prompts.benchmark_files import MT_BENCH_JUDGE_PROMPTS, fetch

Row = Mapping[str, Any]
Reader = Callable[..., Reading[Any]]
"""`read_rating` or `read_winner`."""
NEEDS_REFERENCE = frozenset({"math", "reasoning", "coding", "arena-hard-200"})
"""Categories whose judge sees a reference answer (`NEED_REF_CATS` in fastchat/llm_judge/common.py)."""
SINGLE, PAIR = ("single-v1", "single-math-v1"), ("pair-v2", "pair-math-v1")
"""The prompts without and with reference; those of the second turn end in MULTI_TURN."""
MULTI_TURN = "-multi-turn"


@dataclass(frozen=True, slots=True)
class Match:
    """One question and turn."""

    question: Row
    turn: int
    prompt: Row
    """A row of FastChat's judge_prompts.jsonl."""
    reference: Row | None

    def fill(self, answers: Mapping[str, Row]) -> str:
        """Return the prompt for answers under the placeholders' names: `answer`, or `answer_a` and `answer_b`."""
        values: dict[str, str] = {}
        texts = {name: row["choices"][0]["turns"] for name, row in answers.items()}
        if self.reference is not None:
            texts["ref_answer"] = self.reference["choices"][0]["turns"]
        if self.turn == 1:
            values = {"question": self.question["turns"][0]} | {name: turns[0] for name, turns in texts.items()}
            values["ref_answer_1"] = values.get("ref_answer", "")
        else:
            texts["question"] = self.question["turns"]
            values = {f"{name}_{turn}": turns[turn - 1] for name, turns in texts.items() for turn in (1, 2)}
        return str(self.prompt["prompt_template"].format(**values))

    def messages(self, user_prompt: str) -> list[Message]:
        """Return what the judge is told."""
        system = Message(role="system", content=self.prompt["system_prompt"])
        return [system, Message(role="user", content=user_prompt)]


def read_prompts(data: Path | None = None) -> dict[str, Row]:
    """Return FastChat's judge prompts by name.

    Raises:
        NetworkError: They are not here, and no source gave them.
    """
    return {row["name"]: row for row in _rows(fetch(MT_BENCH_JUDGE_PROMPTS, data))}


def read_references(references: str, data: Path | None = None) -> dict[int, Row]:
    """Return the `original` or `corrected` reference answers by question.

    Raises:
        NetworkError: They are not here, and no source gave them.
    """
    return {row["question_id"]: row for row in _rows(fetch(reference_file(references), data))}


def judge_single(
    questions: Sequence[Row],
    answers: Sequence[Row],
    session: JudgeSession,
    references: Mapping[int, Row],
    repeats: int = 1,
) -> list[dict[str, Any]]:
    """Return the grades of one model's answers, in FastChat's order.

    Args:
        questions: Rows of question.jsonl.
        answers: The model's rows `{"question_id", "model_id", "choices"}`; only the first choice is judged.
        session: A judge of single answers.
        references: Reference answers by question.
        repeats: How often each is graded; with more than one, rows say which under `repeat`, from 0.

    Raises:
        DataError: An answer or a reference is missing, or the answers are of several models.
        EngineError: The judge refuses, is too expensive, or fails too often.
        NetworkError: The server gave up.
    """
    model, given = _answers(questions, answers)
    matches = _matches(questions, read_prompts(session.data), SINGLE, references)
    asked = [(match, [match.fill({"answer": given[match.question["question_id"]]})]) for match in matches]

    def row(match: Match, prompts: Sequence[str], judgments: Sequence[Judgment]) -> dict[str, Any]:
        return _single_row(match, model, session, prompts[0], judgments[0])

    return _judge(session, asked, read_rating, row, repeats, f"MT-Bench of {model}")


def _single_row(match: Match, model: str, session: JudgeSession, prompt: str, judgment: Judgment) -> dict[str, Any]:
    """Return one line; an official judge's number stands as FastChat reads it, one outside 1-10 included."""
    official = session.settings.official
    reading = _read(read_rating, judgment, official)
    score = rating(judgment.text) if official else UNPARSED if reading.value is None else reading.value
    answer = _answer(judgment, official)
    return {
        "question_id": match.question["question_id"],
        "model": model,
        "judge": [session.model, match.prompt["name"]],
        "user_prompt": prompt,
        "judgment": answer.text,
        "score": int(score) if score.is_integer() else score,
        "turn": match.turn,
        "tstamp": judgment.asked_at,
    } | judgment.remarks(reading, answer.thinking)


def judge_pair(
    questions: Sequence[Row],
    answers_a: Sequence[Row],
    answers_b: Sequence[Row],
    session: JudgeSession,
    references: Mapping[int, Row],
    repeats: int = 1,
) -> list[dict[str, Any]]:
    """Return the games between two models, each turn in both orders, in FastChat's order.

    Args:
        questions: Rows of question.jsonl.
        answers_a: `model_1`'s rows, as in `judge_single`.
        answers_b: `model_2`'s, FastChat's baseline.
        session: A judge of pairs.
        references: Reference answers by question.
        repeats: How often each pair is played, in both orders; with more than one, rows say which under `repeat`, from 0.

    Raises:
        DataError: An answer or a reference is missing, or one side's answers are of several models.
        EngineError: The judge refuses, is too expensive, or fails too often.
        NetworkError: The server gave up.
    """
    (model_1, first), (model_2, second) = _answers(questions, answers_a), _answers(questions, answers_b)
    asked = []
    for match in _matches(questions, read_prompts(session.data), PAIR, references):
        a, b = first[match.question["question_id"]], second[match.question["question_id"]]
        prompts = [match.fill({"answer_a": a, "answer_b": b}), match.fill({"answer_a": b, "answer_b": a})]
        asked.append((match, prompts))

    def row(match: Match, prompts: Sequence[str], games: Sequence[Judgment]) -> dict[str, Any]:
        return _game_row(match, (model_1, model_2), session, prompts, games)

    return _judge(session, asked, read_winner, row, repeats, f"MT-Bench of {model_1} against {model_2}")


def _game_row(
    match: Match, models: tuple[str, str], session: JudgeSession, prompts: Sequence[str], games: Sequence[Judgment]
) -> dict[str, Any]:
    """Return both games of one question and turn; in the second the models have changed places."""
    official = session.settings.official
    readings = [_read(read_winner, game, official) for game in games]
    answers = [_answer(game, official) for game in games]
    return {
        "question_id": match.question["question_id"],
        "model_1": models[0],
        "model_2": models[1],
        "g1_winner": winner_of(readings[0].value or NO_WINNER, 1),
        "g2_winner": winner_of(readings[1].value or NO_WINNER, 2),
        "judge": [session.model, match.prompt["name"]],
        "g1_user_prompt": prompts[0],
        "g1_judgment": answers[0].text,
        "g2_user_prompt": prompts[1],
        "g2_judgment": answers[1].text,
        "turn": match.turn,
        "tstamp": max(game.asked_at for game in games),
        **games[0].remarks(readings[0], answers[0].thinking, "g1_"),
        **games[1].remarks(readings[1], answers[1].thinking, "g2_"),
    }


def _judge(
    session: JudgeSession,
    asked: Sequence[tuple[Match, Sequence[str]]],
    reader: Reader,
    row: Callable[[Match, Sequence[str], Sequence[Judgment]], dict[str, Any]],
    repeats: int,
    what: str,
) -> list[dict[str, Any]]:
    """Put the prompts of every match to the judge; return a row a match and repeat."""
    conversations = [match.messages(prompt) for match, prompts in asked for prompt in prompts]

    def read(judgment: Judgment) -> Reading[Any]:
        return _read(reader, judgment, session.settings.official)

    rows: list[dict[str, Any]] = []
    readings: list[Reading[Any]] = []
    for repeat in range(repeats):
        judgments = session.judge(conversations, repeat=repeat, understood=lambda judgment: read(judgment).failed)
        readings += map(read, judgments)
        following = iter(judgments)
        for match, prompts in asked:
            made = row(match, prompts, [next(following) for _ in prompts])
            rows.append(made if repeats == 1 else made | {"repeat": repeat})
    session.accept(readings, len(readings), what)
    return rows


def _read(reader: Reader, judgment: Judgment, official: bool) -> Reading[Any]:
    """Return a reading with what makes one doubt the judgment itself, or why the judgment could not be had at all."""
    if judgment.failed:
        return Reading(None, judgment.failed)
    reading = reader(judgment.text, judgment.finish_reason, judgment.reasoning, official=official)
    return replace(reading, doubts=(judgment.doubt, *reading.doubts)) if judgment.doubt else reading


def _answer(judgment: Judgment, official: bool) -> Answer:
    """Return the judge's text with its thinking set aside; an official judge's text stays whole, as FastChat stores it."""
    return Answer(judgment.text, "", 0) if official else set_aside(judgment.text)


def _matches(
    questions: Sequence[Row], prompts: Mapping[str, Row], names: tuple[str, str], references: Mapping[int, Row]
) -> Iterator[Match]:
    """Yield first turns, then second ones, each without reference before with (gen_judgment.py)."""
    for turn in (1, 2):
        for name, referenced in zip(names, (False, True), strict=True):
            prompt = prompts[name + (MULTI_TURN if turn == 2 else "")]
            for question in questions:
                number = question["question_id"]
                if (question["category"] in NEEDS_REFERENCE) != referenced or len(question["turns"]) < turn:
                    continue
                if referenced and number not in references:
                    raise DataError(f"Question {number} of MT-Bench ({question['category']}) has no reference answer.")
                yield Match(question, turn, prompt, references[number] if referenced else None)


def _answers(questions: Sequence[Row], answers: Sequence[Row]) -> tuple[str, dict[int, Row]]:
    """Return the model's name and its answers by question; of several answers to one the last counts, as in FastChat."""
    models = {str(row["model_id"]) for row in answers}
    if len(models) != 1:
        raise DataError(f"Answers of one model are needed, these are of {', '.join(sorted(models)) or 'none'}.")
    found = {row["question_id"]: row for row in answers}
    missing = [question["question_id"] for question in questions if question["question_id"] not in found]
    if missing:
        raise DataError(
            f"{next(iter(models))} has no answer to question {missing[0]} of MT-Bench ({len(missing)} in all)."
        )
    for question in questions:
        turns = found[question["question_id"]]["choices"][0]["turns"]
        if len(turns) < len(question["turns"]):
            raise DataError(f"{next(iter(models))} answered {len(turns)} turns of question {question['question_id']}.")
    return models.pop(), found


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
