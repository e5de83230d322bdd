"""A run from elsewhere names its judges' addresses: the user's key goes to those that the user has named alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gshf_release.data.assets import cache_folder
from gshf_release.evaluation.judging import endpoints, judges
from gshf_release.recipe.profile import Server
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory, read_json, write_json
from tests.end_to_end.judged import Command
from tests.evaluation import own
from tests.servers.chat import ChatServer

CANARY = "sk-canary-of-another-variable"


@pytest.fixture
def foreign(
    evaluate: Command, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer
) -> Path:
    """Return a run whose judgments are still to be made, as somebody else on another machine finds it."""
    assert evaluate().code == 0
    shutil.move(tmp_path / "run", tmp_path / "moved")
    for folder in (tmp_path / "moved").glob("tiny/own-alpaca/*/judgments"):
        shutil.rmtree(folder)
    shutil.rmtree(cache_folder())
    (files / "judge.yaml").unlink(missing_ok=True)
    monkeypatch.setenv("OTHER_KEY", CANARY)
    server.received.clear()
    return tmp_path / "moved"


def forge(run: Path, **endpoint: Any) -> None:
    requests = read_json(run / "evaluations/requests.json")
    for benchmark in requests["benchmarks"].values():
        for judge in benchmark["judges"].values():
            judge["judge"]["endpoint"] |= endpoint
    write_json(run / "evaluations/requests.json", requests)


def test_nothing_is_sent_where_only_the_run_says_that_its_judge_is(
    foreign: Path, command: Command, server: ChatServer, files: Path
) -> None:
    outcome = command("eval", foreign, "--profile", files / "exact.yaml")
    assert outcome.code == 1
    assert f"is at {server.address}, with the key in $OWN_JUDGE_KEY; nothing is sent there." in outcome.line
    assert "--set-judge endpoint.address=ADDRESS" in outcome.line
    assert "--trust-code" in outcome.line
    assert server.received == []


def test_the_users_word_is_enough_once_wherever_the_run_is_moved_to(
    foreign: Path, command: Command, server: ChatServer, files: Path, tmp_path: Path
) -> None:
    assert command("eval", foreign, "--profile", files / "exact.yaml", "--trust-code").code == 0
    asked = len(server.received)
    assert asked > 0
    shutil.move(foreign, tmp_path / "again")
    outcome = command("eval", tmp_path / "again", "--profile", files / "exact.yaml")
    assert outcome.code == 0, outcome.err
    for folder in (tmp_path / "again").glob("tiny/own-alpaca/*/judgments"):
        shutil.rmtree(folder)
    shutil.rmtree(cache_folder() / "judgments", ignore_errors=True)
    outcome = command("eval", tmp_path / "again", "--profile", files / "exact.yaml")
    assert outcome.code == 0, outcome.err


def test_another_variable_at_a_known_address_is_not_read(
    foreign: Path, command: Command, server: ChatServer, files: Path
) -> None:
    endpoints.remember(Server(address=server.address, key_variable="OWN_JUDGE_KEY"))
    forge(foreign, key_variable="OTHER_KEY")
    outcome = command("eval", foreign, "--profile", files / "exact.yaml")
    assert outcome.code == 1
    assert "the key in $OTHER_KEY" in outcome.line
    assert CANARY not in outcome.err
    assert server.received == []


def test_the_runs_copy_of_a_judge_is_not_the_users_word(
    foreign: Path, command: Command, server: ChatServer, files: Path
) -> None:
    file = own.judge(files, "alpaca_eval_2", server.address, name="theirs")
    run = RunDirectory.open(foreign)
    input_copies.keep_input(run, judges.input_key(str(file)), str(file), file)
    file.unlink()
    words = (
        "eval",
        foreign,
        "--benchmark",
        files / "own-alpaca.yaml",
        "--judge",
        file,
        "--profile",
        files / "exact.yaml",
    )
    outcome = command(*words)
    assert outcome.code == 1
    assert "nothing is sent there" in outcome.line
    assert server.received == []
    outcome = command(*words, "--set-judge", f"endpoint.address={server.address}")
    assert outcome.code == 0, outcome.err
    assert server.received != []


def test_a_password_in_a_forged_address_is_not_shown(foreign: Path, command: Command, files: Path) -> None:
    forge(foreign, address="http://user:pass-canary@127.0.0.1:1/v1")
    outcome = command("eval", foreign, "--profile", files / "exact.yaml")
    assert outcome.code == 1
    assert "pass-canary" not in outcome.err + outcome.out


@pytest.mark.parametrize("name", judges.names())
def test_endpoints_that_ship_with_the_package_are_known(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path))
    endpoint = judges.load(name).endpoint
    assert endpoint.address is None or endpoints.is_known(endpoint)


def test_what_a_recipe_of_the_user_names_is_known(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    monkeypatch.setenv("GSHF_CACHE", str(tmp_path / "cache"))
    file = own.judge(files, "alpaca_eval_2", "http://127.0.0.1:9/v1", name="mine")
    benchmark = files / "own-alpaca.yaml"
    benchmark.write_text(
        "\n".join(
            f"judge: {file}" if line.startswith("judge:") else line for line in benchmark.read_text().splitlines()
        ),
        encoding="utf-8",
    )
    recipe = RunDirectory.open(trained).recipe
    evaluation = recipe.evaluation.model_copy(update={"benchmarks": (str(benchmark),)})
    endpoint = judges.load(str(file)).endpoint
    assert not endpoints.is_known(endpoint)
    endpoints.remember_recipe(recipe.model_copy(update={"evaluation": evaluation}))
    assert endpoints.is_known(endpoint)
