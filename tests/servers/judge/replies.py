"""What the judge says: stored real judgments found by their prompt, or a rule that answers a prompt always the same."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.evaluation.judging import alpaca_eval

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """One answer; `probabilities` are the first token's, for requests that want log-probabilities."""

    text: str
    probabilities: Mapping[str, float] | None = None
    finish_reason: str = "stop"
    reasoning: str = ""


Judge = Callable[[Body], Reply]


def prompt_hash(body: Body) -> str:
    """Return the identity of a request's messages."""
    return hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).hexdigest()


def by_rule(body: Body) -> Reply:
    """Return an answer of the kind that the prompt asks for, drawn from the prompt's hash."""
    draw = int(prompt_hash(body)[:8], 16)
    if body.get("logprobs") or body["max_tokens"] <= 8:
        return letters((draw % 999 + 0.5) / 999)
    if "[[C]]" in body["messages"][0]["content"]:
        return Reply(f"Both were read. My final verdict is: [[{'ABC'[draw % 3]}]]")
    return Reply(f"It was read. Rating: [[{draw % 10 + 1}]]")


def longer_wins(body: Body) -> Reply:
    """Prefer AlpacaEval's longer output by the share of its length."""
    first, second = re.findall(r'"output": """(.*?)"""\n', body["messages"][-1]["content"], re.DOTALL)
    return letters((len(first) + 1) / (len(first) + len(second) + 2))


def letters(first: float) -> Reply:
    """Return AlpacaEval's verdict: `m` with the probability `first`, else `M`."""
    return Reply("m" if first >= 0.5 else "M", {"m": first, "M": 1.0 - first})


def replay(table: Mapping[str, Reply], otherwise: Judge | None = None) -> Judge:
    """Return a judge that answers from a table by `prompt_hash`."""

    def answer(body: Body) -> Reply:
        found = table.get(prompt_hash(body))
        if found is None and otherwise is None:
            raise KeyError("no stored judgment of this prompt")
        return found if found is not None or otherwise is None else otherwise(body)

    return answer


def stored_judgments(data: Path) -> dict[str, Reply]:
    """Return the published judgments of both benchmarks below `data`; of several to one prompt the newest counts."""
    table: dict[str, Reply] = {}
    systems = {
        row["name"]: row["system_prompt"] for row in _lines(data / "mt_bench" / "protocol" / "judge_prompts.jsonl")
    }
    for path in sorted((data / "mt_bench" / "judgments").glob("*_single*.jsonl")):
        for row in sorted(_lines(path), key=lambda row: row["tstamp"]):
            messages = [
                {"role": "system", "content": systems[row["judge"][1]]},
                {"role": "user", "content": row["user_prompt"]},
            ]
            table[prompt_hash({"messages": messages})] = Reply(row["judgment"])
    style = alpaca_eval.annotator("weighted_alpaca_eval_gpt4_turbo")
    for path in sorted((data / "alpaca_eval" / "annotations").glob("*.json.gz")):
        for row in json.loads(gzip.decompress(path.read_bytes())):
            pair = alpaca_eval.Pair(row["instruction"], {"output": row["output_1"]}, {"output": row["output_2"]})
            shown = 3.0 - row["preference"] if pair.switched else row["preference"]
            table[prompt_hash({"messages": alpaca_eval.messages(pair, style)})] = letters(2.0 - shown)
    return table


def logprobs(reply: Reply, most: int) -> dict[str, Any]:
    """Return the reply's probabilities as OpenAI gives them; a token of probability 0 is left out."""
    assert reply.probabilities is not None
    top = [
        {"token": token, "logprob": math.log(share), "bytes": list(token.encode())}
        for token, share in sorted(reply.probabilities.items(), key=lambda item: -item[1])
        if share > 0
    ][:most]
    return {"content": [{**top[0], "top_logprobs": top}]}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
