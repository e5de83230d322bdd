"""Five answers of rising badness: the right order is silent, every wrong one is said in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from gshf_release.data.records import Message
from gshf_release.planning import doctor
from gshf_release.planning.doctor import Finding, check
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.rewards import Inference
from gshf_release.rewards.ensemble import EnsembleReward
from gshf_release.rewards.pairwise import GenerativePreference
from gshf_release.rewards.probe import ANSWERS, PROMPT, probe
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests import tiny
from tests.conftest import Outcome

EXACT = Profile(inference_precision="fp32", threads=1)


class Listed:
    """Gives the five answers these scores."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.seen: Sequence[Sequence[Message]] = []

    def score(self, conversations: Sequence[Sequence[Message]]) -> npt.NDArray[np.float32]:
        self.seen = conversations
        return np.asarray(self.scores, dtype=np.float32)


def test_the_five_answers_are_about_equally_long() -> None:
    lengths = [len(text) for text in ANSWERS.values()]
    assert len(lengths) == 5
    assert min(lengths) > 0.9 * max(lengths)
    assert not any(text in PROMPT for text in ANSWERS.values())


def test_the_right_order_is_no_warning() -> None:
    found = probe(Listed(5, 4, 3, 2, 1))
    assert found.warning == ""
    assert found.order == list(ANSWERS)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ((5, 4, 2, 3, 1), "it scores 'off topic' above 'fluent but wrong'"),
        ((5, 4, 3, 2, 2), "it scores 'broken' as high as 'off topic'"),
        ((1, 2, 3, 4, 5), "it has 10 of 10 comparisons the wrong way round: check its sign, template and head"),
        ((2, 2, 2, 2, 2), "gives all five answers the same score"),
        ((5, 4, float("nan"), 2, 1), "scores that are no finite numbers"),
    ],
)
def test_a_wrong_order_is_said_in_words(scores: tuple[float, ...], words: str) -> None:
    assert words in probe(Listed(*scores)).warning


def test_the_recipes_system_turn_is_put_before_the_prompt() -> None:
    model = Listed(5, 4, 3, 2, 1)
    probe(model, "Answer briefly.")
    assert [turn["role"] for turn in model.seen[0]] == ["system", "user", "assistant"]
    assert model.seen[4][-1]["content"] == ANSWERS["broken"]


def test_the_text_is_shown_as_the_model_reads_it(tmp_path: Path, one_thread: None) -> None:
    folder = tiny.retemplate(tiny.save_reward_model(tmp_path / "rm", max_position_embeddings=512), tiny.STRICT_TEMPLATE)
    found = probe(SequenceClassificationReward.open(folder, Inference()), "Answer briefly.")
    assert found.rendered == f"<s>[INST] Answer briefly.\n\n{PROMPT} [/INST]{ANSWERS['clear and right']}</s>"
    assert found.folded


def test_an_ensemble_shows_how_far_its_members_disagree() -> None:
    model = EnsembleReward([lambda: Listed(5, 4, 3, 2, 1), lambda: Listed(7, 4, 3, 2, 1)])
    found = probe(model)
    assert found.scores["clear and right"] == 6
    assert found.deviations["clear and right"] == pytest.approx(2**0.5)
    assert found.deviations["broken"] == 0


def test_a_pairwise_model_ranks_them_among_themselves(tmp_path: Path, one_thread: None) -> None:
    folder = tiny.save(tmp_path / "tiny", max_position_embeddings=512)
    found = probe(GenerativePreference.open(folder, Inference()))
    assert sum(found.scores.values()) == pytest.approx(2.5, abs=1e-5)
    assert "[RESPONSE A] Water expands" in found.rendered
    assert found.rendered.endswith("<|assistant|>\n")


def recipe(folder: Path, reward: dict[str, Any]) -> Recipe:
    content = tiny.recipe(folder, reward=reward)
    content["prompts"]["roles"]["reward"] = 8
    return parse(Recipe, content, "tiny")


def findings(folder: Path, reward: dict[str, Any]) -> dict[str, Finding]:
    return {item.what: item for item in check(recipe(folder, reward), EXACT)}


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "functions_for_doctor.py").write_text(
        "def right(turns):\n    return [5.0 - n for n in range(len(turns))]\n"
        "def wrong(turns):\n    return [float(n) for n in range(len(turns))]\n"
        "def broken(turns):\n    return []\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "python:functions_for_doctor"


def test_doctor_shows_text_order_and_range(tiny_folder: Path, functions: str) -> None:
    found = findings(tiny_folder, {"model": f"{functions}:right"})
    assert PROMPT in found["reward reads"].found
    assert found["reward order"].found.startswith("clear and right 5.00 > right but vague 4.00 > ")
    assert found["reward range"].found == "from 1.00 to 5.00"
    assert not any(item.warning for item in found.values() if item.what.startswith("reward"))


def test_doctor_warns_of_a_wrong_order_and_does_not_fail(
    tiny_folder: Path, functions: str, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny.recipe(tiny_folder, reward={"model": f"{functions}:wrong"})), encoding="utf-8")
    outcome = command("doctor", path)
    assert outcome.code == 0, outcome.out
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("!   reward ")]
    assert "Warning: of five answers of rising badness it has 10 of 10 comparisons the wrong way round" in line
    told = json.loads(command("doctor", path, "--json").out)
    assert next(item["what"] for item in told if item["warning"] and item["ok"]) == "reward"


def test_doctor_fails_on_a_scorer_that_cannot_score(tiny_folder: Path, functions: str) -> None:
    found = findings(tiny_folder, {"model": f"{functions}:broken"})
    assert not found["reward"].ok
    assert "returned 0 values for 5 conversations" in found["reward"].found


def test_doctor_tries_no_stand_in_that_is_yet_to_be_trained(tiny_folder: Path) -> None:
    found = findings(tiny_folder, {})
    assert found["reward"].ok
    assert "trained by the run itself" in found["reward"].found


def test_doctor_does_not_load_what_does_not_fit(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_memory", lambda: 1000.0)
    found = findings(tiny_folder, {"model": str(tiny_folder / "reward")})
    assert found["reward"].warning
    assert "not tried" in found["reward"].found


def test_doctor_leaves_a_missing_model_to_the_line_that_says_so(tiny_folder: Path) -> None:
    found = findings(tiny_folder, {"model": "somebody/not-here"})
    assert not found["somebody/not-here"].ok
    assert "reward order" not in found
