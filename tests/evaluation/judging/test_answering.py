"""Which names of models are the one asked for, and what is said when others answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gshf_release.evaluation.judging.answering import AnsweringModels, same_model
from gshf_release.evaluation.judging.session import JudgeSession
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL, SEVERAL_MODELS
from tests.evaluation.judging.test_session import prompts
from tests.servers.judge import JudgeServer

Make = Callable[..., JudgeSession]


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4", "gpt-4-1106-preview", False),
        ("gpt-4", "gpt-4-turbo-2024-04-09", False),
        ("gpt-4", "gpt-4-32k", False),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("gemini-1.5-pro", "gemini-1.5-pro-002", True),
        ("gemini-2.5-flash", "gemini-2.5-flash-preview-09-2025", True),
        ("openai/gpt-4o", "gpt-4o-2024-08-06", True),
        ("llama3", "llama3:latest", True),
        ("llama3", "llama3:70b", False),
        ("/models/Judge", "judge", True),
        ("qwen2.5-7b", "qwen2.5-72b", False),
        ("judge-x", "fallback-model-b", False),
    ],
)
def test_a_more_exact_version_is_the_same_model(asked: str, answered: str, same: bool) -> None:
    assert same_model(asked, answered) is same


def test_what_is_said() -> None:
    models = AnsweringModels("gpt-4o")
    models.add("", 5)
    models.add("gpt-4o-2024-08-06", 3)
    assert models.warning() == models.doubt("gpt-4o-2024-08-06") == ""
    models.add("gpt-4o-2024-05-13")
    assert models.warning() == "2 versions of gpt-4o made the judgments: gpt-4o-2024-08-06 (3), gpt-4o-2024-05-13 (1)."
    assert models.doubt("gpt-4o-2024-08-06") == SEVERAL_MODELS
    models.add("gpt-4o-mini", 2)
    assert models.warning() == "gpt-4o was asked for, but gpt-4o-mini (2) made 2 of 11 judgments."
    assert models.doubt("gpt-4o-mini") == OTHER_MODEL
    assert models.doubt("") == ""


def test_judgments_of_another_model_say_so_from_the_cache_too(session: Make, server: JudgeServer) -> None:
    names = iter(["some-judge-0001", "fallback"])

    def rename(document: dict[str, Any]) -> dict[str, Any]:
        return document | {"model": next(names)}

    server.edit = rename
    for _ in range(2):
        said: list[str] = []
        found = session("mt-bench-single", "endpoint.concurrent_requests=1", say=said.append).judge(prompts(2))
        assert [judgment.doubt for judgment in found] == [SEVERAL_MODELS, OTHER_MODEL]
        assert "Warning: some-judge was asked for, but fallback (1) made 1 of 2 judgments." in said
