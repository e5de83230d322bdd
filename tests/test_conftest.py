"""Tests on published texts may be skipped only where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import conftest


def test_a_missing_file_or_oracle_is_a_failure_where_the_texts_are_promised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSHF_TEST_DATA", str(tmp_path / "absent"))
    assert conftest.must_run("no benchmark data at x; set GSHF_TEST_DATA")
    assert conftest.must_run("the package alpaca-eval is not installed")
    assert not conftest.must_run("OpenSSH is not installed")
    monkeypatch.delenv("GSHF_TEST_DATA")
    monkeypatch.setattr(conftest, "PUBLISHED_DATA", tmp_path / "absent")
    assert not conftest.must_run("no benchmark data at x; set GSHF_TEST_DATA")
    monkeypatch.setattr(conftest, "PUBLISHED_DATA", tmp_path)
    assert conftest.must_run("no benchmark data at x; set GSHF_TEST_DATA")
