"""The last step of greedy decoding in FP32, for models of BF16 and FP16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gshf_release.models import checkpoints
from gshf_release.run.context import silent
from gshf_release.sampling import Decoding, Request, TransformersEngine, greedy
from gshf_release.sampling.greedy import LikeliestToken
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of large logits, at which BF16 is coarse."""
    return tiny.save(tmp_path_factory.mktemp("coarse") / "base", initializer_range=0.4)


def exact_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the next token's logits, the product with the output matrix alone in FP32."""
    with torch.inference_mode():
        hidden = model.base_model(torch.tensor([ids])).last_hidden_state[:, -1]
        return hidden.float() @ model.get_output_embeddings().weight.float().T


PROMPTS = [[3, 6 + number % 290, 40 + number % 7, 6 + 3 * number % 290] for number in range(200)]


def test_every_token_is_the_likeliest_by_fp32_logits(folder: Path) -> None:
    engine = TransformersEngine(folder, precision="bf16", device="cpu", batch=1)
    found = engine.generate([Request(prompt, Decoding(0.0, 1), 0) for prompt in PROMPTS], silent)
    tied = 0
    for prompt, completion in zip(PROMPTS, found, strict=True):
        with torch.inference_mode():
            coarse = engine.model(torch.tensor([prompt])).logits[0, -1]
        tied += int(int((coarse == coarse.max()).sum()) > 1)
        assert completion.ids[0] == int(exact_logits(engine.model, prompt).argmax())
    assert tied >= 5, "some of their BF16 logits tie"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("most", [0, 256])
def test_candidates_are_enough(dtype: torch.dtype, most: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "MOST_CANDIDATES", most)
    model = checkpoints.load_model(folder, "fp32").to(dtype)
    likeliest = LikeliestToken(model)
    with torch.inference_mode():
        logits = model(torch.tensor(PROMPTS)).logits[:, -1]
    hidden = likeliest.hidden()
    expected = (hidden.float() @ model.lm_head.weight.float().T).argmax(dim=-1)
    assert likeliest(logits, hidden).tolist() == expected.tolist()
    assert logits.float().argmax(dim=-1).tolist() != expected.tolist(), "the coarse logits name others"


def test_an_fp32_model_is_left_alone(folder: Path) -> None:
    likeliest = LikeliestToken(checkpoints.load_model(folder, "rounded"))
    assert likeliest.hidden() is None
    assert likeliest(torch.tensor([[0.0, 2.0, 1.0]]), None).tolist() == [1]


def test_drawn_and_greedy_rows_share_a_batch(folder: Path) -> None:
    engine = TransformersEngine(folder, precision="bf16", device="cpu", batch=8, workers=2)
    wanted = [Request(prompt, Decoding(float(number % 2), 5), number) for number, prompt in enumerate(PROMPTS[:16])]
    assert engine.generate(wanted, silent) == engine.generate(wanted, silent)
