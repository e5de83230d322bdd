"""The user's own function as a reward: right values through, every mistake of it one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gshf_release.data.records import Message
from gshf_release.errors import EngineError
from gshf_release.rewards import Inference
from gshf_release.rewards.python_callable import PythonReward

CONVERSATIONS = [
    [Message(role="user", content="why?"), Message(role="assistant", content="a" * length)] for length in (3, 1, 2)
]
MODULE = """
import numpy as np

def length(conversations):
    return [len(turns[-1]["content"]) for turns in conversations]

def array(conversations):
    return np.asarray(length(conversations), dtype="float64") / 2

def fails(conversations):
    return [turns[7] for turns in conversations]

def short(conversations):
    return [1.0]

def table(conversations):
    return [[1.0], [2.0], [3.0]]

def words(conversations):
    return ["good" for _ in conversations]

def nothing(conversations):
    return None

def infinite(conversations):
    return [0.0, float("nan"), 1.0]

def huge(conversations):
    return [0.0, 1.0, 1e300]

def meddles(conversations):
    for turns in conversations:
        turns.clear()
    return [0.0] * len(conversations)

number = 3
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    path = folder / "my_own_scorer.py"
    path.write_text(MODULE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def here(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the folder of the user's module; nothing is installed."""
    monkeypatch.chdir(module.parent)
    monkeypatch.syspath_prepend(module.parent)


def reward(name: str) -> PythonReward:
    return PythonReward(f"python:my_own_scorer:{name}")


@pytest.mark.parametrize(("name", "expected"), [("length", [3, 1, 2]), ("array", [1.5, 0.5, 1])])
def test_the_numbers_come_through_as_float32(name: str, expected: list[float]) -> None:
    found = reward(name).score(CONVERSATIONS)
    assert found.dtype == np.float32
    assert found.tolist() == expected


def test_no_conversations_do_not_call_it() -> None:
    assert reward("fails").score([]).shape == (0,)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fails", r"fails failed: IndexError: list index out of range \(my_own_scorer.py:11\)\."),
        ("short", "short returned 1 values for 3 conversations; it must return one each"),
        ("table", r"table returned an array of shape \(3, 1\) for 3 conversations"),
        ("words", "words returned list, not a list of numbers"),
        ("nothing", r"nothing returned an array of shape \(\) for 3 conversations"),
        ("infinite", "infinite returned nan for conversation 2 of 3; a reward is a finite 32-bit number"),
        ("huge", r"huge returned 1e\+300 for conversation 3 of 3"),
    ],
)
def test_a_mistake_of_the_function_is_one_line(name: str, line: str) -> None:
    with pytest.raises(EngineError, match=line) as caught:
        reward(name).score(CONVERSATIONS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("python:my_own_scorer", "is not of the form python:package.module:name"),
        ("python:no.such.module:f", r"the module 'no.such.module' cannot be imported: ModuleNotFoundError: No module"),
        ("python:my_own_scorer:gone", "'my_own_scorer' has no 'gone'"),
        ("python:my_own_scorer:number", "is not a function but int"),
    ],
)
def test_a_function_that_is_not_there_is_one_line(reference: str, line: str) -> None:
    with pytest.raises(EngineError, match=line):
        PythonReward(reference)


def test_a_module_that_breaks_on_import_names_its_line(module: Path) -> None:
    (module.parent / "my_broken_scorer.py").write_text("x = 1\ny = x / 0\n", encoding="utf-8")
    with pytest.raises(EngineError, match=r"ZeroDivisionError: division by zero \(my_broken_scorer.py:2\)"):
        PythonReward("python:my_broken_scorer:f")


def test_the_function_cannot_change_what_is_scored() -> None:
    kept = [list(turns) for turns in CONVERSATIONS]
    reward("meddles").score(CONVERSATIONS)
    assert kept == CONVERSATIONS


def test_a_run_scores_with_the_function_that_it_adopted(module: Path, tmp_path: Path) -> None:
    PythonReward.adopt("python:my_own_scorer:length", tmp_path / "model")
    assert PythonReward.open(tmp_path / "model", Inference()).score(CONVERSATIONS).tolist() == [3, 1, 2]


def test_a_file_changed_since_then_is_refused(module: Path, tmp_path: Path, append: Callable[[Path], None]) -> None:
    PythonReward.adopt("python:my_own_scorer:length", tmp_path / "model")
    append(module)
    with pytest.raises(EngineError, match="has changed since this run began"):
        PythonReward.open(tmp_path / "model", Inference())


@pytest.fixture
def append(module: Path) -> Callable[[Path], None]:
    """Change a file for the length of a test."""

    def change(path: Path) -> None:
        path.write_text(MODULE + "\n# changed\n", encoding="utf-8")

    yield change
    module.write_text(MODULE, encoding="utf-8")
