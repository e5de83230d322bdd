"""Rows of preference data that a reward model can be trained on."""

from __future__ import annotations

from typing import Any

from gshf_release.data import dataset_rows
from gshf_release.data.dataset_files import ColumnUse
from gshf_release.data.dataset_rows import Preference


def parse_preference(row: dict[str, Any], use: ColumnUse | None = None) -> Preference:
    """Return the preference of a row in one of the forms of `conversations`.

    Raises:
        ValueError: The row has another form, or the sides are equal, so that there is nothing to learn.
    """
    found = dataset_rows.parse_preference(row, use)
    if found.chosen.strip() == found.rejected.strip():
        raise ValueError("chosen and rejected are the same text")
    return found
