"""The usage snippets of the cards, as they are printed, with only the name of the model changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gshf_release.run.directory import RunDirectory

SEED_CARD = Path("seed") / "FsfairX-Zephyr-Chat-v0.1.card.txt"


def snippet(folder: Path) -> str:
    """Return the Python block of a card."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def run(code: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Execute a snippet; return what it printed."""
    capsys.readouterr()
    exec(compile(code, "snippet", "exec"), {})
    return capsys.readouterr().out


@pytest.mark.parametrize("number", [1, 2])
def test_the_snippet_of_the_card_answers(
    released: RunDirectory, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    folder = released.path / "release" / "tiny" / f"iter-{number}"
    code = snippet(folder)
    assert code.count('"tester/tiny"') == 1
    code = code.replace('"tester/tiny"', repr(str(folder))).replace(f' revision="iter-{number}",', "")
    assert run(code, capsys).strip()


def test_the_snippet_of_the_gguf_card_answers(released: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = released.path / "release" / "tiny-GGUF" / "main"
    code = snippet(folder)
    assert code.count('"tester/tiny-GGUF"') == code.count('"tester/tiny"') == 1
    code = code.replace('"tester/tiny-GGUF"', repr(str(folder)))
    shown = run(code.replace('"tester/tiny"', repr(str(folder.parents[1] / "tiny" / "iter-2"))), capsys)
    assert shown.startswith("<|user|>\nName three uses of baking soda.</s>\n<|assistant|>\n")


def test_the_snippet_of_the_published_seed_card_answers(
    released: RunDirectory, test_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    path = test_data / SEED_CARD
    if not path.is_file():
        pytest.skip(f"{path.name} is not in GSHF_TEST_DATA")
    text = path.read_text(encoding="utf-8")
    end = 'print(outputs[0]["generated_text"])'
    code = text[text.index("import torch") : text.index(end) + len(end)]
    name = '"sfairXC/FsfairX-Zephyr-Chat-v0.1"'
    assert code.count(name) == 1
    folder = released.path / "release" / "tiny" / "iter-2"
    shown = run(code.replace(name, repr(str(folder))), capsys)
    assert shown.startswith(
        "<|system|>\nYou are a friendly chatbot who always responds in the style of a pirate</s>\n<|user|>\n"
    )
    assert len(shown.partition("<|assistant|>\n")[2]) > 1
