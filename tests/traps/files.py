"""What the tests of the traps read of a finished run."""

from __future__ import annotations

from gshf_release.data.records import Pair, ReferenceLogProbability, Sample
from gshf_release.run.directory import RunDirectory

EOS = 2
FILE = "prompts.parquet"


def samples(run: RunDirectory, stage: str = "") -> list[Sample]:
    return [row for path in sorted((run.path / stage).rglob("samples.parquet")) for row in Sample.read(path)]


def pairs(run: RunDirectory, iteration: int) -> list[Pair]:
    return Pair.read(run.path / f"iteration-{iteration}" / "pairs" / "pairs.parquet")


def references(run: RunDirectory, iteration: int) -> list[ReferenceLogProbability]:
    return ReferenceLogProbability.read(run.path / f"iteration-{iteration}" / "reference" / "reference.parquet")
