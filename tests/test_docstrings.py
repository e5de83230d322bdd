"""Module docstrings are sentences that say what a module does."""

from __future__ import annotations

import ast
from pathlib import Path

import gshf_release

QUESTIONS = ("What", "Where", "Which", "How", "Who", "Whose", "When", "Why", "That", "Those")


def test_no_module_docstring_begins_with_a_question_word() -> None:
    for path in sorted(Path(gshf_release.__file__).parent.rglob("*.py")):
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert told, f"{path} has no docstring"
        assert told.split()[0] not in QUESTIONS, path
