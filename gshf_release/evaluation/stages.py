"""The evaluation stages: every policy answers the same prompts at equal decoding and is compared with the base.

Two sets of prompts: `test`, a role of the run's own prompts, and `eval`, a file in eval/prompts. Two scorers: the training
reward, and the second scorer that training never saw; the latter stands in for a judge in the pairwise comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

from gshf_release.data import statistics
from gshf_release.data.records import Judgment, RuleCheck, Sample
from gshf_release.data.results import Cell, cell
from gshf_release.diagnostics.explanations import explanation_cells
from gshf_release.diagnostics.row_metrics import Scores, length_cells, reward_cells, rule_cells, score_table, text_cells
from gshf_release.evaluation import best_of, temperature_curve
from gshf_release.prompts.split import stage_name
from gshf_release.recipe import Recipe
from gshf_release.rewards.settings import SCORERS, settings
from gshf_release.rewards.stages import CHECKS_FILE, declare_model, declare_scores_of_both
from gshf_release.run.context import StageContext
from gshf_release.run.stage import Input, Parameters, Stage
from gshf_release.sampling import stage as sampling
from gshf_release.sampling.protocol import Decoding

IDENTITY = "compare-with-base/1"
STAND_IN = "stand-in (second scorer)"
"""The annotator of the comparisons, labelled as what it is wherever they are shown."""
TEMPERATURES = (0.0, 0.7)
GREEDY, WARM = 0, 1
"""Which response of a prompt is the greedy one, and the one at T=0.7."""


class ComparisonParameters(Parameters):
    """Say whose answers to which prompts are compared with the base's."""

    row: str
    set: str
    control: float
    """The temperature at which the base answers too, as a control."""
    control_index: int
    """Which response of a prompt that is."""


def declare_evaluation(
    recipe: Recipe, policies: Sequence[tuple[str, str]], sets: Sequence[tuple[str, str, int]]
) -> list[Stage]:
    """Declare the evaluation.

    Args:
        recipe: The recipe.
        policies: `(row, stage of its model)`; the first is the base.
        sets: `(set, stage of its prompts, number of prompts)`.
    """
    stages = declare_model(recipe, "second-scorer")
    for name, prompts, count in sets:
        for row, policy in policies:
            stages += _declare_row(recipe, name, prompts, count, row, policy)
    name, prompts, count = test_set(recipe)
    plain = (prompts, count, f"base/{name}", len(TEMPERATURES))
    if recipe.evaluation.best_of:
        stages += best_of.declare_best_of(recipe, *plain)
    if recipe.evaluation.temperatures:
        stages += temperature_curve.declare_temperatures(recipe, *plain)
    return stages


def test_set(recipe: Recipe) -> tuple[str, str, int]:
    """Return the test role as an evaluation set."""
    return ("test", stage_name("test"), recipe.prompts.roles.test)


def decodings(recipe: Recipe, row: str) -> list[Decoding]:
    """Return how a row is decoded: the base also, and last, at the control temperature."""
    limit = recipe.evaluation.max_new_tokens
    control = [recipe.evaluation.control_temperature] if row == "base" else []
    return [Decoding(temperature, limit) for temperature in (*temperatures(recipe), *control)]


def temperatures(recipe: Recipe) -> tuple[float, ...]:
    """Return the temperatures at which every policy answers, in order of the sample index."""
    at_one = bool(recipe.evaluation.best_of or recipe.evaluation.temperatures)
    return (*TEMPERATURES, *([best_of.TEMPERATURE] if at_one else []))


def _declare_row(recipe: Recipe, name: str, prompts: str, count: int, row: str, policy: str) -> list[Stage]:
    answers = sampling.declare_samples(
        f"{row}/{name}/answers",
        policy=policy,
        prompts=prompts,
        count=count,
        decodings=decodings(recipe, row),
        purpose=f"evaluation-{name}",
        prompts_per_shard=recipe.sampling.prompts_per_shard,
    )
    scores = declare_scores_of_both(
        recipe, f"{row}/{name}", samples=answers, prompts=prompts, base_answers=f"base/{name}/answers"
    )
    inputs = [Input(answers.name, sampling.FILE), *(Input(stage.name, "scores.parquet") for stage in scores)]
    if row != "base":
        inputs += [Input(f"base/{name}/{scorer}-scores", "scores.parquet") for scorer in SCORERS]
        inputs.append(Input(f"base/{name}/answers", sampling.FILE))
    inputs += [
        Input(f"{of}/{name}/{scorer}-scores", CHECKS_FILE)
        for scorer in SCORERS
        if settings(recipe, scorer).checks is not None
        for of in dict.fromkeys((row, "base"))
    ]
    judged = Stage(
        name=f"{row}/{name}/judgments",
        identity=IDENTITY,
        work="gshf_release.evaluation.stages:write_stand_in_judgments",
        kind="other",
        inputs=tuple(inputs),
        outputs=("judgments.parquet",),
        parameters=ComparisonParameters(
            row=row,
            set=name,
            control=recipe.evaluation.control_temperature,
            control_index=len(temperatures(recipe)),
        ).as_json(),
        numbers="gshf_release.evaluation.stages:evaluation_cells",
    )
    return [answers, *scores, judged]


def write_stand_in_judgments(context: StageContext) -> None:
    """Write the stand-in annotator's comparison of each answer with the base's at equal decoding."""
    row = context.parameters(ComparisonParameters).row
    answers, own, base = _read(context, "second-scorer")
    Judgment.write(
        (
            Judgment(
                answer.prompt_id,
                answer.decoding,
                preference(own[key], base[key]),
                own[key],
                base[key],
                annotator=STAND_IN,
            )
            for answer in answers
            if row != "base" and (key := (answer.prompt_id, answer.sample_index)) in base
        ),
        context.output("judgments.parquet"),
    )


def preference(score: float, other: float) -> float:
    """Return 1 if the score is the higher one, 0 if the other is, 0.5 if they are equal."""
    return 0.5 if score == other else float(score > other)


def evaluation_cells(context: StageContext) -> list[Cell]:
    """Return the row's cells: scores and paired gains under both scorers, what else explains them, length, texts, win rate."""
    of = context.parameters(ComparisonParameters)
    row, table, control, control_index = of.row, of.set, of.control, of.control_index
    cells: list[Cell] = []
    scores: dict[str, tuple[Scores, Scores]] = {}
    for scorer in SCORERS:
        answers, own, base = _read(context, scorer)
        scores[scorer] = (own, base)
        artefact = f"{row}/{table}/{scorer}-scores"
        place = {"table": table, "row": row, "judge": scorer}
        cells += reward_cells(answers, own, base, artefact=artefact, **place)
        if settings(context.recipe, scorer).checks is not None:
            checks, base_checks = (
                RuleCheck.read(*context.inputs(f"{name}/{table}/{scorer}-scores", CHECKS_FILE))
                for name in (row, "base")
            )
            cells += rule_cells(checks, base_checks, artefact=artefact, **place)
        if row == "base":
            cells.append(_control(own, control, control_index, artefact=artefact, table=table, judge=scorer))
        else:
            for index, baseline in ((control_index, f"base at T={control:g}"), (GREEDY, "base, greedy")):
                cells.append(_over_control(own, base, index, baseline=baseline, artefact=artefact, **place))
    place = {"table": table, "row": row, "artefact": f"{row}/{table}/answers"}
    cells += length_cells(answers, **place)
    cells += text_cells(answers, **place)
    if row != "base":
        base_answers = Sample.read(*context.inputs(f"base/{table}/answers", sampling.FILE))
        cells += explanation_cells(answers, base_answers, scores, **place)
    path = context.output("judgments.parquet")
    judgments = Judgment.read(path)
    for decoding in dict.fromkeys(judgment.decoding for judgment in judgments):
        rate = statistics.win_rate([entry.preference for entry in judgments if entry.decoding == decoding])
        place = {"table": table, "row": row, "decoding": decoding, "judge": STAND_IN, "baseline": "base"}
        cells.append(cell(rate, metric="win rate", unit="%", artefact=context.run.relative(path), **place))
    return cells


def _control(own: Scores, control: float, index: int, **place: str) -> Cell:
    """Return what mere sharpening gains: the base at the control temperature over the base at 0.7."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in own))
    gain = statistics.paired_difference(
        [own[prompt, index] for prompt in prompts], [own[prompt, WARM] for prompt in prompts]
    )
    note = "control: sharpening without training"
    row = f"base at T={control:g}"
    return cell(gain, row=row, metric="gain over base", decoding="T=0.7", baseline="base", note=note, **place)


def _over_control(own: Scores, base: Scores, index: int, **place: str) -> Cell:
    """Return the gain of a policy at T=0.7 over the untrained base's answer `index`, which is sharper."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in own))
    gain = statistics.paired_difference(
        [own[prompt, WARM] for prompt in prompts], [base[prompt, index] for prompt in prompts]
    )
    return cell(gain, metric="gain over control", decoding="T=0.7", **place)


def _read(
    context: StageContext, scorer: str
) -> tuple[list[Sample], dict[tuple[str, int], float], dict[tuple[str, int], float]]:
    """Return the row's answers, and `{(prompt id, sample index): score}` of the row and of the base."""
    of = context.parameters(ComparisonParameters)
    answers = Sample.read(*context.inputs(f"{of.row}/{of.set}/answers", sampling.FILE))
    own, base = (
        score_table(context.inputs(f"{row}/{of.set}/{scorer}-scores", "scores.parquet")) for row in (of.row, "base")
    )
    return answers, own, base
