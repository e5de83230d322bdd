"""Says what a run did: learned, sharpened, got longer, gamed a template, or nothing that can be told from noise.

Decided from result cells alone. Which gains count is decided for all of them together (`significance`). A gain under the
training reward has then to survive three plainer explanations: longer answers, a pattern in their form, and mere sharpening. An
explanation holds if it leaves little of the gain and the second scorer, which training never saw, does not confirm the rest; if
several hold, the one that leaves least is named. A policy that repeats itself much more than the base has not "learned".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gshf_release.data.results import Cell, find, select, shown
from gshf_release.diagnostics.explanations import LITTLE, RISE, TRACKED, TRACKS, WHERE_ENDED
from gshf_release.diagnostics.exploration import LENGTH_REWARD
from gshf_release.diagnostics.row_metrics import ALL_RULES_KEPT, REPETITION_RISE
from gshf_release.diagnostics.significance import (
    DECODINGS,
    JUDGES,
    LEVEL,
    Family,
    family,
    iteration_number,
    p_value,
    significant,
)
from gshf_release.run.stage import is_iteration, iteration_row

Kind = Literal[
    "learned",
    "learned its rules",
    "sharpened",
    "got longer",
    "gamed a template",
    "repeats itself",
    "gained in part",
    "nothing",
]

NOTHING = 0.1
"""Share of the gain below which an explanation leaves nothing that the second scorer could confirm."""
LONGER = 1.15
"""assumption: by a seventh in length a reader notices; iterative DPO is reported to grow 161 to 263 tokens (1.6 times)."""
PREFERS_LENGTH = 0.3
"""Pearson(length, reward) from which a reward is said to prefer length: a medium correlation in Cohen's usage."""
SHARPER = 0.9
"""assumption: entropy, relative to the base, below which a policy counts as sharper. Any optimisation costs a few percent."""
FINISHES = 20.0
"""assumption: percentage points fewer answers cut at the limit from which finishing is mentioned as what was learned."""
POORER = 0.7
"""assumption: distinct-2, relative to the base, below which the loss of variety is mentioned."""
REPEATS = 10.0
"""assumption: percentage points more repeated 4-grams than the base's from which a policy is said to repeat itself: the next
phrase in ten has then been in the same answer before."""


class Diagnosis(NamedTuple):
    """One word for a run, and the sentences that say why."""

    kind: Kind
    text: str


class Explanation(NamedTuple):
    """A plainer reason for a gain than having learned."""

    kind: Kind
    left: float
    """Share of the gain under the training reward that it leaves unexplained."""
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The cells of one row on one set of prompts, and those of its training and validation."""

    cells: Sequence[Cell]
    table: str
    row: str
    family: Family

    def one(self, metric: str, **place: str) -> Cell | None:
        """Return a cell of the row on the set of prompts."""
        return find(self.cells, table=self.table, row=self.row, metric=metric, **place)

    def gain(self, judge: str, decoding: str) -> Cell | None:
        """Return the gain over the base at equal decoding."""
        return self.one("gain over base", judge=judge, decoding=decoding)

    def gained(self, judge: str) -> list[str]:
        """Return the decodings at which the gain stands."""
        return [decoding for decoding in DECODINGS if self.family.stands(self.gain(judge, decoding))]

    def ratio(self, metric: str, table: str, **place: str) -> float | None:
        """Return a value of the row relative to the base's, or None where either is missing."""
        own = find(self.cells, table=table, row=self.row, metric=metric, **place)
        base = find(self.cells, table=table, row="base", metric=metric, **place)
        if own is None or base is None or own.value is None or not base.value:
            return None
        return own.value / base.value

    def share_left(self, metric: str) -> float | None:
        """Return which share of the reward's gain is left, on average over the decodings where it counts; None if unknown.

        What cannot be told apart from the explanation counts as explained.
        """
        shares = []
        for decoding in self.gained("reward"):
            gain, left = self.gain("reward", decoding), self.one(metric, judge="reward", decoding=decoding)
            if left is None or gain is None or not gain.value:
                return None
            shares.append((left.value or 0.0) / gain.value)
        return sum(shares) / len(shares) if shares else None

    def confirmed(self, metric: str, left: float) -> bool:
        """Return whether the second scorer confirms what an explanation leaves: it gains beyond it wherever the reward does."""
        places = self.gained("reward")
        beyond = (self.one(metric, judge="second-scorer", decoding=place) for place in places)
        return left > NOTHING and set(places) <= set(self.gained("second-scorer")) and all(map(significant, beyond))


def verdict(cells: Sequence[Cell], table: str = "test", row: str | None = None) -> str:
    """Return in words what an iteration (the last by default) gained over the base at equal decoding, and how."""
    return diagnose(cells, table, row).text


def diagnose(cells: Sequence[Cell], table: str = "test", row: str | None = None) -> Diagnosis:
    """Return what an iteration did.

    Args:
        cells: All results of a run.
        table: The set of prompts that decides.
        row: The iteration; None takes the last.
    """
    rows = {entry.row for entry in select(cells, table=table) if is_iteration(entry.row)}
    if not rows:
        return Diagnosis("nothing", "No iteration was evaluated.")
    evidence = Evidence(cells, table, row or max(rows, key=iteration_number), family(cells))
    counted = [(judge, decoding) for judge in JUDGES for decoding in evidence.gained(judge)]
    aside = _finishing(evidence) + _length(evidence) + _variety(evidence)
    if not counted:
        return Diagnosis("nothing", f"{evidence.row} shows no gain that stands. {_tested(evidence, counted)}{aside}")
    explained = [found for rule in (_pattern, _longer, _sharper) if (found := rule(evidence)) is not None]
    if explained:
        kind, _, text = min(explained, key=lambda found: found.left)
    else:
        kind, text = _gained(evidence, counted)
    if repeats := _repeats(evidence):
        if kind == "learned":
            kind, text = "repeats itself", f"gained, but repeats itself: {repeats}"
        else:
            aside = f" It repeats itself: {repeats}.{aside}"
    return Diagnosis(kind, f"{evidence.row} {text}. {_tested(evidence, counted)}{aside}")


def _tested(evidence: Evidence, counted: Sequence[tuple[str, str]]) -> str:
    """Return in words how many gains were tested together, the primary one, and which of the row's stand."""
    primary = evidence.family.primary
    count = len(evidence.family.tested)
    where = ", ".join(f"{JUDGES[judge]} {DECODINGS[decoding]}" for judge, decoding in counted)
    text = f"Of {count} gains tested together (one-sided t, Holm, {100 * LEVEL:g}% for all of them) "
    text += f"these of {evidence.row} stand: {where}." if counted else f"none of {evidence.row} stands."
    if primary is None:
        return text
    p = p_value(primary)
    fixed = f"{primary.row}, {JUDGES[primary.judge]}, {primary.decoding}, {primary.table} prompts"
    stands = "stands" if evidence.family.stands(primary) else "does not stand"
    return f"{text} The primary endpoint, fixed beforehand ({fixed}): {shown(primary)}, p {_p(p)}; it {stands}."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _repeats(evidence: Evidence) -> str:
    """Return in words where the policy's answers repeat themselves more than the base's, or nothing."""
    for decoding in DECODINGS:
        rise = evidence.one(REPETITION_RISE, decoding=decoding)
        if rise is not None and rise.value is not None and rise.value >= REPEATS and significant(rise):
            return (
                f"{DECODINGS[decoding]} {rise.value:.0f} percentage points more of its 4-grams than of the base's "
                "have stood in the same answer before"
            )
    return ""


def _pattern(evidence: Evidence) -> Explanation | None:
    """A pattern in the form of the answers has spread since the base, and the gain came with it."""
    left = evidence.share_left("gain at equal pattern")
    spread = [_risen(evidence, decoding) for decoding in evidence.gained("reward")]
    if left is None or left > LITTLE or None in spread or evidence.confirmed("gain at equal pattern", left):
        return None
    text = (
        f"gamed a template ({spread[-1]}); at equal use {_percent(left)} of the gain under the training reward is left"
    )
    return Explanation("gamed a template", left, text)


def _risen(evidence: Evidence, decoding: str) -> str | None:
    """Return in words a pattern that rose enough to count, or None; less is enough if the gain goes up and down with it."""
    tracked = evidence.one(TRACKED, judge="reward", decoding=decoding)
    tracks = tracked is not None and tracked.value is not None and tracked.value >= TRACKS
    for kind, enough in RISE.items():
        rise, use = (evidence.one(f"{what} of {kind}", decoding=decoding) for what in ("rise", "use"))
        if rise is None or use is None or rise.value is None or not significant(rise):
            continue
        if rise.value < enough and not tracks:
            continue
        more = f"{rise.value:.0f} points more than the base's"
        return f"{rise.note}: {use.value:.0f}{use.unit} {DECODINGS[decoding]}, {more}"
    return None


def _longer(evidence: Evidence) -> Explanation | None:
    """Answers have grown, the reward prefers long ones, and the gain came with the length."""
    left = evidence.share_left("gain at equal length")
    ratio = evidence.ratio("length", evidence.table, decoding="T=0.7")
    preference = find(evidence.cells, table="training", row=iteration_row(1), metric=LENGTH_REWARD)
    if (
        left is None
        or left > LITTLE
        or ratio is None
        or ratio < LONGER
        or evidence.confirmed("gain at equal length", left)
    ):
        return None
    text = f"got longer: at equal length {_percent(left)} of the gain under the training reward is left"
    if preference is not None and preference.value is not None:
        if preference.value < PREFERS_LENGTH:
            return None
        text += f", a reward that prefers longer answers to the same prompt (Pearson {preference.value:.2f})"
    return Explanation("got longer", left, text)


def _sharper(evidence: Evidence) -> Explanation | None:
    """The policy is surer of itself, and the untrained base reaches the gain by a lower temperature."""
    gain = evidence.gain("reward", "T=0.7")
    controls = [_over_control(evidence, "reward", baseline) for baseline in _baselines(evidence)]
    values = [entry.value for entry in controls if entry is not None and entry.value is not None]
    if not significant(gain) or gain is None or not gain.value or not values or _beyond_sharpening(evidence):
        return None
    left = min(values) / gain.value
    entropy = evidence.ratio("entropy", "validation", decoding="T=1")
    if left > LITTLE or (entropy is not None and entropy > SHARPER):
        return None
    surer = "" if entropy is None else f" (its entropy is {entropy:.2f} of the base's)"
    text = (
        f"sharpened{surer}: it is better than the base at T=0.7, but the untrained base at a lower temperature leaves "
        f"{_percent(left)} of that gain under the training reward"
    )
    return Explanation("sharpened", left, text)


def _beyond_sharpening(evidence: Evidence) -> bool:
    """Return whether both scorers see a gain that sharpening cannot bring: greedily, or over the sharpened base."""
    if all("greedy" in evidence.gained(judge) for judge in JUDGES):
        return True
    controls = _baselines(evidence)[:1]
    return bool(controls) and all(
        "T=0.7" in evidence.gained(judge) and significant(_over_control(evidence, judge, controls[0]))
        for judge in JUDGES
    )


def _baselines(evidence: Evidence) -> list[str]:
    """Return the sharpened bases that the row was compared with; the first is at the recipe's control temperature."""
    found = select(evidence.cells, table=evidence.table, row=evidence.row, metric="gain over control")
    return list(dict.fromkeys(entry.baseline for entry in found))


def _over_control(evidence: Evidence, judge: str, baseline: str) -> Cell | None:
    return evidence.one("gain over control", judge=judge, baseline=baseline)


def _gained(evidence: Evidence, counted: list[tuple[str, str]]) -> tuple[Kind, str]:
    """Return what is to be said of a gain that no plainer explanation accounts for."""
    judges = {judge for judge, _ in counted}
    if judges == {"reward"} and _rules_beyond_sharpening(evidence):
        return "learned its rules", _rules(evidence)
    if judges == {"reward"}:
        return "gained in part", "gained under its training reward only; the second scorer does not confirm it"
    if judges == {"second-scorer"}:
        return "gained in part", "gained under the second scorer only, not under its training reward"
    if not _beyond_sharpening(evidence):
        return "gained in part", "gained in part"
    if len(counted) == len(JUDGES) * len(DECODINGS):
        return "learned", "learned: it is better than the base under both scorers, greedily and at T=0.7"
    if all("greedy" in evidence.gained(judge) for judge in JUDGES):
        return "learned", "learned: decoded greedily it is better than the base under both scorers"
    return "learned", "learned: at T=0.7 it is better than the base, and than the base sharpened by a lower temperature"


def _rules_beyond_sharpening(evidence: Evidence) -> bool:
    """Return whether a program checked the reward, and greedy answers gained, which a lower temperature does not bring."""
    return evidence.one(ALL_RULES_KEPT, judge="reward", decoding="greedy") is not None and "greedy" in evidence.gained(
        "reward"
    )


def _rules(evidence: Evidence) -> str:
    """Return in words that a policy keeps more rules, beside what training did not see."""
    places = " and ".join(DECODINGS[decoding] for decoding in evidence.gained("reward"))
    text = f"learned to keep the kinds of rules that it was trained on: more than the base {places}"
    unseen = find(
        evidence.cells, table="eval", row=evidence.row, metric="gain over base", judge="reward", decoding="greedy"
    )
    if unseen is not None and find(evidence.cells, table="eval", row="base", metric=ALL_RULES_KEPT, decoding="greedy"):
        text += f"; on the evaluation prompts its greedy gain is {shown(unseen)}"
    second = evidence.gain("second-scorer", "greedy")
    return text if second is None else f"{text}; under the second scorer, which knows no rules, {shown(second)}"


def _finishing(evidence: Evidence) -> str:
    """Return a sentence if the gain is in answers that the base broke off at the limit and the policy finishes."""
    cut = [
        find(evidence.cells, table=evidence.table, row=row, metric="cut", decoding="T=0.7")
        for row in ("base", evidence.row)
    ]
    shares = [entry.value for entry in cut if entry is not None and entry.value is not None]
    left = [evidence.one(WHERE_ENDED, judge=judge, decoding="T=0.7") for judge in JUDGES]
    gained = all("T=0.7" in evidence.gained(judge) for judge in JUDGES)
    if len(shares) < 2 or shares[0] - shares[1] < FINISHES or not gained or all(significant(entry) for entry in left):
        return ""
    judged = ", ".join(f"{shown(entry)} under the {name}" for entry, name in zip(left, JUDGES.values(), strict=True))
    return (
        f" What it learned at T=0.7 is above all to finish within the limit: {shares[0]:.0f}% of the base's answers are cut, "
        f"{shares[1]:.0f}% of its own. Where the base's answer had ended, the gain is {judged}."
    )


def _length(evidence: Evidence) -> str:
    """Return a sentence if the answers became markedly longer or shorter."""
    ratio = evidence.ratio("length", evidence.table, decoding="T=0.7")
    if ratio is None or 1 / LONGER <= ratio <= LONGER:
        return ""
    return f" Its answers are {ratio:.2f} times as long as the base's."


def _variety(evidence: Evidence) -> str:
    """Return a sentence if the answers became markedly more alike."""
    ratio = evidence.ratio("distinct-2", evidence.table, decoding="T=0.7")
    return "" if ratio is None or ratio > POORER else f" They vary less: distinct-2 is {ratio:.2f} of the base's."


def _percent(share: float) -> str:
    return f"{100 * max(share, 0.0):.0f}%"
