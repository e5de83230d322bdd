"""The traps of iterative DPO between the sampled ids and the loss: 1 to 10, each closed by a test of its name."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gshf_release.data.hashing import sha256_tree, tree
from gshf_release.data.records import Message, Prompt, Sample
from gshf_release.data.results import find, read_cells
from gshf_release.evaluation.answer_templates import template
from gshf_release.models import checkpoints
from gshf_release.models.chat_tokenizer import render
from gshf_release.models.logprobs import Tokens, completion_logps
from gshf_release.optimization.dpo import loss_arguments
from gshf_release.preference.pairs import choose_pair
from gshf_release.preference.ranking import candidates
from gshf_release.recipe import Pairs, Prompts, Training
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage
from tests import tiny
from tests.optimization import plan, sent
from tests.optimization.sent import Heard
from tests.preference.test_pairs import response
from tests.traps.files import EOS, pairs, references, samples


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
    sampling = [stage for stage in finished.plan if stage.kind == "sampling"]
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
    assert choose_pair(rows, Pairs(max_tokens=20), 1, random.Random(0)) == (None, "too long")


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
        assert choose_pair(rows, rules, 1, random.Random(0)).reason == reason


def test_trap_06_of_equal_rewards_the_lowest_index_counts_on_both_sides() -> None:
    rows = candidates([response(index) for index in range(5)], dict(enumerate([0.5, 1.0, 0.0, 1.0, 0.0])), Pairs())
    pair = choose_pair(rows, Pairs(), 1, random.Random(0)).pair
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
