"""Rows laid end to end: what they share computed once, the scores those of single rows. FP32 on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification

from gshf_release.data.records import Message
from gshf_release.models import packing
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from tests import tiny

ROWS = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 5], [1, 2, 5, 6, 7], [8]]
CONVERSATIONS = [
    [
        Message(role="user", content="why is gold good" + " and read" * prompt),
        Message(role="assistant", content="the cat sat on a mat " * answer + "near rain"),
    ]
    for prompt in range(3)
    for answer in range(5)
]


def classifier(family: str, **changes: Any) -> Any:
    """Return a tiny random reward model of a family."""
    settings = tiny.model().config.to_dict() | {"num_labels": 1, "head_dim": 32} | changes
    del settings["model_type"], settings["architectures"]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    return AutoModelForSequenceClassification.from_config(config).eval()


def saved(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def scorer(folder: Path, batch: int, workers: int = 1) -> SequenceClassificationReward:
    return SequenceClassificationReward(folder, precision="fp32", device="cpu", batch=batch, workers=workers)


def single(model: SequenceClassificationReward) -> list[float]:
    """Return the scores by transformers' own classifier, one conversation at a time."""
    found = []
    for conversation in CONVERSATIONS:
        with torch.inference_mode():
            found.append(float(model.model(torch.tensor([model.renderer.ids(conversation)])).logits[0, 0]))
    return found


def test_a_row_adds_what_the_one_before_does_not_begin_with() -> None:
    packed = packing.pack(ROWS)
    assert packed.ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert packed.positions == [0, 1, 2, 3, 2, 3, 4, 0]
    assert packed.indices == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 4], [0, 1, 4, 5, 6], [7]]
    assert packed.added == [4, 0, 1, 2, 1]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=20))
def test_packed_rows_can_be_read_back(rows: list[list[int]]) -> None:
    packed = packing.pack(rows)
    assert [[packed.ids[index] for index in indices] for indices in packed.indices] == rows
    assert [[packed.positions[index] for index in indices] for indices in packed.indices] == [
        list(range(len(row))) for row in rows
    ]


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=20),
    size=st.integers(1, 5),
    workers=st.integers(1, 3),
    tokens=st.one_of(st.none(), st.integers(1, 12)),
)
def test_batches_hold_every_row_once_within_both_bounds(
    rows: list[list[int]], size: int, workers: int, tokens: int | None
) -> None:
    made = packing.batches(rows, size, workers, tokens)
    assert sorted(index for batch in made for index in batch) == list(range(len(rows)))
    widths = [len(packing.pack([rows[index] for index in batch]).ids) for batch in made]
    assert widths == sorted(widths, reverse=True)
    for batch, width in zip(made, widths, strict=True):
        assert len(batch) <= size
        assert tokens is None or width <= tokens or len({tuple(rows[index]) for index in batch}) == 1


def test_rows_that_begin_alike_come_into_one_batch() -> None:
    rows = [[1, 1, 5], [2, 2, 5], [1, 1, 6], [2, 2, 6]]
    assert packing.batches(rows, 2, 1, None) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("family", sorted(packing.FAMILIES))
@pytest.mark.parametrize("batch", [1, 8])
def test_packed_scores_are_those_of_single_conversations(
    tmp_path: Path, one_thread: None, family: str, batch: int
) -> None:
    model = scorer(saved(tmp_path / family, classifier(family)), batch)
    assert packing.can_pack(model.model)
    scores = model.score(CONVERSATIONS)
    assert list(scores) == pytest.approx(single(model), abs=1e-5)
    assert np.ptp(scores) > 1e-3


def test_a_beginning_is_computed_once(tiny_folder: Path) -> None:
    model, read = scorer(tiny_folder / "reward", 32), []
    model.model.base_model.layers[0].mlp.register_forward_hook(lambda _, inputs, output: read.append(inputs[0].shape))
    model.score(CONVERSATIONS)
    rows = sorted(model.renderer.ids(conversation) for conversation in CONVERSATIONS)
    assert read == [(1, len(packing.pack(rows).ids), 64)]
    assert read[0][1] < sum(map(len, rows)) / 2


def test_batches_side_by_side_give_the_same_scores(tiny_folder: Path) -> None:
    alone, beside = (scorer(tiny_folder / "reward", 4, workers).score(CONVERSATIONS) for workers in (1, 2))
    assert list(beside) == pytest.approx(list(alone), abs=1e-5)


def test_the_model_reads_padded_batches_as_ever_afterwards(tiny_folder: Path) -> None:
    model = scorer(tiny_folder / "reward", 8)
    before = single(model)
    model.score(CONVERSATIONS)
    assert model.model.config._attn_implementation == "sdpa"
    assert single(model) == before


@pytest.mark.parametrize(
    ("family", "changes"),
    [("mistral", {"sliding_window": 8}), ("qwen2", {"use_sliding_window": True, "sliding_window": 8}), ("gpt2", {})],
)
def test_models_in_which_a_token_sees_others_otherwise_are_padded(
    tmp_path: Path, one_thread: None, family: str, changes: dict[str, Any]
) -> None:
    model = scorer(saved(tmp_path / family, classifier(family, **changes)), 8)
    assert not packing.can_pack(model.model)
    assert list(model.score(CONVERSATIONS)) == pytest.approx(single(model), abs=1e-5)


def test_a_window_that_holds_every_row_is_none(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scorer(saved(tmp_path / "mistral", classifier("mistral", sliding_window=4096)), 8)
    expected = single(model)
    monkeypatch.setattr(model, "_score_padded", None)
    assert list(model.score(CONVERSATIONS)) == pytest.approx(expected, abs=1e-5)
