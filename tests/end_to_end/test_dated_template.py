"""A run whose template writes the date goes on and is verified on another day with the ids of the day on which it began."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Sample
from gshf_release.errors import VerificationError
from gshf_release.models import checkpoints
from gshf_release.recipe import Recipe, parse
from gshf_release.release.lineage import verify_lineage
from gshf_release.run.directory import RunDirectory, read_json, write_json
from gshf_release.run.execution import SilentObserver
from tests import tiny
from tests.end_to_end.train_tiny import EXACT

DATED = "<|system|>\nToday is {{ strftime_now('%d %b %Y') }}.</s>\n" + tiny.TEMPLATE
EARLIER, ANOTHER = "2021-01-02T03:04:05", "2022-05-06T07:08:09"


def begun(path: Path, recipe: Recipe, date: str) -> RunDirectory:
    """Return a run that began at a date."""
    run = RunDirectory.create(path, recipe, EXACT)
    write_json(path / "run.json", {**run.document, "date": date})
    return run


def train(run: RunDirectory, recipe: Recipe) -> RunDirectory:
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=SilentObserver())
    return run


def prompts_of(run: RunDirectory) -> set[str]:
    tokenizer = checkpoints.load_tokenizer(run.path / "base" / "model")
    files = sorted(run.path.rglob("samples.parquet"))
    texts = {tokenizer.decode(row.prompt_ids) for path in files for row in Sample.read(path)}
    return {text.partition("</s>")[0] for text in texts}


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Recipe:
    folder = tmp_path_factory.mktemp("dated")
    content = tiny.recipe(folder)
    for name in ("tiny", "reward"):
        tiny.retemplate(folder / name, DATED)
    return parse(Recipe, content | {"loop": {"iterations": 1}}, "dated")


@pytest.fixture(scope="module")
def trained(dated: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(begun(tmp_path_factory.mktemp("runs") / "run", dated, EARLIER), dated)


def test_every_stage_renders_on_the_day_on_which_the_run_began(trained: RunDirectory) -> None:
    assert prompts_of(trained) == {"<|system|>\nToday is 02 Jan 2021."}
    assert "Today is 02 Jan 2021." in read_json(trained.path / "rendering" / "rendering.json")["text"]


def test_its_lineage_is_verified_on_another_day(trained: RunDirectory) -> None:
    assert verify_lineage(trained).responses == 8 * 4


def test_a_shard_made_again_on_another_day_is_the_same(trained: RunDirectory, dated: Recipe, tmp_path: Path) -> None:
    """Of samples and of the scores of a reward model whose own template writes the date."""
    shutil.copytree(trained.path, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    shards = [run.path / "iteration-1" / stage / "shard-001" for stage in ("samples", "rewards")]
    before = [read_json(shard / "manifest.json")["outputs"] for shard in shards]
    for shard in shards:
        shutil.rmtree(shard)
    train(run, dated)
    assert [read_json(shard / "manifest.json")["outputs"] for shard in shards] == before
    assert verify_lineage(run) == verify_lineage(trained)


def test_another_date_is_another_run(trained: RunDirectory, dated: Recipe, tmp_path: Path) -> None:
    """Prompts and rewards are other numbers then: the date is what is read, not the day of the test."""
    shutil.copytree(trained.path, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    write_json(run.path / "run.json", {**run.document, "date": ANOTHER})
    with pytest.raises(VerificationError, match="not for a prompt of this iteration"):
        verify_lineage(run)
    other = train(begun(tmp_path / "other", dated, ANOTHER), dated)
    assert prompts_of(other) == {"<|system|>\nToday is 06 May 2022."}


def test_a_run_without_a_date_in_its_templates_holds_none(finished: RunDirectory) -> None:
    assert set(read_json(finished.path / "run.json")) == {"format", "name"}
