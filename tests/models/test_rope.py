"""Rotary frequencies that depend on a row's length: packed, padded and alone the same, on both sides of the window.

FP32, on the CPU. What is right is what transformers computes of one row in a fresh model.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Phi3Config, Phi3ForCausalLM

from gshf_release.data.records import Message, Pair, ReferenceLogProbability
from gshf_release.errors import EngineError
from gshf_release.models import checkpoints, packing, rope
from gshf_release.models.logprobs import Tokens, completion_logps, next_token_logits
from gshf_release.recipe.profile import Server
from gshf_release.rewards.sequence_classification import SequenceClassificationReward
from gshf_release.run.context import silent
from gshf_release.run.directory import RunDirectory, read_json
from gshf_release.run.execution import execute
from gshf_release.sampling import Decoding, Request, TransformersEngine
from gshf_release.sampling.openai_engine import OpenAIEngine
from tests import tiny
from tests.optimization import plan
from tests.optimization.plan import EXACT, recipe
from tests.servers.completions import CompletionsServer

WINDOW = 24
FACTORS = {"short_factor": [1.0 + number / 8 for number in range(16)], "long_factor": [2.0 + n for n in range(16)]}
KINDS: dict[str, dict[str, Any]] = {
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        "max_position_embeddings": WINDOW,
    },
    "longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "original_max_position_embeddings": WINDOW,
            "rope_theta": 1e4,
            **FACTORS,
        },
    },
}
LENGTHS = [(5, 4), (20, 4), (20, 5), (40, 30), (10, 60), (3, 20), (70, 3)]
"""Of prompts and completions: 9, 24, 25, 70, 70, 23 and 73 tokens, around a window of 24."""


def rows() -> list[Tokens]:
    return [
        Tokens(
            [6 + (7 * step + number) % 290 for step in range(prompt)],
            [6 + (11 * step + 3 * number) % 290 for step in range(completion)],
        )
        for number, (prompt, completion) in enumerate(LENGTHS)
    ]


def save_phi3(folder: Path) -> Path:
    """Save a random Phi-3 with the frequencies that its first checkpoints call `su`."""
    scaling = {"type": "su", "original_max_position_embeddings": WINDOW, **FACTORS}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Phi3Config(
        vocab_size=512,
        num_key_value_heads=1,
        max_position_embeddings=256,
        original_max_position_embeddings=WINDOW,
        rope_scaling=scaling,
        initializer_range=0.08,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **sizes,
    )
    torch.manual_seed(0)
    Phi3ForCausalLM(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[*KINDS, "su"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "base"
    return save_phi3(path) if request.param == "su" else tiny.save(path, **KINDS[request.param])


def alone(folder: Path, row: Tokens) -> float:
    """Return a row's log-probability by transformers itself, in a model that has seen nothing else."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([row.prompt_ids + row.completion_ids])).logits[0, len(row.prompt_ids) - 1 : -1]
    return float(logits.log_softmax(dim=-1)[range(len(row.completion_ids)), row.completion_ids].sum())


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 1), (8, 1), (2, 2)])
def test_log_probabilities_are_those_of_the_row_alone(folder: Path, batch: int, workers: int) -> None:
    model, expected = checkpoints.load_model(folder, "fp32"), [alone(folder, row) for row in rows()]
    for _ in range(2):  # what has been computed before decides nothing
        found = completion_logps(model, rows(), batch=batch, workers=workers)
        assert found == pytest.approx(expected, rel=1e-5)
    within = [row for row in rows() if len(row.prompt_ids) + len(row.completion_ids) <= WINDOW]
    assert completion_logps(model, within, batch=batch) == pytest.approx(
        [alone(folder, row) for row in within], abs=1e-4
    )


def test_they_are_packed_up_to_the_window(folder: Path) -> None:
    model = checkpoints.load_model(folder, "fp32")
    assert packing.can_pack(model, WINDOW) is (model.config.model_type in packing.FAMILIES)
    assert not packing.can_pack(model, WINDOW + 1)
    assert not packing.can_pack(model)


def test_logits_of_the_next_token_are_those_of_the_prompt_alone(folder: Path) -> None:
    model, prompts = checkpoints.load_model(folder, "fp32"), [row.prompt_ids + row.completion_ids for row in rows()]
    found = next_token_logits(model, prompts, [7, 8], batch=8)
    for prompt, values in zip(prompts, found, strict=True):
        fresh = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        assert values == pytest.approx(fresh(torch.tensor([prompt])).logits[0, -1, [7, 8]].tolist(), abs=1e-5)


SHORT_PAIRS = plan.pairs()


def long_pairs() -> list[Pair]:
    """Return pairs of which one side, both or none is longer than the window."""
    found = []
    for number, pair in enumerate(SHORT_PAIRS):
        longer = [100 + step for step in range((0, 25, 50)[number % 3])]
        sides = {"chosen_ids": [*longer, *pair.chosen_ids]} if number % 2 else {"rejected_ids": [*longer, 7]}
        found.append(replace(pair, **sides))
    return found


def test_the_first_dpo_loss_is_log_two(
    folder: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "pairs", long_pairs)
    chosen = recipe(tiny_folder, batch_pairs=6)
    chosen = chosen.model_copy(update={"base": chosen.base.model_copy(update={"model": str(folder)})})
    run = RunDirectory.create(tmp_path / "run", chosen, EXACT)
    execute(plan.stages(chosen), run, chosen, EXACT)
    steps = read_json(run.path / "iteration-1/policy/training.json")["steps"]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    rows = ReferenceLogProbability.read(run.path / "iteration-1/reference/reference.parquet")
    references = [[row.chosen_logp, row.rejected_logp] for row in rows]
    expected = [
        [alone(folder, Tokens(pair.prompt_ids, ids)) for ids in (pair.chosen_ids, pair.rejected_ids)]
        for pair in long_pairs()
    ]
    assert references == [pytest.approx(values, abs=1e-3) for values in expected]


def test_greedy_sampling_within_the_window_is_generates(folder: Path) -> None:
    engine = TransformersEngine(folder, precision="fp32", device="cpu", batch=4)
    engine.stops = []
    prompts = [[3, 40, 41, 42, 5], [3, 9], [3, 9, 10, 11, 12, 13, 14, 15, 16], [7]]
    found = engine.generate([Request(prompt, Decoding(0.0, WINDOW - len(prompt)), 0) for prompt in prompts], silent)
    for prompt, completion in zip(prompts, found, strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=WINDOW - len(prompt), do_sample=False, eos_token_id=None
        )
        assert completion.ids == made[0, len(prompt) :].tolist()


def test_sampling_beyond_the_window_is_refused_in_one_line(folder: Path) -> None:
    engine = TransformersEngine(folder, precision="fp32", device="cpu", batch=4)
    with pytest.raises(EngineError, match=f"needs {WINDOW + 1} tokens; the model's context is {WINDOW}"):
        engine.generate([Request([3, 9, 10], Decoding(1.0, WINDOW - 2), 0)], silent)
    assert checkpoints.context_tokens(folder) == WINDOW


def test_a_server_that_would_use_other_frequencies_is_refused_in_one_line(folder: Path) -> None:
    with CompletionsServer(folder, key=None) as server:
        settings = Server(address=server.address, key_variable="OWN_SERVER_KEY")
        if rope.is_dynamic(json.loads((folder / "config.json").read_text(encoding="utf-8"))):
            with pytest.raises(EngineError, match="which vLLM computes otherwise than transformers"):
                OpenAIEngine(folder, settings)
            return
        with pytest.raises(EngineError, match="may read 256 tokens and so uses the rotary frequencies of long rows"):
            OpenAIEngine(folder, settings)
        server.models[0]["max_model_len"] = WINDOW
        assert OpenAIEngine(folder, settings).context_tokens == WINDOW


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_conversation_alone(kind: str, tmp_path: Path) -> None:
    folder = tiny.save_reward_model(tmp_path / "reward", **KINDS[kind])
    reward = SequenceClassificationReward(folder, precision="fp32", device="cpu", batch=8)
    words = " ".join(tiny.corpus()[:3])
    conversations = [
        [Message(role="user", content=words[:length]), Message(role="assistant", content="gold")]
        for length in (1, 8, 20, 150, 90)
    ]
    ids = [reward.renderer.ids(conversation) for conversation in conversations]
    assert min(map(len, ids)) < WINDOW
    if kind == "dynamic":
        conversations = [turns for turns, row in zip(conversations, ids, strict=True) if len(row) <= WINDOW]
    else:
        assert max(map(len, ids)) > WINDOW
    scores = reward.score(conversations)
    for conversation, score in zip(conversations, scores, strict=True):
        fresh = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, num_labels=1).eval()
        single = fresh(torch.tensor([reward.renderer.ids(conversation)])).logits
        assert float(score) == pytest.approx(float(single), abs=1e-5)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": None}, None),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, None),
        ({"max_position_embeddings": 8192, "rope_scaling": {"type": "yarn", "factor": 8.0}}, None),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2048),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "su"},
            },
            4096,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096},
            },
            4096,
        ),
        ({"text_config": {"max_position_embeddings": 512, "rope_scaling": {"type": "dynamic"}}}, 512),
        (
            {
                "max_position_embeddings": 1024,
                "rope_parameters": {
                    "full_attention": {"rope_type": "dynamic", "factor": 2.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            1024,
        ),
    ],
)
def test_the_window_is_read_from_every_spelling(config: dict[str, Any], expected: int | None) -> None:
    assert rope.window(json.loads(json.dumps(config))) == expected
