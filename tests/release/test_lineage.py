"""Lineage: a run's own responses are traced to the policy that drew them; a foreign one is found even under new hashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.hashing import sha256_tree, tree
from gshf_release.data.records import Pair, ReferenceLogProbability, Sample, Score
from gshf_release.errors import VerificationError
from gshf_release.release.lineage import Lineage, verify_lineage
from gshf_release.run.directory import RunDirectory, read_json, write_json
from tests.conftest import Outcome


def change(path: Path, row: type, edit: Callable[[list[Any]], list[Any]]) -> None:
    """Rewrite a Parquet file."""
    row.write(edit(row.read(path)), path)  # type: ignore[attr-defined]


def pairs_file(run: RunDirectory, name: str = "pairs/pairs") -> Path:
    return run.path / "iteration-2" / f"{name}.parquet"


def samples_file(run: RunDirectory) -> Path:
    return sorted((run.path / "iteration-2" / "samples").rglob("samples.parquet"))[0]


def test_every_trained_response_is_the_runs_own(copy: RunDirectory) -> None:
    pairs = [Pair.read(copy.path / f"iteration-{t}" / "pairs" / "pairs.parquet") for t in (1, 2)]
    assert verify_lineage(copy) == Lineage(2 * 8 * 4, sum(map(len, pairs)), 0)


def test_a_swapped_response_in_a_pair_is_found(copy: RunDirectory) -> None:
    change(pairs_file(copy), Pair, lambda rows: [replace(rows[0], chosen_ids=[9, 9, 2], chosen_text="x"), *rows[1:]])
    with pytest.raises(VerificationError, match=r"iteration-2/pairs: .*: not among the iteration's samples"):
        verify_lineage(copy)


def test_a_swapped_text_in_the_samples_is_found(copy: RunDirectory) -> None:
    change(samples_file(copy), Sample, lambda rows: [replace(rows[0], text="from elsewhere"), *rows[1:]])
    with pytest.raises(VerificationError, match="text of other ids"):
        verify_lineage(copy)


def rehash(run: RunDirectory, manifest: Path) -> None:
    """Record the bytes that are there now, as somebody who covers his tracks would."""
    document = read_json(manifest)
    for file in document["outputs"]:
        files = tree(manifest.parent / file)
        document["outputs"][file] = {"sha256": sha256_tree(files), "files": files}
    write_json(manifest, document)


def test_a_response_swapped_in_samples_and_pairs_under_new_hashes_is_found(
    copy: RunDirectory, command: Callable[..., Outcome]
) -> None:
    chosen = Pair.read(pairs_file(copy))[0]
    where = (chosen.prompt_id, chosen.chosen_index)
    for path in sorted((copy.path / "iteration-2" / "samples").rglob("samples.parquet")):
        change(
            path,
            Sample,
            lambda rows: [
                replace(row, completion_ids=[9, 2], text="x") if (row.prompt_id, row.sample_index) == where else row
                for row in rows
            ],
        )
        rehash(copy, path.parent / "manifest.json")
    change(pairs_file(copy), Pair, lambda rows: [replace(rows[0], chosen_ids=[9, 2], chosen_text="x"), *rows[1:]])
    rehash(copy, pairs_file(copy).parent / "manifest.json")
    outcome = command("verify", str(copy.path), "--lineage")
    assert outcome.code == 3
    assert "made from another iteration-2/pairs/pairs.parquet than the one that is there" in outcome.err


def test_a_sample_of_another_policy_is_found(copy: RunDirectory) -> None:
    change(samples_file(copy), Sample, lambda rows: [replace(rows[0], policy_sha256="0" * 64), *rows[1:]])
    with pytest.raises(VerificationError, match="drawn by another policy"):
        verify_lineage(copy)


def test_an_added_offline_pair_is_found(copy: RunDirectory) -> None:
    foreign = Pair("p", 2, [4, 5], [9, 2], [8, 2], "a", "b", -1, -1, 1.0, 0.0, "offline")
    change(pairs_file(copy), Pair, lambda rows: [*rows, foreign])
    known = ReferenceLogProbability("p", -1.0, -2.0, "0" * 64)
    change(pairs_file(copy, "reference/reference"), ReferenceLogProbability, lambda rows: [*rows, known])
    with pytest.raises(VerificationError, match="not among the iteration's samples"):
        verify_lineage(copy)


def test_a_reward_of_another_scorer_is_found(copy: RunDirectory) -> None:
    path = sorted((copy.path / "iteration-1" / "rewards").rglob("scores.parquet"))[0]
    change(path, Score, lambda rows: [replace(rows[0], scorer_sha256="0" * 64), *rows[1:]])
    with pytest.raises(VerificationError, match="another scorer's"):
        verify_lineage(copy)


def test_log_probabilities_of_another_reference_are_found(copy: RunDirectory) -> None:
    path = pairs_file(copy, "reference/reference")
    change(path, ReferenceLogProbability, lambda rows: [replace(rows[0], reference_sha256="0" * 64), *rows[1:]])
    with pytest.raises(VerificationError, match="of another reference policy"):
        verify_lineage(copy)


def test_the_command_says_it_in_words(copy: RunDirectory, command: Callable[..., Outcome]) -> None:
    outcome = command("verify", str(copy.path), "--lineage")
    assert outcome.code == 0
    assert "responses of the run's own policies; no external responses." in outcome.out


def test_a_changed_pair_is_already_found_by_its_hash(copy: RunDirectory, command: Callable[..., Outcome]) -> None:
    change(pairs_file(copy), Pair, lambda rows: rows[1:])
    assert command("verify", str(copy.path), "--lineage").code == 3
