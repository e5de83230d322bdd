"""Files of answers as AlpacaEval and FastChat write them: model_outputs.json and model_answer/<model>.jsonl.

They hold no times and no random ids: equal runs have equal files (FastChat's `tstamp` is 0, its `answer_id` a hash; when
something happened stands in the journal).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gshf_release.data.hashing import sha256_json
from gshf_release.errors import DataError
from gshf_release.evaluation.benchmarks import Question, read_json_rows
from gshf_release.run.directory import write_text

FILES = {"alpaca_eval": "model_outputs.json", "mt_bench": "model_answer.jsonl"}


def answer_row(protocol: str, question: Question, answers: Sequence[str], model: str) -> dict[str, Any]:
    """Return a row of AlpacaEval's model_outputs.json, or a line of FastChat's model_answer/<model>.jsonl."""
    if protocol == "alpaca_eval":
        (answer,) = answers
        return {"dataset": question.category, "instruction": question.turns[0], "output": answer, "generator": model}
    return {
        "question_id": int(question.key),
        "answer_id": sha256_json([model, question.key, list(answers)])[:22],
        "model_id": model,
        "choices": [{"index": 0, "turns": list(answers)}],
        "tstamp": 0.0,
    }


def write_rows(protocol: str, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write answers or judgments as the benchmark's own program does: AlpacaEval a list, FastChat a row a line."""
    if protocol == "alpaca_eval":
        text = json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text)


def read_answers(protocol: str, path: Path) -> dict[str, dict[str, Any]]:
    """Return the answers of a file by instruction (AlpacaEval) or question id (MT-Bench).

    Raises:
        DataError: A row is malformed, or an instruction of AlpacaEval is answered twice.
    """
    return alpaca_eval_answers(path) if protocol == "alpaca_eval" else mt_bench_answers(path)


def alpaca_eval_answers(path: Path) -> dict[str, dict[str, Any]]:
    """Return `{instruction: row}` of a model_outputs.json.

    Raises:
        DataError: A row is malformed, or an instruction is answered twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_json_rows(path, ("instruction", "output")), 1):
        if row["instruction"] in found:
            raise DataError(f"{path}, row {number}: its instruction is answered twice.")
        found[row["instruction"]] = row
    return found


def mt_bench_answers(path: Path) -> dict[str, dict[str, Any]]:
    """Return `{question id: line}` of a FastChat answer file; of several lines of a question the last counts, as there.

    Raises:
        DataError: A line has not the form of FastChat's answers.
    """
    found = {}
    for number, line in enumerate(read_json_rows(path), 1):
        try:
            turns = line["choices"][0]["turns"]
            good = isinstance(line["question_id"], int) and all(isinstance(turn, str) for turn in turns)
        except (KeyError, IndexError, TypeError):
            good = False
        if not good:
            raise DataError(f'{path}, answer {number}: expected "question_id" and texts under choices[0].turns.')
        found[str(line["question_id"])] = line
    return found


def benchmark_of(path: Path) -> str:
    """Return the published benchmark that a file answers, by the columns of its first row.

    Raises:
        DataError: The file cannot be read, or holds no row.
    """
    return "mt_bench" if "choices" in read_json_rows(path)[0] else "alpaca_eval_2"


MODEL_KEYS = {"alpaca_eval": "generator", "mt_bench": "model_id"}
"""Where an answer names its model."""


def model_of(protocol: str, path: Path, otherwise: str | None = None) -> str:
    """Return what an answer file calls its model; rows that name none are of the same.

    Args:
        protocol: Of the benchmark.
        path: The file.
        otherwise: The name where no row has one; None takes the file's.

    Raises:
        DataError: It holds no answers, or those of several models.
    """
    rows = read_answers(protocol, path)
    names = {str(row[MODEL_KEYS[protocol]]) for row in rows.values() if row.get(MODEL_KEYS[protocol])}
    if not rows or len(names) > 1:
        raise DataError(f"{path} holds the answers of {len(names)} models; one is expected.")
    return names.pop() if names else otherwise or path.name.partition(".")[0]
