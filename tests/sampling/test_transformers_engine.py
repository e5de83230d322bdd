"""Sampling: a response depends on its own request alone, and follows the distribution it should. FP32 on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gshf_release.errors import EngineError, Interrupted
from gshf_release.run import interrupt
from gshf_release.run.context import silent
from gshf_release.sampling import Decoding, Request, TransformersEngine
from gshf_release.sampling.token_sampling import draw_tokens

PROMPTS = [[3, 40, 41, 42, 5], [3, 9], [3, 9, 10, 11, 12, 13, 14, 15, 16], [7]]
EOS = 2


def requests(count: int, temperature: float = 1.0, limit: int = 10, **options: Any) -> list[Request]:
    """Return requests that walk round the prompts, each with its own seed."""
    decoding = Decoding(temperature, limit, **options)
    return [Request(PROMPTS[number % len(PROMPTS)], decoding, number) for number in range(count)]


def ids(engine: TransformersEngine, wanted: list[Request]) -> list[list[int]]:
    return [completion.ids for completion in engine.generate(wanted, silent)]


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> TransformersEngine:
    return TransformersEngine(tiny_folder / "tiny", precision="fp32", device="cpu", batch=8)


def test_alone_and_in_a_batch_are_the_same(engine: TransformersEngine) -> None:
    wanted = requests(8)
    assert [ids(engine, [request])[0] for request in wanted] == ids(engine, wanted)


def test_temperatures_and_limits_may_share_a_batch(engine: TransformersEngine) -> None:
    wanted = [*requests(3), *requests(3, 0.0, 4), *requests(2, 0.5, 7)]
    assert [ids(engine, [request])[0] for request in wanted] == ids(engine, wanted)


def test_the_order_of_requests_is_kept(engine: TransformersEngine) -> None:
    wanted = requests(12)
    assert ids(engine, wanted[::-1])[::-1] == ids(engine, wanted)


def test_another_seed_gives_another_response(engine: TransformersEngine) -> None:
    wanted = [replace(request, prompt_ids=PROMPTS[0]) for request in requests(8)]
    assert len({tuple(found) for found in ids(engine, wanted)}) == 8


def test_temperature_zero_is_the_greedy_search_of_transformers(engine: TransformersEngine) -> None:
    for prompt in PROMPTS:
        expected = engine.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
        )
        assert ids(engine, [Request(prompt, Decoding(0.0, 12), 0)]) == [expected[0, len(prompt) :].tolist()]


def test_top_k_of_one_is_greedy(engine: TransformersEngine) -> None:
    assert ids(engine, requests(4, 1.0, top_k=1)) == ids(engine, requests(4, 0.0))


def test_a_tiny_top_p_is_greedy(engine: TransformersEngine) -> None:
    assert ids(engine, requests(4, 1.0, top_p=1e-6)) == ids(engine, requests(4, 0.0))


@pytest.fixture(scope="module")
def eager(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    """Return an engine that often draws the EOS."""
    engine = TransformersEngine(tiny_folder / "tiny", precision="fp32", device="cpu", batch=32)

    def prefer_eos(module: Any, inputs: Any, logits: Any) -> Any:
        logits = logits.clone()
        logits[..., EOS] = logits.logsumexp(dim=-1) - 1.5
        return logits

    engine.model.lm_head.register_forward_hook(prefer_eos)
    return engine


def test_a_response_ends_with_eos_if_and_only_if_it_stopped(eager: TransformersEngine) -> None:
    completions = eager.generate(requests(60, limit=6), silent)
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert EOS not in completion.ids[:-1]
        assert (completion.ids[-1] == EOS) == (completion.finish_reason == "stop")
        assert completion.finish_reason == "stop" or len(completion.ids) == 6


def test_rows_that_stop_early_do_not_disturb_the_others(eager: TransformersEngine) -> None:
    wanted = requests(16, limit=6)
    assert [ids(eager, [request])[0] for request in wanted] == ids(eager, wanted)


def test_sampling_defaults_of_a_checkpoint_do_not_change_the_distribution(tiny_folder: Path, tmp_path: Path) -> None:
    """Instruction-tuned checkpoints ship repetition penalties; the recipe's decoding is the whole truth."""
    folder = tmp_path / "opinionated"
    shutil.copytree(tiny_folder / "tiny", folder)
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    config |= {"repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "min_new_tokens": 3, "suppress_tokens": [350]}
    (folder / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    plain = TransformersEngine(tiny_folder / "tiny", precision="fp32", device="cpu", batch=8)
    opinionated = TransformersEngine(folder, precision="fp32", device="cpu", batch=8)
    wanted = [*requests(4), *requests(4, 0.0)]
    assert ids(opinionated, wanted) == ids(plain, wanted)


def test_a_response_that_does_not_fit_the_context_is_one_line(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="needs 261 tokens; the model's context is 256"):
        engine.generate([Request(PROMPTS[0], Decoding(1.0, 256), 0)], silent)


def test_progress_counts_responses(engine: TransformersEngine) -> None:
    heard: list[tuple[int, int]] = []
    engine.generate(requests(12, limit=2), lambda done, total, unit: heard.append((done, total)))
    assert heard[-1] == (12, 12)
    assert all(before < after for (before, _), (after, _) in pairwise(heard)), "only news is told"


def test_a_request_to_stop_is_heard_between_batches(engine: TransformersEngine) -> None:
    with interrupt.stop_gently():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            engine.generate(requests(1), silent)


DRAWS = 4000
LOGITS = torch.log(torch.tensor([0.4, 0.05, 0.0, 0.3, 0.2, 0.05]))


def drawn(decoding: Decoding) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the share of each token over many one-step draws."""
    numbers = np.random.default_rng(0).random(DRAWS).tolist()
    tokens = draw_tokens(LOGITS.repeat(DRAWS, 1), [decoding] * DRAWS, numbers)
    return np.bincount(tokens.numpy(), minlength=len(LOGITS)) / DRAWS


@pytest.mark.parametrize(
    ("decoding", "expected"),
    [
        (Decoding(1.0, 1), [0.4, 0.05, 0, 0.3, 0.2, 0.05]),
        # Squares .16 .0025 .09 .04 .0025 over their sum .295.
        (Decoding(0.5, 1), [0.5424, 0.0085, 0, 0.3051, 0.1356, 0.0085]),
        (Decoding(1.0, 1, top_k=2), [4 / 7, 0, 0, 3 / 7, 0, 0]),
        # The smallest set with at least 0.75: 0.4 + 0.3 + 0.2.
        (Decoding(1.0, 1, top_p=0.75), [4 / 9, 0, 0, 3 / 9, 2 / 9, 0]),
    ],
    ids=["T=1", "T=0.5", "top-k", "top-p"],
)
def test_draws_follow_the_distribution(decoding: Decoding, expected: list[float]) -> None:
    shares = drawn(decoding)
    # Five standard errors of the most variable share: 5 * sqrt(.25 / 4000) = 0.04; impossible tokens never come.
    assert np.abs(shares - expected).max() < 0.04
    assert all(share == 0 for share, wanted in zip(shares, expected, strict=True) if wanted == 0)
