"""Reading annotations.json: both namings, plain and packed, and one line for what is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gshf_release.errors import DataError
from gshf_release.evaluation.alpaca_eval.annotations import groups, read
from gshf_release.evaluation.verdicts.reading import FEW_LETTERS, FEW_LETTERS_WEIGHED
from tests.evaluation.alpaca_eval.rows import annotation


def row(**changes: Any) -> dict[str, Any]:
    names = {"generator_1": "them", "generator_2": "mine", "annotator": "judge", "dataset": "made up"}
    return {"instruction": "Say it.", "output_1": "a", "output_2": "b", "preference": 1.25} | names | changes


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_both_namings_of_columns_give_the_same_row(tmp_path: Path) -> None:
    older = write(tmp_path / "a.json", [row(price_per_example=0.5, time_per_example=1.0, raw_completion="m")])
    newer = {"preference_price_per_example": 0.5, "preference_time_per_example": 1.0, "preference_raw_completion": "m"}
    (first,), (second,) = read(older), read(write(tmp_path / "b.json", [row(**newer)]))
    assert first.price == second.price == 0.5
    assert first.preference == second.preference == 1.25
    assert first.place == f"{older} row 1"


def test_a_packed_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(gzip.compress(json.dumps([row()]).encode()))
    assert read(path)[0].generator_2 == "mine"


@pytest.mark.parametrize(
    ("stored", "meant"), [(None, None), (float("nan"), None), (0, 1.5), (0.0, 1.5), (1.5, 1.5), (1, 1.0), (2, 2.0)]
)
def test_a_preference_is_read_as_the_library_means_it(tmp_path: Path, stored: Any, meant: float | None) -> None:
    assert read(write(tmp_path / "a.json", [row(preference=stored), row(preference=2)]))[0].preference == meant


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ([0, 1, 1], "0 and 1"),
        ([0.0, 1.0, None], "0 and 1"),
        ([0.3, 0.6, 1.0], "from 0.3 to 1"),
        ([-1, 1], "from -1 to 1"),
        ([35, 80], "from 35 to 80"),
        ([True, False], "true and false"),
        (["baseline", "model"], "texts, such as 'baseline'"),
    ],
)
def test_preferences_on_another_scale_are_refused_in_one_line(tmp_path: Path, stored: list[Any], told: str) -> None:
    path = write(tmp_path / "a.json", [row(preference=value) for value in stored])
    with pytest.raises(DataError) as caught:
        read(path)
    assert f"{path}: its preferences are {told}; AlpacaEval's go from 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stored", [-1, 0.5, 3, "2", True, [2]])
def test_a_preference_that_is_none_names_the_row(tmp_path: Path, stored: Any) -> None:
    with pytest.raises(DataError, match=r"a\.json row 2: the preference .* is neither null"):
        read(write(tmp_path / "a.json", [row(), row(preference=stored)]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"[{", "is not JSON"),
        (b"{}", "must hold a list of rows, not dict"),
        (b"[]", "holds no row"),
        (b"[1]", "row 1: expected an object, found int"),
        (b'[{"instruction": "x"}]', "row 1 has no 'output_1'"),
        (b'[{"instruction": "x", "output_1": null}]', "row 1: 'output_1' is null, not a text"),
        (b"\xff\xfe[", "byte 3 is not UTF-16"),
        (b"[\xfe]", "byte 2 is not UTF-8"),
        (b"\x1f\x8bgarbage", "cannot be read"),
        (gzip.compress(b"[1, 2, 3]" * 100, mtime=0)[:25], "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_and_a_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "no.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_models_judges_and_baselines_are_told_apart() -> None:
    rows = [annotation(), annotation(generator_2="other"), annotation(annotator="x"), annotation(generator_1="y")]
    assert [len(group) for group in groups([*rows, *rows])] == [2, 2, 2, 2]


def raw(*alternatives: tuple[str, float], text: str = "m") -> dict[str, Any]:
    top = [{"token": token, "logprob": value} for token, value in alternatives]
    return {"finish_reason": "length", "logprobs": {"content": [{**top[0], "top_logprobs": top}]}, "text": text}


def test_a_preference_that_the_library_took_from_crumbs_is_told(tmp_path: Path) -> None:
    crumbs = raw(("<think>", -0.0001), ("M", -14.0), ("m", -16.5), text="<think>")
    (thought,) = read(write(tmp_path / "a.json", [row(preference_raw_completion=crumbs)]))
    assert thought.doubts == (FEW_LETTERS_WEIGHED,)
    few = raw(("Hm", -0.1), ("M", -4.0), ("m", -5.0), text="Hm")
    (found,) = read(write(tmp_path / "a.json", [row(preference_raw_completion=few)]))
    assert (found.preference, found.doubts) == (1.25, (FEW_LETTERS_WEIGHED,))
    sure = raw(("m", -0.1), ("M", -4.0))
    assert read(write(tmp_path / "a.json", [row(raw_completion=sure)]))[0].doubts == ()
    (noted,) = read(write(tmp_path / "a.json", [row(raw_completion=few, note=FEW_LETTERS)]))
    assert noted.doubts == (FEW_LETTERS,)
    for damaged in ("m", None, {"logprobs": 3}, {"logprobs": {"content": [None]}, "message": 7}):
        assert read(write(tmp_path / "a.json", [row(raw_completion=damaged)]))[0].doubts == ()
