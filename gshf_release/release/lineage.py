"""Trace every trained response: the proof that a run used no external responses, or how many it used.

A response counts as the run's own if the samples of its iteration hold it, drawn by the policy that the iteration before put
out, for one of the iteration's prompts. `verify` checks the files' hashes first: what is read here is what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gshf_release.data.records import Pair, Prompt, ReferenceLogProbability, Sample, Score, Winner
from gshf_release.errors import VerificationError
from gshf_release.loop import policy_stage, reference_stage
from gshf_release.models.chat_tokenizer import render, response_text, stop_ids
from gshf_release.models.checkpoints import load_generation_config, load_tokenizer
from gshf_release.preference.offline import SOURCE
from gshf_release.run.clock import clock
from gshf_release.run.directory import RunDirectory, is_adopted
from gshf_release.run.stage import Stage, iteration_row, iteration_stage, tasks

Drawn = dict[tuple[str, int], tuple[Any, ...]]
"""`{(prompt id, sample index): (iteration, prompt id, policy, prompt ids, completion ids, text, reward)}`."""


class Lineage(NamedTuple):
    """Records what a run trained on."""

    responses: int
    """Sampled by the run's own policies."""
    trained: int
    """Pairs or winners made from them."""
    external: int
    """Pairs that came from elsewhere."""


def verify_lineage(run: RunDirectory, iterations: int | None = None) -> Lineage:
    """Trace every trained response of the first `iterations`, or of all, back to the policy that drew it.

    Raises:
        VerificationError: Names the first row that cannot be traced.
    """
    if is_adopted(run):
        raise VerificationError(f"{run.path} was adopted from other tools: where its responses came from is not known.")
    responses = trained = 0
    sampled = [] if run.recipe.pairs.source == "offline" else run.recipe.loop.sampled
    for iteration in sampled[:iterations]:
        drawn = _samples(run, iteration)
        responses += len(drawn)
        trained += (
            _winners(run, iteration, drawn) if run.recipe.loop.algorithm == "raft" else _pairs(run, iteration, drawn)
        )
    external = 0
    if run.recipe.pairs.offline is not None:
        external = len(Pair.read(*_files(run, f"{SOURCE}/pairs", "pairs.parquet")))
    return Lineage(responses, trained, external)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path, sha256: str) -> Any:
    """Return a model's tokenizer, loaded once for all iterations: that and the copy for rendering take seconds each."""
    return load_tokenizer(folder)


def _samples(run: RunDirectory, iteration: int) -> Drawn:
    """Return the iteration's responses, each of which its policy drew for one of its prompts."""
    place = iteration_stage(iteration, "samples")
    policy = _sha256(run, policy_stage(iteration - 1), "model")
    scorer = _sha256(run, "reward/model", "model")
    tokenizer = _tokenizer(run.path / "base" / "model", _sha256(run, policy_stage(0), "model"))
    rules, today = run.recipe.prompts, clock(run, record=False)
    prompts = {
        prompt.prompt_id: render(tokenizer, prompt.messages, rules, today=today)
        for prompt in Prompt.read(run.path / iteration_row(iteration) / "prompts" / "prompts.parquet")
    }
    scores = {}
    for score in Score.read(*_files(run, iteration_stage(iteration, "rewards"), "scores.parquet")):
        _require(
            score.scorer_sha256 == scorer, iteration_stage(iteration, "rewards"), score.prompt_id, "another scorer's"
        )
        scores[score.prompt_id, score.sample_index] = score.reward
    stops = stop_ids(tokenizer, load_generation_config(run.path / "base" / "model"))
    found: Drawn = {}
    for sample in Sample.read(*_files(run, place, "samples.parquet")):
        where = (place, f"{sample.prompt_id}, response {sample.sample_index}")
        _require(sample.policy_sha256 == policy, *where, "drawn by another policy")
        _require(sample.prompt_ids == prompts.get(sample.prompt_id), *where, "not for a prompt of this iteration")
        if not sample.answered:
            _require(
                not sample.completion_ids and not sample.text, *where, "dropped as too long, yet it has a response"
            )
            continue
        _require(sample.text == response_text(tokenizer, sample.completion_ids, stops), *where, "text of other ids")
        key = (sample.prompt_id, sample.sample_index)
        found[key] = (
            iteration,
            sample.prompt_id,
            sample.policy_sha256,
            sample.prompt_ids,
            sample.completion_ids,
            sample.text,
            scores.get(key),
        )
    return found


def _pairs(run: RunDirectory, iteration: int, drawn: Drawn) -> int:
    place = iteration_stage(iteration, "pairs")
    pairs = Pair.read(*_files(run, place, "pairs.parquet"))
    for pair in pairs:
        shared = (pair.iteration, pair.prompt_id, pair.policy_sha256, pair.prompt_ids)
        for index, *response in (
            (pair.chosen_index, pair.chosen_ids, pair.chosen_text, pair.chosen_reward),
            (pair.rejected_index, pair.rejected_ids, pair.rejected_text, pair.rejected_reward),
        ):
            traced = drawn.get((pair.prompt_id, index)) == (*shared, *response)
            _require(traced, place, f"{pair.prompt_id}, response {index}", "not among the iteration's samples")
    _references(run, iteration, pairs)
    return len(pairs)


def _references(run: RunDirectory, iteration: int, pairs: Sequence[Pair]) -> None:
    place = iteration_stage(iteration, "reference")
    expected = _sha256(run, reference_stage(iteration, run.recipe), "model")
    rows = ReferenceLogProbability.read(*_files(run, place, "reference.parquet"))
    if [row.prompt_id for row in rows] != [pair.prompt_id for pair in pairs]:
        raise VerificationError(f"{place} belongs to other pairs than those of the iteration.")
    for row in rows:
        _require(row.reference_sha256 == expected, place, row.prompt_id, "of another reference policy")


def _winners(run: RunDirectory, iteration: int, drawn: Drawn) -> int:
    place = iteration_stage(iteration, "winners")
    winners = Winner.read(*_files(run, place, "winners.parquet"))
    for row in winners:
        found = drawn.get((row.prompt_id, row.sample_index))
        own = (
            row.iteration,
            row.prompt_id,
            row.policy_sha256,
            row.prompt_ids,
            row.completion_ids,
            row.text,
            row.reward,
        )
        _require(
            found == own, place, f"{row.prompt_id}, response {row.sample_index}", "not among the iteration's samples"
        )
    return len(winners)


def _require(holds: bool, place: str, row: str, reason: str) -> None:
    if not holds:
        raise VerificationError(f"{place}: {row}: {reason}.")


def _sha256(run: RunDirectory, stage: str, file: str) -> str:
    return run.stage_sha256(Stage(stage, work=""), file)


def _files(run: RunDirectory, stage: str, file: str) -> list[Path]:
    declared = next((known for known in run.plan if known.name == stage), None)
    found = [] if declared is None else [run.folder(task) / file for task in tasks([declared])]
    if not found or not all(path.is_file() for path in found):
        raise VerificationError(f"{stage} is not finished, so its lineage cannot be verified.")
    return found
