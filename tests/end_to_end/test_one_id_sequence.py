"""Trap 1: the ids that are sampled from, scored by the reference, trained on and evaluated are one sequence.

200 nasty conversations go through the whole loop; wherever a prompt's ids are stored, they are those of transformers' template;
where control tokens in messages are text, those of a tokenizer that does not know these tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gshf_release import pipeline
from gshf_release.data.records import Message, Pair, Prompt, Sample
from gshf_release.models.checkpoints import load_tokenizer
from gshf_release.recipe import Recipe, parse
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver
from tests import nasty, tiny
from tests.end_to_end.train_tiny import EXACT


def with_empty_system(messages: list[Message]) -> list[Message]:
    """Return the conversation with an empty system turn if it has none."""
    first = [] if messages[0]["role"] == "system" else [Message(role="system", content="")]
    return [*first, *messages]


@pytest.mark.parametrize(("control_tokens", "empty_system"), [("template", False), ("text", True)])
def test_nasty_conversations_have_the_same_ids_everywhere(
    one_thread: None, tmp_path: Path, control_tokens: str, empty_system: bool
) -> None:
    tiny.save(tmp_path / "tiny", max_position_embeddings=4096)
    for seed, name in ((1, "reward"), (2, "second-scorer")):
        tiny.save_reward_model(tmp_path / name, seed, max_position_embeddings=4096)
    source = tmp_path / "nasty.jsonl"
    rows = [json.dumps({"messages": conversation}) + "\n" for conversation in nasty.conversations()]
    source.write_text("".join(rows), encoding="utf-8")
    roles = {"per_iteration": 100, "validation": 40, "test": 60}
    changes = {
        "prompts": {
            "source": str(source),
            "control_tokens": control_tokens,
            "empty_system": empty_system,
            "roles": roles,
        },
        "loop": {"iterations": 1},
        "sampling": {"n": 2, "max_new_tokens": 3, "prompts_per_shard": 100},
        "pairs": {"max_tokens": 4096},
    }
    recipe = parse(Recipe, tiny.recipe(tmp_path, **changes), "tiny")
    run = RunDirectory.create(tmp_path / "run", recipe, EXACT)
    pipeline.train(run, recipe, EXACT, allow_redo=False, observer=SilentObserver())
    pipeline.evaluate(run, EXACT, allow_redo=False, observer=SilentObserver())
    tokenizer = load_tokenizer(tmp_path / "tiny")
    if control_tokens == "text":
        tokenizer = tiny.deaf(tokenizer)
    expected = {
        prompt.prompt_id: tokenizer.apply_chat_template(
            with_empty_system(prompt.messages) if empty_system else prompt.messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for prompt in Prompt.read(run.path / "prompts" / "pool" / "prompts.parquet")
    }
    assert len(expected) == 200
    seen = set()
    for path in run.path.rglob("samples.parquet"):
        for sample in Sample.read(path):
            if sample.prompt_id in expected:
                seen.add(sample.prompt_id)
                assert sample.prompt_ids == expected[sample.prompt_id], path
    assert seen == set(expected), "sampling, validation and test together use every conversation"
    pairs = Pair.read(run.path / "iteration-1" / "pairs" / "pairs.parquet")
    assert pairs
    assert all(pair.prompt_ids == expected[pair.prompt_id] for pair in pairs)
