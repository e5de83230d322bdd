"""Compare what was measured with what was claimed, and name the rung at which a claim breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gshf_release.evaluation.reproduction.claims import EXACT, RUNGS, Claim, Published, Reported, Rung
from gshf_release.evaluation.reproduction.evidence import Measured

VERIFIED = "verified"
CONTRADICTED = "contradicted"
UNCHECKABLE = "uncheckable"
NEEDS: dict[Rung, str] = {
    "published": "the Python package with the leaderboard",
    "judgments": "--annotations [ROW=]FILE, the official judge's stored judgments (annotations.json, MT-Bench .jsonl)",
    "answers": "--outputs [ROW=]FILE (model_outputs.json), and --rejudged [ROW=]FILE, the official judge's new judgments of it",
    "weights": "--run [ROW=]RUN, what `gshf-release eval MODEL` made of the published weights",
    "recipe": "--run [ROW=]RUN, what `gshf-release train` and `eval` made of the recipe",
}
"""What each rung is checked with."""


@dataclass(frozen=True, slots=True)
class Check:
    """One claim at one rung."""

    rung: Rung
    status: str
    measured: float | None = None
    target: float | None = None
    """The claim, or the leaderboard's number of it to every digit."""
    tolerance: float | None = None
    why: str = ""
    """Why it is uncheckable, or a remark."""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One claim at all rungs."""

    claim: Claim
    status: str
    rung: Rung | None
    """The first rung that contradicts it, else the deepest that verifies it."""
    checks: tuple[Check, ...]

    @property
    def why(self) -> str:
        """Why nothing could be checked: each reason with its rungs."""
        reasons: dict[str, list[str]] = {}
        for check in self.checks:
            if check.why:
                reasons.setdefault(check.why, []).append(check.rung)
        return "; ".join(f"{', '.join(rungs)}: {why}" for why, rungs in reasons.items())


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All claims of one file."""

    reported: Reported
    rungs: tuple[Rung, ...]
    outcomes: tuple[Outcome, ...]

    def count(self, status: str) -> int:
        """Return how many claims have a status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def looked_up(self) -> int:
        """How many claims were only found as printed on the leaderboard; nothing was computed anew."""
        return sum(outcome.status == VERIFIED and outcome.rung == RUNGS[0] for outcome in self.outcomes)

    @property
    def recomputed(self) -> int:
        """How many claims came out again from judgments, answers, weights or the recipe."""
        return self.count(VERIFIED) - self.looked_up

    @property
    def verdict(self) -> str:
        """One line: how many claims hold, and where the first breaks."""
        broken = [outcome for outcome in self.outcomes if outcome.status == CONTRADICTED]
        text = (
            f"{self.recomputed} claims verified by recomputation, {self.looked_up} agree with the leaderboard only, "
            f"{len(broken)} contradicted, {self.count(UNCHECKABLE)} uncheckable"
        )
        for rung in RUNGS:
            names = [f"{each.claim.row} {each.claim.metric}" for each in broken if each.rung == rung]
            if names:
                text += f"; breaks at {rung}: {', '.join(names)}"
        return text

    def uncompared(self) -> list[str]:
        """Return a sentence for each file or run that was given and compared with nothing, with the reason."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for outcome in self.outcomes:
            for check in outcome.checks:
                if check.status == UNCHECKABLE and check.place:
                    found.setdefault((check.place, outcome.claim.benchmark, check.why), []).append(outcome.claim.metric)
        return [
            f"{place} is not compared with the claims on {benchmark} ({', '.join(metrics)}): {why}."
            for (place, benchmark, why), metrics in found.items()
        ]

    def document(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "name": self.reported.name,
            "rungs": [{"rung": rung, "needs": NEEDS[rung]} for rung in self.rungs],
            "verdict": self.verdict,
            "verified_by_recomputation": self.recomputed,
            "agree_with_leaderboard_only": self.looked_up,
            "claims": [
                outcome.claim.model_dump(mode="json")
                | {
                    "status": outcome.status,
                    "rung": outcome.rung,
                    "breaks_at": outcome.rung if outcome.status == CONTRADICTED else None,
                    "checks": [asdict(check) for check in outcome.checks],
                }
                for outcome in self.outcomes
            ],
        }


def reproduce(reported: Reported, board: Published, measured: Sequence[Measured], deepest: Rung) -> Reproduction:
    """Return the verdict on every claim from the number as printed down to the rung `deepest`."""
    rungs = RUNGS[: RUNGS.index(deepest) + 1]
    outcomes = []
    for claim in reported.all_claims():
        checks = [_published(reported, board, claim)]
        checks += [check for rung in rungs[1:] for check in _at(reported, board, claim, rung, measured)]
        outcomes.append(_outcome(claim, tuple(checks)))
    return Reproduction(reported, rungs, tuple(outcomes))


def _outcome(claim: Claim, checks: tuple[Check, ...]) -> Outcome:
    for check in checks:
        if check.status == CONTRADICTED:
            return Outcome(claim, CONTRADICTED, check.rung, checks)
    verified = [check.rung for check in checks if check.status == VERIFIED]
    return Outcome(claim, VERIFIED if verified else UNCHECKABLE, verified[-1] if verified else None, checks)


def _published(reported: Reported, board: Published, claim: Claim) -> Check:
    """Compare the number as printed with the leaderboard's."""
    named = reported.leaderboard
    if named is None or claim.row != named.row or claim.benchmark != "alpaca_eval_2" or claim.contrast:
        return Check("published", UNCHECKABLE, why="it is on no leaderboard that can be read here")
    if claim.metric not in board.values:
        return Check("published", UNCHECKABLE, why=board.missing or "the leaderboard has no such column")
    place = f"{named.package}/{named.file}"
    return _compared("published", board.values[claim.metric], claim.value, claim.rounding, "", place)


def _at(reported: Reported, board: Published, claim: Claim, rung: Rung, measured: Sequence[Measured]) -> list[Check]:
    """Compare every number measured at a rung with the claim."""
    entries = [
        entry
        for entry in measured
        if (entry.rung, entry.row, entry.benchmark, entry.metric) == (rung, claim.row, claim.benchmark, claim.metric)
    ]
    if claim.contrast or not entries:
        why = reported.unavailable_because(claim, rung)
        return [Check(rung, UNCHECKABLE, why=why or f"needs {NEEDS[rung]}")]
    official = [_check(reported, board, claim, entry) for entry in entries]
    known = [check for check in official if check.status != UNCHECKABLE]
    return known or official[:1]


def _check(reported: Reported, board: Published, claim: Claim, entry: Measured) -> Check:
    if entry.value is None:
        return Check(entry.rung, UNCHECKABLE, why=entry.why, place=entry.place)
    judges = reported.official_judges.get(claim.benchmark, [])
    if entry.judge and entry.judge not in judges and not entry.calibrated:
        why = f"judged by {entry.judge}, not by the official judge; calibrate it to compare"
        return Check(entry.rung, UNCHECKABLE, measured=entry.value, why=why, place=entry.place)
    target, rounding = _target(reported, board, claim)
    tolerance = reported.tolerance(claim.metric, entry.rung, rounding, entry.error)
    remark = f"calibrated from {entry.judge}" if entry.calibrated else ""
    return _compared(entry.rung, entry.value, target, tolerance, remark, entry.place)


def _target(reported: Reported, board: Published, claim: Claim) -> tuple[float, float]:
    """Return the number to compare with, to every digit where the leaderboard has it, and its rounding."""
    named = reported.leaderboard
    if named is not None and claim.row == named.row and claim.benchmark == "alpaca_eval_2" and not claim.contrast:
        exact = board.values.get(claim.metric)
        if exact is not None and abs(exact - claim.value) <= claim.rounding:
            return exact, EXACT
    return claim.value, claim.rounding


def _compared(rung: Rung, measured: float, target: float, tolerance: float, why: str, place: str) -> Check:
    status = VERIFIED if abs(measured - target) <= tolerance + EXACT else CONTRADICTED
    return Check(rung, status, measured, target, tolerance, why, place)
