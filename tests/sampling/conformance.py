"""What every sampling engine must do, as tests: a subclass brings a fixture `engine` on the checkpoint of `ending_folder`.

The checkpoint is random, in FP32 arithmetic, and ends a response with a chance of 8% a token. Numbers are compared with
transformers' own logits on the same weights.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats

from gshf_release.errors import EngineError
from gshf_release.models.checkpoints import Precision
from gshf_release.run.context import silent
from gshf_release.sampling.protocol import Completion, Decoding, Request
from tests.tiny import ENDING, EOS, OTHER_END, OTHER_ENDING

PROMPTS = [[3, 40, 41, 42, 5], [3, 9], [3, 9, 10, 11, 12, 13, 14, 15, 16], [7]]
CONTEXT = 256
DRAWS = 1500


def requests(count: int, temperature: float = 1.0, limit: int = 10, **options: Any) -> list[Request]:
    """Return requests that walk round the prompts, each with its own seed."""
    decoding = Decoding(temperature, limit, **options)
    return [Request(PROMPTS[number % len(PROMPTS)], decoding, 2**62 + number) for number in range(count)]


class EngineConformance:
    """The suite."""

    equal_alone_of_eight: ClassVar[int] = 8
    """How many of eight responses must be the same alone as in a batch: all if the engine promises bit-equality, else most,
    since the last bits of a logit may flip a draw."""

    draws: ClassVar[int] = DRAWS
    """How many draws are compared with the distribution."""

    precision: ClassVar[Precision] = "fp32"
    """In which the engine computes the logits it draws from: coarse ones tie where FP32 ones do not."""

    tolerance: ClassVar[float] = 1e-3
    """How far below the likeliest token's logit, in FP32, that of a greedily drawn one may lie."""

    @pytest.fixture(scope="class")
    def logits(self, ending_folder: Path) -> Any:
        """Return a function from ids to transformers' logits of the next token."""
        return logits_of(ending_folder, "fp32")

    @pytest.fixture(scope="class")
    def drawn_logits(self, ending_folder: Path) -> Any:
        """Return the same in the engine's own precision."""
        return logits_of(ending_folder, self.precision)

    def test_ids_of_one_response_a_request_within_limit_and_vocabulary(self, engine: Any) -> None:
        completions = engine.generate(requests(12), silent)
        assert len(completions) == 12
        for completion in completions:
            assert 1 <= len(completion.ids) <= 10
            assert all(type(token) is int and 0 <= token < 512 for token in completion.ids)

    def test_a_response_ends_with_an_end_token_if_and_only_if_it_stopped(self, engine: Any) -> None:
        completions = engine.generate(requests(60), silent)
        assert {completion.finish_reason for completion in completions} == {"stop", "length"}
        for completion in completions:
            assert not {EOS, OTHER_END} & set(completion.ids[:-1])
            assert (completion.ids[-1] in engine.stops) == (completion.finish_reason == "stop")
            assert completion.finish_reason == "stop" or len(completion.ids) == 10

    def test_an_end_token_at_the_limit_counts_as_stopped(self, engine: Any) -> None:
        wanted = [Request([3, ENDING], Decoding(1.0, 1), 5)]
        assert engine.generate(wanted, silent) == [Completion([EOS], "stop")]

    def test_every_end_token_of_the_generation_config_stops(self, engine: Any) -> None:
        assert engine.stops == [EOS, OTHER_END]
        wanted = [Request([3, token], Decoding(1.0, 10), 5) for token in (ENDING, OTHER_ENDING)]
        ends = [Completion([EOS], "stop"), Completion([OTHER_END], "stop")]
        assert engine.generate(wanted, silent) == ends

    def test_an_empty_response_is_the_end_token_alone(self, engine: Any) -> None:
        wanted = [Request([3, 40, ENDING], Decoding(temperature, 10), 1) for temperature in (0.0, 0.7, 1.0)]
        assert engine.generate(wanted, silent) == [Completion([EOS], "stop")] * 3

    def test_no_request_no_completion(self, engine: Any) -> None:
        assert engine.generate([], silent) == []

    def test_a_prompt_without_a_token_is_refused(self, engine: Any) -> None:
        with pytest.raises(EngineError, match="A prompt has no token"):
            engine.generate([Request([], Decoding(1.0, 4), 0)], silent)

    def test_the_same_requests_give_the_same_responses(self, engine: Any) -> None:
        assert engine.generate(requests(24), silent) == engine.generate(requests(24), silent)

    def test_another_seed_gives_another_response(self, engine: Any) -> None:
        """Eight responses to one prompt, as an iteration asks for n."""
        wanted = [replace(request, prompt_ids=PROMPTS[0]) for request in requests(8)]
        found = Counter(tuple(completion.ids) for completion in engine.generate(wanted, silent))
        assert len(found) >= 6, "few responses of eight may be equal, by being short"

    def test_equal_seed_and_prompt_give_equal_responses_side_by_side(self, engine: Any) -> None:
        request = requests(1, limit=20)[0]
        assert len({tuple(completion.ids) for completion in engine.generate([request] * 6, silent)}) == 1

    def test_the_order_of_requests_is_kept(self, engine: Any) -> None:
        """The prompts tell the responses apart: one ends at once, the other is greedy."""
        short, long = Request([3, ENDING], Decoding(0.0, 6), 0), Request(PROMPTS[0], Decoding(0.0, 6), 0)
        greedy = engine.generate([long], silent)[0]
        end = Completion([EOS], "stop")
        assert engine.generate([short, long, short, short, long], silent) == [end, greedy, end, end, greedy]

    def test_alone_and_in_a_batch_are_the_same(self, engine: Any) -> None:
        wanted = requests(8)
        alone = [engine.generate([request], silent)[0] for request in wanted]
        equal = [one == other for one, other in zip(alone, engine.generate(wanted, silent), strict=True)]
        assert sum(equal) >= self.equal_alone_of_eight

    def test_limits_and_temperatures_may_share_a_batch(self, engine: Any) -> None:
        wanted = [*requests(6, limit=3), *requests(6, 0.0, 12), *requests(6, 0.5, 7)]
        for request, completion in zip(wanted, engine.generate(wanted, silent), strict=True):
            cut = completion.finish_reason == "length"
            assert len(completion.ids) == request.decoding.max_new_tokens if cut else completion.ids[-1] in engine.stops

    def test_greedy_takes_the_likeliest_token(self, engine: Any, logits: Any) -> None:
        for request, completion in zip(
            requests(4, 0.0, 12), engine.generate(requests(4, 0.0, 12), silent), strict=True
        ):
            prompt = request.prompt_ids
            scores = logits([*prompt, *completion.ids])[len(prompt) - 1 : -1]
            chosen = scores.gather(1, _column(completion.ids))[:, 0]
            assert float((scores.max(dim=1).values - chosen).max()) < self.tolerance

    @pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}], ids=["top-k", "top-p"])
    def test_a_single_candidate_is_greedy(self, engine: Any, options: dict[str, Any]) -> None:
        assert engine.generate(requests(4, 1.0, **options), silent) == engine.generate(requests(4, 0.0), silent)

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_draws_follow_the_distribution(self, engine: Any, logits: Any, temperature: float) -> None:
        """The mean log-probability of drawn tokens is minus the entropy, within five standard errors."""
        wanted = [Request(PROMPTS[0], Decoding(temperature, 1), seed) for seed in range(self.draws)]
        drawn = [completion.ids[0] for completion in engine.generate(wanted, silent)]
        logs = (logits(PROMPTS[0])[-1] / temperature).log_softmax(dim=-1).double().numpy()
        entropy = -float((np.exp(logs) * logs).sum())
        deviation = math.sqrt(float((np.exp(logs) * logs**2).sum()) - entropy**2)
        assert abs(float(logs[drawn].mean()) + entropy) < 5 * deviation / math.sqrt(self.draws)
        ending = float(np.exp(logs[EOS]))
        share = drawn.count(EOS) / self.draws
        assert abs(share - ending) < 5 * math.sqrt(ending * (1 - ending) / self.draws)

    @pytest.mark.parametrize(
        ("temperature", "options"),
        [
            (1.5, {"top_k": 30, "top_p": 0.7}),
            (2.0, {"top_k": 12, "top_p": 0.8}),
            (1.3, {"top_p": 0.3}),
            (1.0, {"top_k": 7}),
        ],
        ids=["k30-p0.7", "k12-p0.8", "p0.3", "k7"],
    )
    def test_draws_have_the_distribution_of_temperature_top_k_and_top_p(
        self, engine: Any, drawn_logits: Any, temperature: float, options: dict[str, Any]
    ) -> None:
        """Pearson's chi-square; the nucleus is that of what top-k leaves, as transformers and vLLM have it."""
        expected = truncated(drawn_logits(PROMPTS[0])[-1].double().numpy() / temperature, **options)
        wanted = [Request(PROMPTS[0], Decoding(temperature, 1, **options), seed) for seed in range(self.draws)]
        drawn = np.bincount([one.ids[0] for one in engine.generate(wanted, silent)], minlength=len(expected))
        assert drawn[expected == 0].sum() == 0
        assert chi_square(drawn[expected > 0], expected[expected > 0]) > 1e-4

    def test_top_k_draws_among_the_likeliest(self, engine: Any, logits: Any) -> None:
        likeliest = set(logits(PROMPTS[1])[-1].topk(4).indices.tolist())
        wanted = [Request(PROMPTS[1], Decoding(1.0, 1, top_k=3), seed) for seed in range(60)]
        drawn = {completion.ids[0] for completion in engine.generate(wanted, silent)}
        assert len(drawn) == 3
        assert drawn <= likeliest

    def test_long_prompts_beside_short_ones(self, engine: Any, logits: Any) -> None:
        long = [6 + step * 7 % 290 for step in range(CONTEXT - 8)]
        wanted = [Request(prompt, Decoding(0.0, 8), 0) for prompt in (long, PROMPTS[1], long[:-1])]
        for request, completion in zip(wanted, engine.generate(wanted, silent), strict=True):
            scores = logits(request.prompt_ids)[-1]
            assert float(scores.max() - scores[completion.ids[0]]) < self.tolerance

    def test_a_response_that_does_not_fit_the_context_is_one_line(self, engine: Any) -> None:
        with pytest.raises(EngineError, match="needs 261 tokens; the model's context is 256"):
            engine.generate([Request(PROMPTS[0], Decoding(1.0, CONTEXT), 0)], silent)

    def test_more_requests_than_fit_a_batch(self, engine: Any) -> None:
        heard: list[tuple[int, int]] = []
        completions = engine.generate(requests(50, limit=3), lambda done, total, unit: heard.append((done, total)))
        assert len(completions) == 50
        assert heard[-1] == (50, 50)
        assert heard == sorted(heard)


def logits_of(folder: Path, precision: Precision) -> Any:
    """Return a function from ids to transformers' logits of the next tokens."""
    import torch

    from gshf_release.models.checkpoints import load_model

    model = load_model(folder, precision)

    def compute(ids: list[int]) -> Any:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].float()

    return compute


def truncated(logits: Any, top_k: int = 0, top_p: float = 1.0) -> Any:
    """Return the distribution after top-k, then top-p, token by token.

    Top-k leaves what is no less likely than the k-th, top-p the smallest set that holds `top_p` of that.
    """
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    order = [token for token in order if not top_k or logits[token] >= logits[order[top_k - 1]]]
    weights = [math.exp(logits[token] - logits[order[0]]) for token in order]
    kept = 1
    while kept < len(weights) and sum(weights[:kept]) < top_p * sum(weights):
        kept += 1
    probabilities = np.zeros(len(logits))
    probabilities[order[:kept]] = np.asarray(weights[:kept]) / sum(weights[:kept])
    return probabilities


def chi_square(counts: Any, probabilities: Any) -> float:
    """Return the chance of a chi-square as large; rare tokens are taken together, so that five draws are expected of each."""
    order = np.argsort(-probabilities)
    rare = probabilities[order] * counts.sum() < 5
    counts, probabilities = counts[order], probabilities[order]
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        probabilities = np.append(probabilities[~rare], probabilities[rare].sum())
    return float(stats.chisquare(counts, probabilities * counts.sum()).pvalue)


def _column(ids: list[int]) -> Any:
    import torch

    return torch.tensor(ids).unsqueeze(1)
