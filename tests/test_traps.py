"""The twenty known traps of iterative DPO, each closed by a test of its name."""

from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gshf_release import checkpoints
from gshf_release.benchmark_data import BenchmarkPrompt
from gshf_release.diagnostics.exploration import LENGTH_REWARD
from gshf_release.evaluation.templates import template
from gshf_release.hashing import sha256_tree, tree
from gshf_release.logprobs import Tokens, completion_logps, traces
from gshf_release.optimization.dpo import loss_arguments
from gshf_release.preference.pairs import choose
from gshf_release.preference.ranking import candidates
from gshf_release.prompts.decontamination import EXACT, OVERLAP, SIMILAR, Decontaminator
from gshf_release.prompts.numbered_lists import parse
from gshf_release.prompts.rouge import SimilarityIndex
from gshf_release.prompts.split import ordered, ranges, read_prompts, supply
from gshf_release.recipe import Pairs, Prompts, Recipe, Training
from gshf_release.records import Message, Pair, Prompt, ReferenceLogProbability, Sample, Score
from gshf_release.rendering import ConversationRenderer, render
from gshf_release.results import find, read_cells
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.run.context import StageContext
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import execute
from gshf_release.run.manifest import State, state
from gshf_release.run.stage import Stage, Task
from tests import tiny
from tests.optimization import plan, sent
from tests.optimization.sent import Heard
from tests.preference.test_pairs import response
from tests.run import plans
from tests.run.plans import PROFILES, RECIPE, begin, chain
from tests.run.work import made, stage

EOS = 2
FILE = "prompts.parquet"


def samples(run: RunDirectory, stage: str = "") -> list[Sample]:
    return [row for path in sorted((run.path / stage).rglob("samples.parquet")) for row in Sample.read(path)]


def pairs(run: RunDirectory, iteration: int) -> list[Pair]:
    return Pair.read(run.path / f"iteration-{iteration}" / "pairs" / "pairs.parquet")


def references(run: RunDirectory, iteration: int) -> list[ReferenceLogProbability]:
    return ReferenceLogProbability.read(run.path / f"iteration-{iteration}" / "reference" / "reference.parquet")


@pytest.fixture(scope="module", params=list(sent.TRAINERS))
def heard(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Heard]:
    """Return what the loss of DPO, and that of RAFT's supervised step, were given of `sent.pairs`, by sequence."""
    return sorted(sent.train(request.param, tiny_folder, tmp_path_factory.mktemp("heard") / "run"))


def test_trap_01_one_id_sequence_everywhere(finished: RunDirectory, tokenizer: Any) -> None:
    prompts = {row.prompt_id: row for path in finished.path.rglob("prompts.parquet") for row in Prompt.read(path)}
    for sample in samples(finished):
        messages = prompts[sample.prompt_id].messages
        assert sample.prompt_ids == tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    for iteration in (1, 2):
        drawn = {(row.prompt_id, row.sample_index): row for row in samples(finished, f"iteration-{iteration}/samples")}
        for pair in pairs(finished, iteration):
            assert pair.prompt_ids == drawn[pair.prompt_id, pair.chosen_index].prompt_ids


def test_trap_01_the_loss_is_given_the_stored_ids_and_no_others(heard: list[Heard]) -> None:
    assert [row.sequence for row in heard] == [row.sequence for row in sent.expected()]


def test_trap_02_the_empty_system_turn_is_one_switch(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": "why?"}]
    texts = [tokenizer.decode(render(tokenizer, asked, Prompts(empty_system=empty))) for empty in (False, True)]  # type: ignore[arg-type]
    assert texts == [
        "<|user|>\nwhy?</s>\n<|assistant|>\n",
        "<|system|>\n</s>\n<|user|>\nwhy?</s>\n<|assistant|>\n",
    ]


def test_trap_02_training_and_evaluation_obey_the_same_switch(finished: RunDirectory, tokenizer: Any) -> None:
    """Both render by the recipe's rules, and every stage that samples is redone when the switch is turned."""
    asked = [Message(role="user", content="why?")]
    for empty in (False, True):
        rules = Prompts(empty_system=empty)
        assert template(None, tokenizer, rules).ids(asked) == render(tokenizer, asked, rules)
    sampling = [stage for stage in finished.plan if stage.work.endswith((":sample", ":sample_turn"))]
    asking = {stage.name.split("/")[-2] for stage in sampling}
    assert {"iteration-1", "iteration-2", "validation", "test", "eval"} <= asking
    assert all("prompts.empty_system" in stage.keys for stage in sampling)


def test_trap_03_eos_once_and_only_where_the_model_stopped(finished: RunDirectory) -> None:
    reasons = set()
    for sample in samples(finished):
        reasons.add(sample.finish_reason)
        assert sample.completion_ids.count(EOS) == (sample.finish_reason == "stop")
        assert (sample.completion_ids[-1] == EOS) == (sample.finish_reason == "stop")
    assert reasons == {"stop", "length"}


def test_trap_03_the_loss_counts_eos_where_the_model_stopped_and_adds_none(heard: list[Heard]) -> None:
    """Of six completions four ended."""
    assert [row.counted for row in heard] == [row.counted for row in sent.expected()]
    assert sorted(row.counted.count(EOS) for row in heard) == [0, 0, 1, 1, 1, 1]


def test_trap_04_sampled_ids_are_trained_not_their_text_again(finished: RunDirectory, tokenizer: Any) -> None:
    again = 0
    for iteration in (1, 2):
        drawn = {(row.prompt_id, row.sample_index): row for row in samples(finished, f"iteration-{iteration}/samples")}
        for pair in pairs(finished, iteration):
            for index, ids in ((pair.chosen_index, pair.chosen_ids), (pair.rejected_index, pair.rejected_ids)):
                assert ids == drawn[pair.prompt_id, index].completion_ids
                text, words = drawn[pair.prompt_id, index].text, [token for token in ids if token != EOS]
                again += tokenizer(text, add_special_tokens=False)["input_ids"] != words
    assert again > 0, "tokenising the text again would have given other ids"


@pytest.mark.parametrize("long", ["chosen", "rejected", "prompt"])
def test_trap_05_a_long_pair_is_dropped_whole_never_cut(long: str) -> None:
    found = [response(0), response(1)]
    if long == "prompt":
        found = [replace(entry, prompt_ids=[5] * 20) for entry in found]
    else:
        side = ("chosen", "rejected").index(long)
        found[side] = response(side, ids=[3] * 50)
    rows = candidates(found, {0: 1.0, 1: 0.0}, Pairs(max_tokens=20))
    assert choose(rows, Pairs(max_tokens=20), 1, random.Random(0)) == (None, "too long")


def test_trap_05_the_loss_is_given_long_completions_whole(heard: list[Heard]) -> None:
    """TRL itself would cut one side of the pair and count what is left."""
    assert max(len(row.sequence) for row in heard) == 3 + 1 + sent.LONG + 1
    assert all(row.counted for row in heard)


def test_trap_06_degenerate_pairs_are_dropped_by_reason() -> None:
    cases: list[tuple[list[Sample], list[float], str]] = [
        ([response(0, "same", [3]), response(1, " same", [4])], [0.0, 1.0], "identical text"),
        ([response(0, ids=[3]), response(1, ids=[3])], [0.0, 1.0], "identical ids"),
        ([response(0), response(1)], [1.0, 1.0], "tied rewards"),
        ([response(0), response(1)], [0.5, 1.0], "small margin"),
        ([response(0), response(1)], [math.nan, 1.0], "non-finite reward"),
        ([response(0), response(1)], [1.0, math.inf], "non-finite reward"),
        ([response(0)], [1.0], "too few responses"),
    ]
    rules = Pairs(minimum_margin=0.5)
    for found, rewards, reason in cases:
        rows = candidates(found, dict(enumerate(rewards)), rules)
        assert choose(rows, rules, 1, random.Random(0)).reason == reason


def test_trap_06_of_equal_rewards_the_lowest_index_counts_on_both_sides() -> None:
    rows = candidates([response(index) for index in range(5)], dict(enumerate([0.5, 1.0, 0.0, 1.0, 0.0])), Pairs())
    pair = choose(rows, Pairs(), 1, random.Random(0)).pair
    assert pair is not None
    assert (pair.chosen_index, pair.rejected_index) == (1, 2)


def test_trap_07_the_loss_starts_at_log_two(finished: RunDirectory) -> None:
    loss = find(read_cells(finished.path / "results.json"), row="iteration-1", metric="DPO loss, first step")
    assert loss is not None
    assert loss.value == pytest.approx(math.log(2), abs=1e-5)


def test_trap_07_a_base_that_names_dropout_is_trained_without(tmp_path: Path, one_thread: None) -> None:
    """The attention of Mistral and Llama reads the rate from a number of its own, which TRL's switch does not reach."""
    tiny.save(tmp_path / "tiny", attention_dropout=0.5)
    chosen = plan.recipe(tmp_path)
    run = RunDirectory.create(tmp_path / "run", chosen, plan.EXACT)
    plan.finish(run, chosen)
    loss = find(read_cells(run.path / "results.json"), row="iteration-1", metric="DPO loss, first step")
    assert loss is not None
    assert loss.value == pytest.approx(math.log(2), abs=1e-6)


def test_trap_07_the_reference_is_computed_in_the_arithmetic_of_training(tmp_path: Path, tiny_folder: Path) -> None:
    """BF16 over FP32 weights on both sides; what is left comes from batches of other shapes."""
    chosen = plan.recipe(tiny_folder, precision="bf16")
    run = RunDirectory.create(tmp_path / "run", chosen, plan.EXACT)
    plan.finish(run, chosen)
    loss = find(read_cells(run.path / "results.json"), row="iteration-1", metric="DPO loss, first step")
    assert loss is not None
    assert loss.value == pytest.approx(math.log(2), abs=1e-5)


def test_trap_08_the_reference_is_the_base_by_content_hash(finished: RunDirectory) -> None:
    base = sha256_tree(tree(finished.path / "base" / "model"))
    assert base == finished.stage_sha256(Stage("base", work=""), "model")
    for iteration in (1, 2):
        assert {row.reference_sha256 for row in references(finished, iteration)} == {base}


@pytest.mark.parametrize("batch", [1, 8])
def test_trap_08_cached_reference_log_probabilities_are_those_of_the_base_computed_again(
    finished: RunDirectory, batch: int
) -> None:
    """From a fresh load of the base, pair by pair in order; those of the moved policy are others."""
    base = checkpoints.load_model(finished.path / "base" / "model", "fp32")
    moved = checkpoints.load_model(finished.path / "iteration-1" / "policy" / "model", "fp32")
    for iteration in (1, 2):
        found, rows = pairs(finished, iteration), references(finished, iteration)
        assert [row.prompt_id for row in rows] == [pair.prompt_id for pair in found]
        sides = [Tokens(pair.prompt_ids, ids) for pair in found for ids in (pair.chosen_ids, pair.rejected_ids)]
        cached = [value for row in rows for value in (row.chosen_logp, row.rejected_logp)]
        assert cached == pytest.approx(completion_logps(base, sides, batch=batch), abs=1e-4)
        others = completion_logps(moved, sides, batch=batch)
        assert max(abs(one - other) for one, other in zip(cached, others, strict=True)) > 1e-3


def test_trap_09_log_probabilities_are_sums_whatever_the_padding(policy: Any) -> None:
    rows = [Tokens([4, 40, 41, 5], [60, 61, EOS]), Tokens([4, 5], [70]), Tokens([4, *range(40, 60), 5], [60, 61])]
    logits = policy(torch.tensor([[4, 40, 41, 5, 60, 61, EOS]])).logits[0].log_softmax(dim=-1)
    by_hand = float(logits[3, 60] + logits[4, 61] + logits[5, EOS])
    alone, together = completion_logps(policy, rows, batch=1), completion_logps(policy, rows[::-1], batch=3)[::-1]
    assert alone[0] == pytest.approx(by_hand, abs=1e-4)
    assert together == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("x", [-2.0, 0.0, 1.3])
def test_trap_10_label_smoothing_is_conservative_or_robust_as_asked(x: float) -> None:
    """The two terms that TRL is handed, with their weights, add up to the closed forms."""
    e = 0.2

    def log_sigmoid(value: float) -> float:
        return -math.log1p(math.exp(-value))

    trl = {
        "sigmoid": -log_sigmoid(x),
        "robust": (-(1 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1 - 2 * e),
    }
    closed = {"smoothed": -(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x), "robust": trl["robust"]}
    for loss, expected in closed.items():
        arguments = loss_arguments(Training.model_validate({"loss": loss, "label_smoothing": e}))
        weights = arguments.get("loss_weights") or [1.0]
        total = sum(weight * trl[name] for name, weight in zip(arguments["loss_type"], weights, strict=True))
        assert total == pytest.approx(expected, abs=1e-12)
        assert arguments["label_smoothing"] == e


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
    from gshf_release.run.execution import Quiet
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
    execute(graph.stages, run, recipe, EXACT, goal=goal, observer=Quiet())
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
    assert recorded["excluded_sha256"]


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
    stage = Stage("s", "tests.test_traps:half_done", outputs=("a", "b"))
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


def test_there_is_a_test_for_every_trap() -> None:
    named = {name[:12] for name in globals() if name.startswith("test_trap_")}
    assert named == {f"test_trap_{number:02d}" for number in range(1, 21)}
