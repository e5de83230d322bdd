"""Define the base class of every section of a file that users write."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Larger numbers fit no table and no library that would hold them."""
Count = Annotated[int, Field(ge=1, le=10_000)]
"""Of what is declared or started one by one: iterations, responses to a prompt, processes."""
Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
