"""Docstrings are sentences with a verb: they say what a module, class or function does."""

from __future__ import annotations

import ast
from pathlib import Path

import gshf_release

QUESTIONS = ("What", "Where", "Which", "How", "Who", "Whose", "When", "Why", "That", "Those", "Whether")


def test_no_docstring_begins_with_a_question_word() -> None:
    for path in sorted(Path(gshf_release.__file__).parent.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(module), f"{path} has no docstring"
        for node in ast.walk(module):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                told = ast.get_docstring(node) or "-"
                assert told.split()[0] not in QUESTIONS, f"{path}: {told}"
