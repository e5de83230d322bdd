"""None of the twenty traps is without a test."""

from __future__ import annotations

from tests.traps import test_around_training, test_training


def test_there_is_a_test_for_every_trap() -> None:
    named = {name[:12] for module in (test_training, test_around_training) for name in vars(module)}
    assert {f"test_trap_{number:02d}" for number in range(1, 21)} <= named
