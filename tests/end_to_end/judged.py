"""What the tests of judged benchmarks share: a judge by rule, and the cells of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gshf_release.data.results import Cell, read_cells
from tests.conftest import Outcome

Command = Callable[..., Outcome]
KEY = "sk-of-nobody"
EXACT = "name: exact\ninference_precision: fp32\nthreads: 1\n"


def prefers_longer(body: dict[str, Any]) -> str:
    """Answer as a judge that names the longer of two answers, and grades one by its length."""
    text = body["messages"][-1]["content"]
    shown = re.findall(r'"output": """(.*?)"""', text, re.DOTALL)
    if len(shown) == 2:
        return "m" if len(shown[0]) >= len(shown[1]) else "M"
    return f"Fine. Rating: [[{1 + len(text) % 10}]]"


def cells_of(path: Path) -> list[Cell]:
    return read_cells(path / "results.json")


def one_at_a_time(address: str) -> dict[str, Any]:
    return {"address": address, "key_variable": "OWN_JUDGE_KEY", "attempts": 3, "concurrent_requests": 1}
