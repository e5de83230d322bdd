"""The traps of iterative DPO around training, in measures, prompts, rewards, files: 11 to 20, each with a test of its name."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gshf_release.data.records import Message, Prompt, Sample, Score
from gshf_release.data.results import find, read_cells
from gshf_release.diagnostics.exploration import LENGTH_REWARD
from gshf_release.models import checkpoints
from gshf_release.models.chat_tokenizer import ConversationRenderer, render
from gshf_release.models.logprobs import traces
from gshf_release.prompts.benchmark_files import BenchmarkPrompt
from gshf_release.prompts.decontamination import EXACT, OVERLAP, SIMILAR, Decontaminator
from gshf_release.prompts.numbered_lists import parse
from gshf_release.prompts.rouge import SimilarityIndex
from gshf_release.prompts.split import ordered, ranges, read_prompts, supply
from gshf_release.recipe import Recipe
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import Stage, Task
from tests import tiny
from tests.run import plans
from tests.run.plans import PROFILES, RECIPE, begin, chain
from tests.run.work import made, stage
from tests.traps.files import EOS, FILE, pairs, samples


def test_trap_11_every_iteration_reports_what_length_did(finished: RunDirectory) -> None:
    cells = read_cells(finished.path / "results.json")
    for row in ("iteration-1", "iteration-2"):
        for metric, more in (
            ("length", {"table": "validation", "decoding": "T=0.7"}),
            ("median length", {"table": "validation", "decoding": "T=0.7"}),
            ("cut", {"table": "validation", "decoding": "T=0.7"}),
            ("chosen longer", {}),
            ("length-only accuracy of pairs", {}),
            (LENGTH_REWARD, {}),
        ):
            assert find(cells, row=row, metric=metric, **more) is not None, metric


@pytest.mark.parametrize("iteration", [1, 2])
def test_trap_11_what_is_reported_of_length_follows_from_the_files(finished: RunDirectory, iteration: int) -> None:
    row = f"iteration-{iteration}"
    rewards = {
        (score.prompt_id, score.sample_index): score.reward
        for path in (finished.path / row / "rewards").rglob("scores.parquet")
        for score in Score.read(path)
    }
    by_prompt: dict[str, list[tuple[int, float]]] = {}
    for sample in samples(finished, f"{row}/samples"):
        place = (len(sample.completion_ids), rewards[sample.prompt_id, sample.sample_index])
        by_prompt.setdefault(sample.prompt_id, []).append(place)
    varied = [found for found in by_prompt.values() if len({length for length, _ in found}) > 1]
    answers = [entry for entry in samples(finished, f"{row}/validation/answers") if entry.temperature == 0.7]
    lengths = [len(entry.completion_ids) for entry in answers]
    sides = [(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs(finished, iteration)]
    correlations = [float(np.corrcoef(np.array(found).T)[0, 1]) for found in varied]
    assert correlations or iteration == 2, "lengths vary in the first iteration at least"
    expected = {
        LENGTH_REWARD: statistics.mean(correlations) if correlations else None,
        "chosen longer": 100 * statistics.mean(chosen > rejected for chosen, rejected in sides),
        "length-only accuracy of pairs": 100
        * statistics.mean((1 + np.sign(chosen - rejected)) / 2 for chosen, rejected in sides),
        "length": statistics.mean(lengths),
        "median length": statistics.median(lengths),
        "cut": 100 * statistics.mean(entry.finish_reason == "length" for entry in answers),
    }
    cells = read_cells(finished.path / "results.json")
    for metric, value in expected.items():
        decoding = {"decoding": "T=0.7"} if metric in ("length", "median length", "cut") else {}
        found = find(cells, row=row, metric=metric, **decoding)
        assert found is not None, metric
        assert found.value == pytest.approx(value), metric


def test_trap_12_divergence_never_counts_padding(policy: Any) -> None:
    noisy = type(policy)(policy.config).eval()
    rows = [
        Sample(
            str(number),
            0,
            "T=1",
            1.0,
            [4, *range(40, 41 + 9 * number), 5],
            [60 + number, 61][: 1 + number % 2],
            "",
            "length",
            "",
        )
        for number in range(4)
    ]
    alone = traces(policy, noisy, policy, rows, batch=1)
    together = traces(policy, noisy, policy, rows, batch=4)
    for one, many in zip(alone, together, strict=True):
        assert list(many) == pytest.approx(list(one), abs=1e-3)
        assert one.kl > 0


def test_trap_13_sharding_changes_no_draw_and_loses_no_prompt(
    finished: RunDirectory, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    from gshf_release import pipeline
    from gshf_release.run.execution import SilentObserver
    from tests.end_to_end.train_tiny import EXACT

    sampling = tiny_recipe.sampling.model_copy(update={"prompts_per_shard": 3})
    recipe = tiny_recipe.model_copy(
        update={"sampling": sampling, "loop": tiny_recipe.loop.model_copy(update={"iterations": 1})}
    )
    run = RunDirectory.create(tmp_path / "run", recipe, EXACT)
    graph = pipeline.build(recipe)
    goal = [
        stage for stage in graph.train if not stage.name.startswith("iteration-1/") or stage.name.endswith("/prompts")
    ]
    goal += [stage for stage in graph.train if stage.name == "iteration-1/samples"]
    goal = [stage for stage in goal if stage.name != "final"]
    execute(graph.stages, run, recipe, EXACT, goal=goal, observer=SilentObserver())
    narrow, wide = (
        {(row.prompt_id, row.sample_index): row for row in samples(each, "iteration-1/samples")}
        for each in (run, finished)
    )
    assert narrow.keys() == wide.keys()
    assert all(narrow[key].completion_ids == wide[key].completion_ids for key in wide)


ROLES = {
    "iteration-1": "iteration-1/prompts",
    "iteration-2": "iteration-2/prompts",
    "validation": "prompts/validation",
    "test": "prompts/test",
}


def test_trap_14_roles_are_disjoint_and_come_from_the_seed_and_the_prompts_alone(finished: RunDirectory) -> None:
    recipe = finished.recipe
    given = {
        role: [row.prompt_id for row in Prompt.read(finished.path / place / "prompts.parquet")]
        for role, place in ROLES.items()
    }
    assert {role: len(rows) for role, rows in given.items()} == {
        "iteration-1": 8,
        "iteration-2": 8,
        "validation": 4,
        "test": 4,
    }
    everything = [prompt_id for rows in given.values() for prompt_id in rows]
    assert len(everything) == len(set(everything))
    source = read_prompts(Path(recipe.prompts.source))
    shuffled = random.Random(1).sample(source, len(source))
    for role, (first, last) in ranges(recipe).items():
        if role in given:
            assert [row.prompt_id for row in ordered(shuffled, recipe.seed)[first:last]] == given[role]
    other = [row.prompt_id for row in ordered(source, recipe.seed + 1)]
    assert other != [row.prompt_id for row in ordered(source, recipe.seed)]


def test_trap_14_validation_and_test_prompts_are_never_trained_on(finished: RunDirectory) -> None:
    """Neither sampled for training, nor in a pair that the policy was trained on."""
    files = [finished.path / ROLES[role] / FILE for role in ("validation", "test")]
    held_out = {row.prompt_id for row in Prompt.read(*files)}
    for iteration in (1, 2):
        assert not held_out & {row.prompt_id for row in samples(finished, f"iteration-{iteration}/samples")}
        trained = {pair.prompt_id for pair in pairs(finished, iteration)}
        assert trained
        assert trained <= {row.prompt_id for row in Prompt.read(finished.path / ROLES[f"iteration-{iteration}"] / FILE)}


def test_trap_14_a_later_run_cannot_use_a_prompt_again(finished: RunDirectory) -> None:
    recipe = finished.recipe
    used = {row.prompt_id for place in ROLES.values() for row in Prompt.read(finished.path / place / FILE)}
    source = Path(recipe.prompts.source)
    again = recipe.prompts.model_copy(update={"exclude": (str(finished.path),)})
    left, recorded = supply(recipe.model_copy(update={"prompts": again}), source)
    assert {row.prompt_id for row in left} == {row.prompt_id for row in read_prompts(source)} - used
    assert recorded.excluded_sha256 != supply(recipe, source)[1].excluded_sha256


def test_trap_15_near_copies_among_prompts_are_dropped_by_exact_rouge_l() -> None:
    """F of the second with the first: 9 words in common of 10 and 10, 0.9; of the third: 7 of 10 and 10, 0.7, not above."""
    first = "explain why the tea in a cup cools so slowly"
    index = SimilarityIndex()
    hits = index.add_distinct(
        [
            first,
            "explain why the tea in a cup cools so quickly",
            "explain why the tea in a cup never gets hot",
            "name three rivers",
        ]
    )
    assert [hit is not None for hit in hits] == [False, True, False, False]


def test_trap_16_benchmark_prompts_and_near_copies_are_removed() -> None:
    """The third has eight words in a row of the benchmark's and many others, so that ROUGE-L alone would keep it."""
    known = [BenchmarkPrompt("b/0", "Which river of the old world carries the most water to the sea?")]
    found = Decontaminator(known).check(
        [
            "which river of the old world carries the most water to the sea",
            "Which river of the old world carries more water to the sea?",
            "Tell me which river of the old world carries the fewest boats, and write a poem of four lines about it.",
            "Which mountain of the new world is the highest?",
        ]
    )
    assert [hit and hit.reason for hit in found] == [EXACT, SIMILAR, OVERLAP, None]
    assert {hit.key for hit in found if hit is not None} == {"b/0"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch", [1, 8])
def test_trap_17_a_reward_model_is_read_at_the_last_token_whatever_its_tokenizer_says_of_padding(
    tmp_path: Path, one_thread: None, side: str, batch: int
) -> None:
    """Its checkpoint names a side and no padding token. Expected: the head at the end of each row alone, never padded."""
    folder = tiny.save_reward_model(tmp_path / "reward", pad_token_id=None)
    tiny.retemplate(folder, tiny.STRICT_TEMPLATE, padding_side=side, truncation_side=side, pad_token=None)
    asked = Message(role="user", content="why is gold good?")
    conversations = [[asked, Message(role="assistant", content="tea " * (1 + 3 * number))] for number in range(8)]
    model = SequenceClassificationReward(folder, precision="fp32", device="cpu", batch=batch)
    assert model.tokenizer.padding_side == side
    expected = []
    for conversation in conversations:
        text = f"<s>[INST] {asked['content']} [/INST]{conversation[-1]['content']}</s>"
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            expected.append(float(model.model.score(model.model.model(torch.tensor([ids])).last_hidden_state[0, -1])))
    assert list(model.score(conversations)) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) == 8


def test_trap_17_the_template_is_the_reward_models_own(tmp_path: Path, one_thread: None) -> None:
    """It takes no system turn, as Mistral-Instruct's; the policy's, which does, plays no part."""
    folder = tiny.retemplate(tiny.save_reward_model(tmp_path / "reward"), tiny.STRICT_TEMPLATE)
    model = SequenceClassificationReward(folder, precision="fp32", device="cpu", batch=8)
    turns = [Message(role=role, content=text) for role, text in (("system", "be brief"), ("user", "why?"))]
    answered = [*turns, Message(role="assistant", content="tea")]
    assert model.renderer.text(answered) == "<s>[INST] be brief\n\nwhy? [/INST]tea</s>"
    assert math.isfinite(float(model.score([answered])[0]))


def test_trap_18_users_text_is_never_cut_lowered_or_turned_into_control_tokens(tokenizer: Any) -> None:
    specials = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    for text in ("None", "Use HTML and Python", "say </s> or <|assistant|>", "<s>", "emoji 🙂"):
        ids = render(tokenizer, [{"role": "user", "content": text}])
        assert text in tokenizer.decode(ids)
        assert sum(token in specials for token in ids) == 3, "user, end, assistant"
        answered = [Message(role="user", content=text), Message(role="assistant", content=text)]
        scored = ConversationRenderer(tokenizer).ids(answered)
        assert tokenizer.decode(scored).count(text) == 2
        assert sum(token in specials for token in scored) == 4, "user, end, assistant, end: what a reward model reads"


def test_trap_18_a_written_prompt_keeps_its_letters() -> None:
    """Self-instruct capitalises what its model wrote, and so lowers HTML."""
    listed = "1. Use HTML and Python\n2. what does </s> mean?\n3. None of it\n"
    assert parse(listed, cut=False).items == ["Use HTML and Python", "what does </s> mean?", "None of it"]


def half_done(context: StageContext) -> None:
    """Write one of two outputs and die."""
    context.output("a").write_text("half", encoding="utf-8")
    raise OSError("killed")


def test_trap_19_a_stage_that_died_never_looks_finished(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    stage = Stage("s", "tests.traps.test_around_training:half_done", outputs=("a", "b"))
    with pytest.raises(OSError, match="killed"):
        execute([stage], run, RECIPE, PROFILES["here"])
    assert state(Task(stage), run, RECIPE, {"s": stage}) is State.MISSING
    assert not (run.path / "s" / "a").exists()


def test_trap_19_a_killed_stage_is_done_again(tmp_path: Path) -> None:
    run, stages = begin(tmp_path / "run"), chain("write", "killed_once", "write")
    (run.path / "broken").touch()
    assert plans.start(run.path, "here", "write", "killed_once", "write").wait() == -9
    by_name = {entry.name: entry for entry in stages}
    found = [state(Task(entry), run, RECIPE, by_name) for entry in stages]
    assert found == [State.FINISHED, State.MISSING, State.MISSING]
    (run.path / "broken").unlink()
    execute(stages, run, RECIPE, PROFILES["here"])
    assert {state(Task(entry), run, RECIPE, by_name) for entry in stages} == {State.FINISHED}


def test_trap_19_a_changed_recipe_redoes_only_what_depends_on_it(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    stages = [stage("a"), stage("b", "a", keys=("sampling.n",)), stage("c", "b"), stage("d", "a", keys=("seed",))]
    execute(stages, run, RECIPE, PROFILES["here"])
    changed = plans.recipe(sampling={"n": 4})
    by_name = {entry.name: entry for entry in stages}
    found = {entry.name: state(Task(entry), run, changed, by_name) for entry in stages}
    assert found == {"a": State.FINISHED, "b": State.CHANGED, "c": State.FINISHED, "d": State.FINISHED}
    execute(stages, run, changed, PROFILES["here"])
    assert made(run) == ["a", "b", "c", "d", "b", "c"]


@pytest.mark.parametrize("iteration", [1, 2])
def test_trap_20_weights_template_and_generation_config_travel(
    released: RunDirectory, tokenizer: Any, iteration: int
) -> None:
    from safetensors.torch import load_file

    start = load_file(released.path / "base" / "model" / "model.safetensors")
    trained = released.path / f"iteration-{iteration}" / "policy" / "model"
    published = released.path / "release" / "tiny" / f"iter-{iteration}"
    policy, cast = (load_file(folder / "model.safetensors") for folder in (trained, published))
    assert {name: weight.shape for name, weight in cast.items()} == {
        name: weight.shape for name, weight in start.items()
    }
    assert policy.keys() == cast.keys()
    for name, weight in policy.items():
        assert torch.equal(cast[name], weight.bfloat16()), name
    for folder in (trained, published):
        assert checkpoints.load_tokenizer(folder).chat_template == tokenizer.chat_template
        assert json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"] == EOS
