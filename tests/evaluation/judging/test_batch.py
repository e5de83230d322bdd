"""Judging through a Batch API: sent once, waited for, resumed, and what fails in it asked for one by one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gshf_release.errors import EngineError, NetworkError
from gshf_release.evaluation.judging.session import JudgeSession
from tests.evaluation.judging.test_session import PRICES, client, prompts, wait_until
from tests.servers.judge import JudgeServer

Make = Callable[..., JudgeSession]


def test_a_batch_gives_the_judgments_that_calls_give(session: Make, server: JudgeServer, tmp_path: Path) -> None:
    one = session("mt-bench-single", *PRICES, "price.batch=0.5", batch=True)
    found = one.judge(prompts(6))
    assert server.numbers == 0
    assert len(server.batches.made) == 1
    assert one.spending.cost == pytest.approx(server.cost(10, 30) / 2)
    assert one.spending.asked == 6
    assert session().judge(prompts(6)) == found
    assert not list((tmp_path / "cache" / "batches").glob("*.json"))


def test_only_what_is_missing_goes_into_a_batch(session: Make, server: JudgeServer) -> None:
    session().judge(prompts(2))
    session(batch=True).judge(prompts(5))
    (batch,) = server.batches.made.values()
    assert len(server.batches.files[batch["input_file_id"]].splitlines()) == 3


def test_what_fails_in_a_batch_is_asked_for_one_by_one(session: Make, server: JudgeServer) -> None:
    server.batches.broken = {1, 3}
    found = session(batch=True).judge(prompts(5))
    assert all(judgment.text for judgment in found)
    assert server.numbers == 2


def test_a_batch_whose_requests_all_failed_ends_with_their_words_and_nothing_is_asked_one_by_one(
    session: Make, server: JudgeServer
) -> None:
    server.batches.broken = {0, 1, 2}
    with pytest.raises(
        EngineError, match=r"All 3 requests of the batch batch-1 at .* failed: 3 x HTTP 500: broken\. None"
    ):
        session(batch=True).judge(prompts(3))
    assert server.numbers == 0


def test_what_failed_in_a_batch_is_said_before_it_is_asked_for(session: Make, server: JudgeServer) -> None:
    said: list[str] = []
    server.batches.broken = {1}
    session("mt-bench-single", *PRICES, "price.batch=0.5", batch=True, say=said.append).judge(prompts(3))
    assert "1 of 3 requests of the batch batch-1 failed: 1 x HTTP 500: broken." in said
    assert any("1 judgments to ask some-judge for one by one, 2 in the cache" in line for line in said)


def test_a_limit_holds_for_what_failed_in_a_batch(session: Make, server: JudgeServer) -> None:
    server.batches.broken = {0, 1}
    overrides = (*PRICES, "price.batch=0.1", "expected_tokens=2000")
    with pytest.raises(EngineError, match=r"expected to cost \$0.12.* --max-cost is \$0.05"):
        session("mt-bench-single", *overrides, batch=True, max_cost=0.05).judge(prompts(3))
    assert server.numbers == 0


def test_a_killed_command_waits_for_its_batch_instead_of_sending_it_again(
    session: Make, server: JudgeServer, tmp_path: Path
) -> None:
    server.batches.looks = 10**9
    process = client(server, tmp_path / "cache", 6, "batch")
    wait_until(lambda: any('"id": "batch-1"' in path.read_text() for path in _kept(tmp_path)))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    server.batches.looks = 1
    found = session(batch=True).judge(prompts(8))  # two more than before: they make a batch of their own
    assert all(judgment.text for judgment in found)
    assert len(server.batches.made) == 2
    assert set(server.answered.values()) == {1}
    assert server.numbers == 0


def test_a_batch_whose_id_was_lost_is_found_at_the_server(
    session: Make, server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.batches.looks = 10**9
    process = client(server, tmp_path / "cache", 4, "batch")
    wait_until(lambda: any('"id": "batch-1"' in path.read_text() for path in _kept(tmp_path)))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (path,) = _kept(tmp_path)
    path.write_text(path.read_text().replace('"id": "batch-1"', '"id": null'))
    server.batches.looks = 1
    session(batch=True).judge(prompts(4))
    assert len(server.batches.made) == 1
    assert set(server.answered.values()) == {1}


def test_a_batch_that_was_never_made_is_made(session: Make, server: JudgeServer, tmp_path: Path) -> None:
    one = session(batch=True)
    keys = [one.wanted(prompt).key for prompt in prompts(3)]
    folder = tmp_path / "cache" / "batches"
    folder.mkdir(parents=True)
    entry = (
        f'{{"digest": "d", "keys": {str(keys).replace(chr(39), chr(34))}, "address": "{server.address}", "id": null}}'
    )
    (folder / "d.json").write_text(entry)
    one.judge(prompts(3))
    assert len(server.batches.made) == 1
    assert not (folder / "d.json").exists()


def test_a_batch_whose_making_was_not_confirmed_is_not_made_twice(session: Make, server: JudgeServer) -> None:
    server.batches.forgets = 1
    session(batch=True).judge(prompts(3))
    assert len(server.batches.made) == 1


def test_a_batch_that_ends_early_keeps_what_it_has(session: Make, server: JudgeServer) -> None:
    server.batches.broken = {0}
    server.batches.ends_as = "expired"
    with pytest.raises(NetworkError, match=r"The batch batch-1 at .* expired"):
        session(batch=True).judge(prompts(3))
    session().judge(prompts(3))
    assert server.numbers == 1


def test_a_batch_that_the_server_rejects_is_an_error_with_its_words(session: Make, server: JudgeServer) -> None:
    server.batches.ends_as = "failed"
    with pytest.raises(EngineError, match=r"batch-1 at .* failed: the file is not what it should be"):
        session(batch=True).judge(prompts(3))


def test_a_server_without_batches_says_so(session: Make, server: JudgeServer, tmp_path: Path) -> None:
    server.has_batches = False
    with pytest.raises(EngineError, match="HTTP 404"):
        session(batch=True).judge(prompts(3))
    assert not _kept(tmp_path)


def test_a_batch_whose_worst_case_exceeds_the_limit_is_not_sent(session: Make, server: JudgeServer) -> None:
    one = session("mt-bench-single", *PRICES, "expected_tokens=1", batch=True, max_cost=0.05)
    with pytest.raises(EngineError, match=r"A batch of 3 judgments may cost \$0.18.* judge without --batch"):
        one.judge(prompts(3))
    assert not server.batches.made


def _kept(folder: Path) -> list[Path]:
    return list((folder / "cache" / "batches").glob("*.json"))
