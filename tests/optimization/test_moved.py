"""A training that was stopped goes on under another profile, from its checkpoint where that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.recipe.profile import Profile
from tests.optimization.stopped import Outcome, assert_begins_again, assert_goes_on, profile, stopped, unbroken

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return what one process that nobody stopped put out."""
    return unbroken(tmp_path_factory.mktemp("alone") / "run", tiny_folder)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (profile(2), profile(1)),
        (profile(1), profile(2)),
        (profile(2, "fsdp"), profile(4, "fsdp")),
        (profile(4, "fsdp"), profile(2, "fsdp")),
    ],
    ids=["two-to-one", "one-to-two", "fsdp-two-to-four", "fsdp-four-to-two"],
)
def test_it_goes_on(before: Profile, after: Profile, expected: Outcome, tiny_folder: Path, tmp_path: Path) -> None:
    assert_goes_on(stopped(tmp_path / "run", tiny_folder, before), after, expected)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (profile(2, "fsdp"), profile(1), "sharding fsdp on 2 processes does not fit sharding none on 1 process"),
        (profile(1), profile(2, "fsdp"), "sharding none on 1 process does not fit sharding fsdp on 2 processes"),
    ],
    ids=["from-fsdp", "to-fsdp"],
)
def test_it_begins_again(
    before: Profile, after: Profile, why: str, expected: Outcome, tiny_folder: Path, tmp_path: Path
) -> None:
    run = stopped(tmp_path / "run", tiny_folder, before)
    assert_begins_again(run, after, expected, f"the checkpoint of {why}")
