"""The base's best of n: what mere choosing among n of its own answers gains, at a known bound on the divergence.

It is the yardstick for a trained policy: at the same KL to the base, does training reach more than choosing? The best of n by
the training reward is at most log n - (n - 1) / n nats per response from the base (section 3.2 of arXiv 2405.07863).
"""

from __future__ import annotations

from collections.abc import Mapping

from gshf_release.data import statistics
from gshf_release.data.records import Sample
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics.row_metrics import Scores, score_table
from gshf_release.diagnostics.validation import BOUND
from gshf_release.models.logprobs import best_of_n_kl
from gshf_release.recipe import Recipe
from gshf_release.rewards.settings import SCORERS
from gshf_release.rewards.stages import declare_scores_of_both
from gshf_release.run.context import StageContext
from gshf_release.run.directory import read_json, write_json
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

IDENTITY = "choose-best-of-n/1"
PLACE = "base/best-of"
TEMPERATURE = 1.0
ROW = "base, best of "
"""Begins the rows of its cells, before n."""


class BestOfParameters(Parameters):
    """Say which plain answers the chosen ones are compared with; `declare` explains both."""

    plain: str
    plain_index: int


def declare_best_of(recipe: Recipe, prompts: str, count: int, plain: str, plain_index: int) -> list[Stage]:
    """Declare the base's answers, their scores and the choice among them, for the largest n of `evaluation.best_of`.

    Args:
        recipe: The recipe.
        prompts: The stage of the test prompts.
        count: Their number.
        plain: The stage prefix of the base's own evaluation, `base/test`, whose plain answers are compared with.
        plain_index: Which of those answers is the one at temperature 1.
    """
    decoding = Decoding(TEMPERATURE, recipe.evaluation.max_new_tokens)
    answers = sampling.declare_samples(
        f"{PLACE}/answers",
        policy="base",
        prompts=prompts,
        count=count,
        decodings=[decoding] * max(recipe.evaluation.best_of),
        purpose="best-of",
        prompts_per_shard=recipe.sampling.prompts_per_shard,
    )
    scores = declare_scores_of_both(recipe, PLACE, samples=answers, prompts=prompts, base_answers=f"{plain}/answers")
    choice = Stage(
        name=f"{PLACE}/choice",
        identity=IDENTITY,
        work="gshf_release.evaluation.best_of:choose_best_of",
        kind="other",
        inputs=(
            Input(answers.name, sampling.FILE),
            *(Input(stage.name, "scores.parquet") for stage in scores),
            *(Input(f"{plain}/{scorer}-scores", "scores.parquet") for scorer in SCORERS),
        ),
        outputs=("chosen.json",),
        keys=("evaluation.best_of",),
        parameters=BestOfParameters(plain=plain, plain_index=plain_index).as_json(),
        numbers="gshf_release.evaluation.best_of:best_of_cells",
    )
    return [answers, *scores, choice]


def choose_best_of(context: StageContext) -> None:
    """Write which answer of each prompt has the highest training reward among the first n; the lowest index wins a tie."""
    rewards = score_table(context.inputs(f"{PLACE}/reward-scores", "scores.parquet"))
    chosen = {str(n): best_of(rewards, n) for n in context.recipe.evaluation.best_of}
    write_json(context.output("chosen.json"), chosen)


def best_of(rewards: Scores, n: int) -> dict[str, int]:
    """Return `{prompt id: sample index}` of the highest reward among the first n responses to each prompt."""
    found: dict[str, int] = {}
    for prompt_id, index in sorted(rewards):
        if index < n and (prompt_id not in found or rewards[prompt_id, index] > rewards[prompt_id, found[prompt_id]]):
            found[prompt_id] = index
    return found


def best_of_cells(context: StageContext) -> list[Cell]:
    """Return, for each n, the gain over one plain answer at temperature 1 under both scorers, the length and the bound."""
    chosen: Mapping[str, Mapping[str, int]] = read_json(context.output("chosen.json"))
    of = context.parameters(BestOfParameters)
    answers = Sample.read(*context.inputs(f"{PLACE}/answers", sampling.FILE))
    lengths = {(answer.prompt_id, answer.sample_index): len(answer.completion_ids) for answer in answers}
    decoding = f"T={TEMPERATURE:g}"
    cells = []
    for n, picks in sorted((int(name), picks) for name, picks in chosen.items()):
        place = {
            "table": "test",
            "row": f"{ROW}{n}",
            "artefact": context.run.relative(context.output("chosen.json")),
        }
        for scorer in SCORERS:
            own = score_table(context.inputs(f"{PLACE}/{scorer}-scores", "scores.parquet"))
            base = score_table(context.inputs(f"{of.plain}/{scorer}-scores", "scores.parquet"))
            gain = statistics.paired_difference(
                [own[prompt, pick] for prompt, pick in picks.items()],
                [base[prompt, of.plain_index] for prompt in picks],
            )
            cells.append(cell(gain, metric="gain over base", decoding=decoding, judge=scorer, baseline="base", **place))
        tokens = statistics.mean([float(lengths[prompt, pick]) for prompt, pick in picks.items()])
        cells.append(cell(tokens, metric="length", unit="tokens", decoding=decoding, **place))
        note = "log n - (n - 1) / n, an upper bound"
        cells.append(Cell(metric=BOUND, value=best_of_n_kl(n), n=n, unit="nats per response", note=note, **place))
    return cells
