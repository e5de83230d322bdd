"""The stages of everything that was asked for: answers, judgments, imported results."""

from __future__ import annotations

from collections.abc import Sequence

from gshf_release.evaluation import answers, judgments, lm_eval_import, paired_comparisons
from gshf_release.evaluation.requests import BenchmarkRequest, Requests, rows_known
from gshf_release.recipe import Recipe
from gshf_release.run.stage import Stage


def declare_benchmarks(recipe: Recipe, requests: Requests, policies: Sequence[tuple[str, str]]) -> list[Stage]:
    """Declare the stages of the requests.

    Args:
        recipe: The recipe.
        requests: What was asked for.
        policies: `(row, stage of its model)`.
    """
    stages: list[Stage] = []
    for name, asked in requests.benchmarks.items():
        stages += _declare_benchmark(recipe, name, asked, dict(policies))
    return stages + [lm_eval_import.declare_lm_eval_import(name, request) for name, request in requests.imports.items()]


def _declare_benchmark(recipe: Recipe, name: str, asked: BenchmarkRequest, policies: dict[str, str]) -> list[Stage]:
    stages = [answers.declare_questions(name, asked.asking, asked.questions, asked.limit)]
    rows = rows_known(asked.rows, list(policies), asked.existing)
    if any(row not in asked.existing for row in rows):
        stages.append(answers.declare_rendering(name, asked.asking, asked.template))
    for row in rows:
        if row in asked.existing:
            given, model = asked.existing[row], asked.names.get(row)
            stages.append(answers.declare_existing(name, asked.asking, row, given, model))
        else:
            model = answers.model_name(recipe, row)
            stages += answers.declare_row(
                recipe, name, asked.asking, asked.count, row, policies[row], model, asked.template, asked.turns
            )
    for label, request in asked.judges.items():
        for row in request.rows:
            stages += judgments.declare_judgments(name, asked, label, request, row) if row in rows else []
        stages += paired_comparisons.declare_paired_comparisons(name, asked, label, request, list(policies))
    return stages


def policies_needed(requests: Requests, policies: Sequence[tuple[str, str]]) -> list[str]:
    """Return the stages of the models that must answer."""
    asked = {row for request in requests.benchmarks.values() for row in request.rows if row not in request.existing}
    return [stage for row, stage in policies if row in asked]
