"""MT-Bench's protocol: FastChat itself and its stored judgments are the oracles."""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import DataError, EngineError
from gshf_release.evaluation.judging import judges, mt_bench
from gshf_release.evaluation.judging.mt_bench import judge_pair, judge_single
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.mt_bench.ratings import NO_RATING, OFF_SCALE, rating, winner
from gshf_release.evaluation.verdicts.reading import LAST_COUNTS, THOUGHT
from tests.servers.judge import Fault, JudgeServer, Reply, by_rule, replay, stored_judgments

Make = Callable[..., JudgeSession]
QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Write {a}.", "Shorter."]},
    {"question_id": 2, "category": "math", "turns": ["1 + 1?", "And + 1?"]},
    {"question_id": 3, "category": "stem", "turns": ["One turn only?"]},
]
REFERENCES = {2: {"question_id": 2, "choices": [{"turns": ["It is 2.", "It is 3."]}]}}
NAMES = ["single-v1", "single-math-v1", "pair-v2", "pair-math-v1"]


def answers(model: str, text: str = "fine") -> list[dict[str, Any]]:
    return [
        {"question_id": number, "model_id": model, "choices": [{"index": 0, "turns": [f"{text} {number}", "{more}"]}]}
        for number in (1, 2, 3)
    ]


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put short templates with FastChat's placeholders in the place of its own."""
    made: dict[str, Any] = {}
    for name in NAMES:
        sides = ("answer",) if name.startswith("single") else ("answer_a", "answer_b")
        math = "math" in name
        first = (
            "Q {question}" + "".join(f" {side}: {{{side}}}" for side in sides) + (" ref {ref_answer_1}" if math else "")
        )
        both = "".join(f" {each}: {{{each}_1}} {{{each}_2}}" for each in ("question", *sides))
        both += " ref {ref_answer_1} {ref_answer_2}" if math else ""
        verdict = "Say [[A]], [[B]] or [[C]]." if name.startswith("pair") else "Rate."
        made[name] = {"name": name, "system_prompt": verdict, "prompt_template": first}
        made[f"{name}-multi-turn"] = {"name": f"{name}-multi-turn", "system_prompt": verdict, "prompt_template": both}
    monkeypatch.setattr(mt_bench, "read_prompts", lambda data: made)
    return made


def test_single_rows_are_fastchats(session: Make, templates: dict[str, Any]) -> None:
    found = judge_single(QUESTIONS, answers("mine"), session(), REFERENCES)
    assert [(row["question_id"], row["turn"], row["judge"][1]) for row in found] == [
        (1, 1, "single-v1"),
        (3, 1, "single-v1"),
        (2, 1, "single-math-v1"),
        (1, 2, "single-v1-multi-turn"),
        (2, 2, "single-math-v1-multi-turn"),
    ]
    assert found[2]["user_prompt"] == "Q 1 + 1? answer: fine 2 ref It is 2."
    assert found[3]["user_prompt"] == " question: Write {a}. Shorter. answer: fine 1 {more}"
    assert found[4]["user_prompt"].endswith("ref It is 2. It is 3.")
    keys = ["question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"]
    assert all(list(row) == [*keys, "answered_by"] for row in found)
    assert {row["answered_by"] for row in found} == {"some-judge-0001"}
    assert all(row["score"] == rating(row["judgment"]) and isinstance(row["score"], int) for row in found)
    assert {row["judge"][0] for row in found} == {"some-judge"}


def test_running_again_gives_equal_bytes(session: Make, server: JudgeServer, templates: dict[str, Any]) -> None:
    first = judge_single(QUESTIONS, answers("mine"), session(), REFERENCES)
    assert json.dumps(judge_single(QUESTIONS, answers("mine"), session(), REFERENCES)) == json.dumps(first)
    assert server.numbers == 5


def test_repeats_are_asked_for_anew_and_numbered(session: Make, server: JudgeServer, templates: dict[str, Any]) -> None:
    found = judge_single(QUESTIONS, answers("mine"), session(), REFERENCES, repeats=2)
    assert [row["repeat"] for row in found] == [0] * 5 + [1] * 5
    assert server.numbers == 10


def test_a_judgment_without_rating_scores_minus_one_and_counts_as_failed(
    session: Make, server: JudgeServer, templates: dict[str, Any]
) -> None:
    server.judge = lambda body: Reply("no idea") if "fine 3" in body["messages"][1]["content"] else by_rule(body)
    one = session("mt-bench-single", "failed_share=0.5")
    found = judge_single(QUESTIONS, answers("mine"), one, REFERENCES)
    assert [row["score"] for row in found if row["question_id"] == 3] == [-1]
    assert one.spending.failed == 1


def test_thinking_stands_apart_and_the_last_rating_counts_and_is_told(
    session: Make, server: JudgeServer, templates: dict[str, Any]
) -> None:
    said: list[str] = []
    server.judge = lambda body: Reply("<think>Maybe [[3]]</think>Of [[1]] to [[10]]: [[9]]", reasoning="Hm, [[2]].")
    found = judge_single(QUESTIONS[:1], answers("mine"), session(say=said.append), REFERENCES)
    assert [(row["score"], row["judgment"], row["reasoning"]) for row in found] == [
        (9, "Of [[1]] to [[10]]: [[9]]", "Hm, [[2]].\nMaybe [[3]]")
    ] * 2
    assert {row["note"] for row in found} == {f"{LAST_COUNTS}; {THOUGHT}"}
    assert f"Warning: 2 of 2 judgments: {LAST_COUNTS} (MT-Bench of mine)." in said
    assert f"2 of 2 judgments: {THOUGHT} (MT-Bench of mine)." in said


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("Good because", finish_reason="length"), "parameters.max_tokens"),
        (Reply("<think>[[8]]", finish_reason="length"), "parameters.max_tokens"),
        (Reply("", reasoning="I give [[8]]", finish_reason="length"), "parameters.max_tokens"),
        (Reply("Rating: [[11]]"), OFF_SCALE),
        (Reply("x[0] is used. Final score: 9/10"), NO_RATING),
    ],
)
def test_a_reply_without_a_rating_fails_with_its_reason_and_is_asked_for_again(
    session: Make, server: JudgeServer, templates: dict[str, Any], reply: Reply, reason: str
) -> None:
    server.judge = lambda body: reply
    for _ in range(2):
        with pytest.raises(EngineError, match=rf"2 of 2 judgments .* failed \(2 x .*{re.escape(reason)}"):
            judge_single(QUESTIONS[:1], answers("mine"), session(), REFERENCES)
    assert server.numbers == 4
    server.judge = by_rule
    assert all(1 <= row["score"] <= 10 for row in judge_single(QUESTIONS[:1], answers("mine"), session(), REFERENCES))


def test_a_failed_judgment_within_the_allowed_share_keeps_its_text_and_reason(
    session: Make, server: JudgeServer, templates: dict[str, Any]
) -> None:
    server.judge = lambda body: Reply("Rating: [[11]]") if "fine 3" in body["messages"][1]["content"] else by_rule(body)
    found = judge_single(QUESTIONS, answers("mine"), session("mt-bench-single", "failed_share=0.5"), REFERENCES)
    (row,) = (row for row in found if row["question_id"] == 3)
    assert (row["score"], row["judgment"], row["failed"]) == (-1, "Rating: [[11]]", OFF_SCALE)


def test_games_are_read_without_the_thinking(session: Make, server: JudgeServer, templates: dict[str, Any]) -> None:
    server.judge = lambda body: Reply("<think>[[A]]?</think>[[B]]")
    (row, _) = judge_pair(QUESTIONS[:1], answers("x"), answers("y"), session("mt-bench-pair"), REFERENCES)
    assert (row["g1_winner"], row["g2_winner"], row["g1_judgment"]) == ("model_2", "model_1", "[[B]]")
    assert (row["g1_reasoning"], row["g2_note"]) == ("[[A]]?", THOUGHT)


def test_an_empty_judgment_scores_minus_one(session: Make, server: JudgeServer, templates: dict[str, Any]) -> None:
    server.faults = {number: Fault("empty") for number in (1, 2, 3)}
    one = session("mt-bench-single", "failed_share=0.5", "endpoint.concurrent_requests=1")
    found = judge_single(QUESTIONS, answers("mine"), one, REFERENCES)
    assert (found[0]["judgment"], found[0]["score"]) == ("", -1)


def test_pairs_are_played_in_both_orders(session: Make, server: JudgeServer, templates: dict[str, Any]) -> None:
    server.judge = lambda body: Reply("So [[A]]" if "answer_a: good" in body["messages"][1]["content"] else "So [[B]]")
    found = judge_pair(QUESTIONS[:1], answers("x", "good"), answers("y", "bad"), session("mt-bench-pair"), REFERENCES)
    row = found[0]
    assert (row["model_1"], row["model_2"], row["g1_winner"], row["g2_winner"]) == ("x", "y", "model_1", "model_1")
    assert row["g1_user_prompt"] == "Q Write {a}. answer_a: good 1 answer_b: bad 1"
    assert row["g2_user_prompt"] == "Q Write {a}. answer_a: bad 1 answer_b: good 1"
    assert [(row["turn"], row["judge"]) for row in found] == [
        (1, ["some-judge", "pair-v2"]),
        (2, ["some-judge", "pair-v2-multi-turn"]),
    ]


def test_repeated_games_are_asked_for_anew_and_numbered(
    session: Make, server: JudgeServer, templates: dict[str, Any]
) -> None:
    sides = (answers("x", "good"), answers("y", "bad"))
    found = judge_pair(QUESTIONS[:1], *sides, session("mt-bench-pair"), REFERENCES, repeats=2)
    assert [(row["repeat"], row["turn"]) for row in found] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert server.numbers == 2 * 2 * 2, "repeats, turns and orders"
    once = judge_pair(QUESTIONS[:1], *sides, session("mt-bench-pair"), REFERENCES)
    assert [row | {"repeat": 0} for row in once] == found[:2]
    assert server.numbers == 8, "the first repeat is the judgment without repeats"


def test_missing_answers_and_references_are_errors(session: Make, templates: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Question 2 of MT-Bench \\(math\\) has no reference answer"):
        judge_single(QUESTIONS, answers("mine"), session(), {})
    with pytest.raises(DataError, match="mine has no answer to question 3 of MT-Bench \\(1 in all\\)"):
        judge_single(QUESTIONS, answers("mine")[:2], session(), REFERENCES)
    with pytest.raises(DataError, match="Answers of one model are needed, these are of mine, other"):
        judge_single(QUESTIONS, [*answers("mine"), *answers("other")], session(), REFERENCES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[[8]]", 8),
        ("[[7.5]] or [[9]]", 7.5),
        ("list[1] but [[3]]", 3),
        ("[4]", 4),
        ("8/10", -1),
        ("", -1),
        ("[[11]]", 11),
    ],
)
def test_ratings_are_read_as_fastchat_reads_them(text: str, value: float) -> None:
    assert rating(text) == value


@pytest.mark.parametrize(
    ("text", "name"), [("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"), ("[[B]] not [[A]]", "A"), ("A", "error")]
)
def test_winners_are_read_as_fastchat_reads_them(text: str, name: str) -> None:
    assert winner(text) == name


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


@pytest.fixture
def protocol(test_data: Path) -> Path:
    folder = test_data / "mt_bench"
    if not folder.is_dir():
        pytest.skip(f"no benchmark data at {test_data}; set GSHF_TEST_DATA")
    return folder


def test_replayed_official_judgments_come_out_as_published(
    server: JudgeServer, protocol: Path, test_data: Path, tmp_path: Path
) -> None:
    server.judge = replay(stored_judgments(test_data))
    settings = judges.load("mt_bench_gpt4_single", (f"endpoint.address={server.address}",))
    questions = lines(protocol / "protocol" / "question.jsonl")
    references = mt_bench.read_references(settings.references, test_data)
    stored = lines(protocol / "judgments" / "gpt-4_single.mambainllama.jsonl")
    session = JudgeSession(settings, tmp_path, data=test_data)
    for model in ("mamba_0_5_dpo_ep3", "mamba_0_875_dpo_ep1"):
        given = lines(protocol / "model_answer" / f"{model}.jsonl")
        found = {(row["question_id"], row["turn"]): row for row in judge_single(questions, given, session, references)}
        expected = {(row["question_id"], row["turn"]): row for row in stored if row["model"] == model}
        assert found.keys() == expected.keys()
        assert len(found) == 160
        keys = ("user_prompt", "judgment", "score", "judge", "model")
        differences = [(place, key) for place, row in found.items() for key in keys if row[key] != expected[place][key]]
        assert differences == []
    assert server.numbers == 320


def test_corrected_references_change_thirteen_prompts_of_a_turn_or_more(protocol: Path, test_data: Path) -> None:
    original = mt_bench.read_references("original", test_data)
    corrected = mt_bench.read_references("corrected", test_data)
    assert original.keys() == corrected.keys()
    assert len(original) == 30
    changed = [key for key in original if original[key]["choices"][0]["turns"] != corrected[key]["choices"][0]["turns"]]
    assert len(changed) >= 13


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return fastchat.llm_judge.common, without the models (torch, transformers) that its import of the adapters brings."""
    from fastchat.conversation import get_conv_template

    adapters: Any = types.ModuleType("fastchat.model.model_adapter")
    adapters.get_conversation_template = lambda name: get_conv_template("chatgpt")
    adapters.OPENAI_MODEL_LIST, adapters.ANTHROPIC_MODEL_LIST = ("gpt-4",), ()
    monkeypatch.setitem(sys.modules, "fastchat.model", types.ModuleType("fastchat.model"))
    monkeypatch.setitem(sys.modules, "fastchat.model.model_adapter", adapters)
    monkeypatch.delitem(sys.modules, "fastchat.llm_judge.common", raising=False)
    module = importlib.import_module("fastchat.llm_judge.common")
    monkeypatch.delitem(sys.modules, "fastchat.llm_judge.common")
    return module


def test_pair_prompts_are_fastchats(
    session: Make,
    server: JudgeServer,
    protocol: Path,
    test_data: Path,
    common: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(common, "chat_completion_openai", lambda model, conv, **kwargs: told.append(conv) or "[[C]]")
    questions = lines(protocol / "protocol" / "question.jsonl")[18:22]
    questions += lines(protocol / "protocol" / "question.jsonl")[40:42]
    sides = [lines(protocol / "model_answer" / f"{name}.jsonl") for name in ("gpt-4", "mistral-orpo")]
    references = mt_bench.read_references("original", test_data)
    prompts = mt_bench.read_prompts(test_data)
    found = judge_pair(questions, *sides, session("mt-bench-pair", data=test_data), references)
    by_id = [{row["question_id"]: row for row in side} for side in sides]
    for row in found:
        question = next(each for each in questions if each["question_id"] == row["question_id"])
        judge = common.Judge("gpt-4", prompts[row["judge"][1]])
        a, b = by_id[0][row["question_id"]], by_id[1][row["question_id"]]
        reference = references[row["question_id"]] if "math" in row["judge"][1] else None
        for first, second, key in ((a, b, "g1_user_prompt"), (b, a, "g2_user_prompt")):
            _, prompt, _ = common.run_judge_pair(question, first, second, judge, reference, multi_turn=row["turn"] == 2)
            assert prompt == row[key]
    sent = {json.dumps(body["messages"]) for body in server.bodies}
    assert {json.dumps(conversation.to_openai_api_messages()) for conversation in told} == sent
