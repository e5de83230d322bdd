"""Documents that anybody may have written: what is hostile or damaged is one line, what is ordinary is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gshf_release.data import documents

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
CHAIN = "".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else ''}]\n" for n in range(3000))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(BOMB, "more than 100000 values", id="aliases of aliases"),
        pytest.param(CHAIN, "nests deeper than 100 levels", id="a chain of aliases"),
        pytest.param("a: &a [*a]", "is inside itself", id="an alias inside itself"),
        pytest.param("[" * 100_000, "nests deeper than 100 levels", id="lists"),
        pytest.param('{"a":' * 5000, "nests deeper than 100 levels", id="mappings"),
        pytest.param("name: 2001-99-99", "'2001-99-99' cannot be read as timestamp", id="no date"),
        pytest.param("name: !!timestamp x", "'x' cannot be read as timestamp", id="no timestamp"),
        pytest.param("name: !!int ''", "'' cannot be read as int", id="no number"),
        pytest.param("seed: " + "9" * 5000, "a number of 5000 digits", id="5000 digits"),
        pytest.param("seed: 0x" + "f" * 5000, "a number of 5002 digits", id="5000 hexadecimal digits"),
        pytest.param("a: 1\nb: 2\na: 3", "the key 'a' stands twice (line 3, column 1)", id="a key twice"),
        pytest.param("a: !!python/object/apply:os.system [ls]", "could not determine a constructor", id="a tag"),
        pytest.param("a: [1", "expected ',' or ']'", id="cut"),
    ],
)
def test_hostile_yaml_is_one_line_at_once(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        documents.parse_yaml(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_ordinary_yaml_with_an_alias_and_a_merge_is_read() -> None:
    text = "a: &a {b: 1}\nc: {<<: *a, d: 1.5}\ne: [*a, 2026-01-02, null, yes, 0x10]"
    found = documents.parse_yaml(text)
    assert found["c"] == {"b": 1, "d": 1.5}
    assert found["e"][0] == {"b": 1}
    assert found["e"][2:] == [None, True, 16]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nests deeper than 100 levels"),
        ('{"a":' * 150 + "1" + "}" * 150, "nests deeper than 100 levels"),
        ('{"a": 1, "a": 2}', "the name 'a' stands twice"),
        ("9" * 5000, "thousands of digits"),
        ('{"a": ', "is not JSON: Expecting value (line 1, column 7)"),
    ],
)
def test_hostile_json_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        documents.parse_json(text)
    assert reason in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match="a pipe or a device"):
        documents.read_yaml(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match="a pipe or a device"):
        documents.read_json(tmp_path / "recipe.yaml")


def test_a_flood_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.touch()
    os.truncate(path, 2**33)
    with pytest.raises(ValueError, match="at most 4 MB are read"):
        documents.read_yaml(path)
