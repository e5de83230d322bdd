"""A language model as the substitute: asked by AlpacaEval 2's protocol, cached and within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gshf_release.errors import EngineError
from gshf_release.evaluation.calibration.replay import Comparison, Verdict, model_first
from gshf_release.evaluation.judging import alpaca_eval, judges
from gshf_release.evaluation.judging.cache import default_folder
from gshf_release.evaluation.judging.session import JudgeSession, silent


@dataclass(frozen=True, slots=True)
class AskedJudge:
    """A judge of eval/judges."""

    session: JudgeSession

    @classmethod
    def open(
        cls,
        name: str,
        *,
        overrides: Sequence[str] = (),
        max_cost: float | None = None,
        data: Path | None = None,
        say: Callable[[str], None] = silent,
    ) -> AskedJudge:
        """Return the judge in a file or of a name in eval/judges.

        Raises:
            RecipeError: There is no such judge.
            EngineError: It judges another benchmark, or names no model or address.
        """
        settings = judges.load(name, overrides)
        if settings.benchmark != "alpaca_eval_2":
            raise EngineError(
                f"The judge {settings.name} judges {settings.benchmark}; calibration replays AlpacaEval 2.",
                hint="Use a judge whose file says benchmark: alpaca_eval_2.",
            )
        return cls(JudgeSession(settings, default_folder(), max_cost=max_cost, data=data, say=say))

    @property
    def name(self) -> str:
        """Return what results call the judge."""
        return self.session.settings.identity

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return the verdicts, model by model.

        Raises:
            EngineError: The judge refuses, is too expensive, or fails too often.
            NetworkError: The server gave up.
        """
        found: dict[tuple[str, str], float | None] = {}
        for model in dict.fromkeys(one.model for one in comparisons):
            own = [one for one in comparisons if one.model == model]
            outputs = [_row(one.instruction, one.model_answer, model) for one in own]
            baseline = [_row(one.instruction, one.baseline_answer, one.baseline) for one in own]
            for row in alpaca_eval.annotate(outputs, baseline, self.session):
                found[model, row["instruction"]] = row["preference"]
        verdicts = []
        for one in comparisons:
            value = found[one.model, one.instruction]
            verdicts.append(Verdict(None if value is None else value - 1, model_first(one)))
        return verdicts


def _row(instruction: str, output: str, generator: str) -> dict[str, Any]:
    return {"instruction": instruction, "output": output, "generator": generator}
