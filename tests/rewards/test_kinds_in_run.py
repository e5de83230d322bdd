"""Every kind of scorer inside a run: adopted, opened again by the scoring stages, its scores where the loop reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Message, Prompt, Sample, Score
from gshf_release.errors import EngineError, RecipeError
from gshf_release.recipe import Recipe, parse
from gshf_release.recipe.profile import Profile
from gshf_release.rewards import Inference, models
from gshf_release.rewards.pairwise import GenerativePreference, against, round_robin
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.rewards.stages import ScoringParameters
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.sampling import stage as sampling_stage
from tests import tiny

EXACT = Profile(inference_precision="fp32", threads=1)
UP_TO_SCORES = (
    "base",
    "prompts/pool",
    "prompts/validation",
    "iteration-1/prompts",
    "reward/model",
    "iteration-1/samples",
    "iteration-1/rewards",
    "base/validation/answers",
    "base/validation/scores",
)
ROUNDED = Inference("rounded", batch=4)  # as the profile computes: BF16 weights, FP32 arithmetic
Key = tuple[str, int]


def recipe(folder: Path, reward: dict[str, Any]) -> Recipe:
    content = tiny.recipe(folder, reward=reward, loop={"iterations": 1})
    content["prompts"]["roles"] |= {"per_iteration": 4, "validation": 2}
    return parse(Recipe, content, "tiny")


def scored(folder: Path, path: Path, reward: dict[str, Any]) -> RunDirectory:
    """Run everything up to the scores of one iteration and of the base's validation answers."""
    chosen = recipe(folder, reward)
    stages = pipeline.build(chosen).stages
    run = RunDirectory.create(path, chosen, EXACT)
    execute(stages, run, chosen, EXACT, goal=[stage for stage in stages if stage.name in UP_TO_SCORES])
    return run


def test_the_shards_of_a_stage_share_an_engine_and_a_scorer(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def noted(name: str, module: Any) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: (opened.append(name), real(*arguments))[1])

    noted("open_engine", sampling_stage)
    noted("open_adopted", models)
    chosen = recipe(tiny_folder, {"model": str(tiny_folder / "reward")})
    chosen = chosen.model_copy(update={"sampling": chosen.sampling.model_copy(update={"prompts_per_shard": 2})})
    goal = [stage for stage in pipeline.build(chosen).stages if stage.name in UP_TO_SCORES[:-2]]
    assert [stage.shards for stage in goal[-2:]] == [2, 2]
    execute(goal, RunDirectory.create(tmp_path / "run", chosen, EXACT), chosen, EXACT)
    assert opened == ["open_engine", "open_adopted"]


def rows(run: RunDirectory, stage: str, file: str, kind: Any) -> list[Any]:
    return kind.read(*sorted((run.path / stage).glob(f"**/{file}")))


def scores(run: RunDirectory, stage: str) -> dict[Key, Score]:
    return {(score.prompt_id, score.sample_index): score for score in rows(run, stage, "scores.parquet", Score)}


def texts(run: RunDirectory, stage: str) -> dict[Key, str]:
    return {
        (sample.prompt_id, sample.sample_index): sample.text for sample in rows(run, stage, "samples.parquet", Sample)
    }


def prompts(run: RunDirectory, stage: str) -> dict[str, list[Message]]:
    return {prompt.prompt_id: prompt.messages for prompt in rows(run, stage, "prompts.parquet", Prompt)}


def test_an_ensemble_keeps_mean_and_deviation_beside_each_score(tiny_folder: Path, tmp_path: Path) -> None:
    members = [str(tiny_folder / name) for name in ("reward", "second-scorer")]
    run = scored(tiny_folder, tmp_path / "run", {"models": [{"model": member} for member in members]})
    asked, answers = prompts(run, "iteration-1/prompts"), texts(run, "iteration-1/samples")
    conversations = [[*asked[key[0]], Message(role="assistant", content=answers[key])] for key in answers]
    one, other = (SequenceClassificationReward.open(Path(member), ROUNDED).score(conversations) for member in members)
    found = scores(run, "iteration-1/rewards")
    assert len(found) == 16
    assert [found[key].reward for key in answers] == pytest.approx((one + other) / 2, abs=1e-5)
    assert [found[key].deviation for key in answers] == pytest.approx(abs(one - other) / 2**0.5, abs=1e-5)


@pytest.fixture(scope="module")
def compared(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    reward = {"model": str(tiny_folder / "tiny"), "kind": "pairwise"}
    return scored(tiny_folder, tmp_path_factory.mktemp("pairwise") / "run", reward)


def test_a_pairwise_model_ranks_the_responses_to_a_prompt_among_themselves(
    compared: RunDirectory, tiny_folder: Path
) -> None:
    model = GenerativePreference.open(tiny_folder / "tiny", ROUNDED)
    answers = texts(compared, "iteration-1/samples")
    expected = round_robin(model, prompts(compared, "iteration-1/prompts"), answers)
    found = scores(compared, "iteration-1/rewards")
    assert [found[key].reward for key in answers] == pytest.approx([expected[key] for key in answers], abs=1e-5)
    assert all(score.deviation is None for score in found.values())


def test_a_pairwise_model_measures_a_policy_against_the_greedy_base(compared: RunDirectory, tiny_folder: Path) -> None:
    model = GenerativePreference.open(tiny_folder / "tiny", ROUNDED)
    answers = texts(compared, "base/validation/answers")
    greedy = {prompt_id: text for (prompt_id, index), text in answers.items() if index == 0}
    expected = against(model, prompts(compared, "prompts/validation"), answers, greedy)
    found = scores(compared, "base/validation/scores")
    assert [found[key].reward for key in answers] == pytest.approx([expected[key] for key in answers], abs=1e-5)
    assert all(found[prompt_id, 0].reward == pytest.approx(0.5) for prompt_id in greedy)


def test_later_policies_are_compared_with_the_base_too(tiny_folder: Path) -> None:
    chosen = recipe(tiny_folder, {"model": str(tiny_folder / "tiny"), "kind": "pairwise"})
    stages = {stage.name: stage for stage in pipeline.build(chosen).stages}
    for name, base in (("validation/scores", "base/validation/answers"), ("test/reward-scores", "base/test/answers")):
        stage = stages[f"iteration-1/{name}"]
        assert stage.typed(ScoringParameters).opponents == base
        assert base in {item.stage for item in stage.inputs}
    assert stages["iteration-1/test/second-scorer-scores"].typed(ScoringParameters).opponents is None


def test_the_users_function_scores_and_a_change_of_it_is_noticed(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "length_of_the_answer.py"
    module.write_text("def score(turns):\n    return [len(each[-1]['content']) for each in turns]\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    reward = {"model": "python:length_of_the_answer:score"}
    run = scored(tiny_folder, tmp_path / "run", reward)
    answers = texts(run, "iteration-1/samples")
    assert {key: score.reward for key, score in scores(run, "iteration-1/rewards").items()} == {
        key: len(text) for key, text in answers.items()
    }
    adopted = json.loads((run.path / "reward" / "model" / "model" / "callable.json").read_text(encoding="utf-8"))
    assert adopted["callable"] == "python:length_of_the_answer:score"
    module.write_text(module.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    shutil.rmtree(run.path / "iteration-1" / "rewards")
    with pytest.raises(EngineError, match="has changed since this run began"):
        scored(tiny_folder, run.path, reward)


def test_every_checkpoint_of_an_ensemble_is_fetched_beforehand(tiny_folder: Path) -> None:
    members = [{"model": "a/b", "revision": "v1"}, {"model": "c/d"}, {"model": "python:x:y"}]
    found = pipeline.models(recipe(tiny_folder, {"models": members}))
    assert [(model.model, model.revision) for model in found if model.stage == "reward/model"] == [
        ("a/b", "v1"),
        ("c/d", None),
    ]


@pytest.mark.parametrize(
    ("reward", "line"),
    [
        ({"model": "a", "models": [{"model": "b"}, {"model": "c"}]}, "`model` and `models` exclude each other"),
        ({"models": [{"model": "a"}]}, "two different members at least"),
        ({"models": [{"model": "a"}, {"model": "a"}]}, "two different members at least"),
        ({"models": [{"model": "a"}, {"model": "b"}], "revision": "v1"}, "`revision` belongs to `model`"),
        ({"kind": "pairwise"}, "kind 'pairwise' needs a checkpoint under `model`"),
        ({"kind": "pairwise", "model": "python:a:b"}, "kind 'pairwise' needs a checkpoint under `model`"),
        (
            {"models": [{"modle": "a"}]},
            r"unknown key 'reward\.models\.0\.modle'; did you mean 'reward\.models\.0\.model'",
        ),
    ],
)
def test_a_description_that_makes_no_sense_is_one_line(tiny_folder: Path, reward: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        recipe(tiny_folder, reward)
