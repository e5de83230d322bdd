"""The tables of a run: what each iteration measured. One definition serves the terminal, the card and the documents."""

from __future__ import annotations

from collections.abc import Sequence

from gshf_release.data import assets
from gshf_release.data.results import Cell, find, rows_of, select, shown
from gshf_release.diagnostics.exploration import LENGTH_REWARD
from gshf_release.diagnostics.row_metrics import ALL_RULES_KEPT, REPETITION, RULE_KEPT
from gshf_release.diagnostics.validation import BOUND, EXCEEDED
from gshf_release.models.logprobs import KL_TO_BASE
from gshf_release.prompts.contamination import PROMPTS as ROLES
from gshf_release.prompts.contamination import TABLE as CONTAMINATION
from gshf_release.recipe import read_mapping
from gshf_release.report.benchmarks import benchmark_tables
from gshf_release.report.table import Table, escape, markdown
from gshf_release.run.stage import is_iteration

__all__ = ["Table", "all_tables", "escape", "markdown"]
OTHER_KL = ("KL to base (k1)", "KL to base (k3)")
LENGTH_IN_PAIRS = ("length-only accuracy of pairs", "chosen longer")
TITLES = {"eval": "Evaluation prompts", "test": "Untouched test prompts"}


def iterations_of(cells: Sequence[Cell]) -> list[str]:
    """Return `base`, `iteration-1`, ... as far as they were measured."""
    return [row for row in rows_of(cells) if row == "base" or is_iteration(row)]


def evaluation_table(cells: Sequence[Cell], name: str) -> Table:
    """Return the comparison with the base at equal decoding on one set of prompts."""
    chosen = select(cells, table=name)
    rows = [_evaluation_row(chosen, row) for row in iterations_of(chosen)]
    rows += [_control_row(chosen, row) for row in rows_of(chosen) if row.startswith("base at ")]
    count = max((entry.n or 0 for entry in chosen if entry.metric == "score"), default=0)
    return Table(
        f"{TITLES.get(name, name)}, n = {count}: gain over the base at equal decoding",
        [
            "model",
            "reward, greedy",
            "reward, T=0.7",
            "second scorer, greedy",
            "second scorer, T=0.7",
            "win rate %, greedy",
            "win rate %, T=0.7",
            "tokens, T=0.7",
            "repetition %, greedy, T=0.7",
        ],
        rows,
        [
            "Gains are paired differences ± standard error. The reward is what training optimised; the second scorer, which "
            "training never saw, stands in for a judge in the win rate against the base. Neither is human preference. "
            "Repetition: 4-grams of tokens that have stood in the same answer before.",
        ],
    )


def _evaluation_row(cells: Sequence[Cell], row: str) -> list[str]:
    gains = [
        shown(find(cells, row=row, metric="gain over base", judge=judge, decoding=decoding))
        for judge in ("reward", "second-scorer")
        for decoding in ("greedy", "T=0.7")
    ]
    wins = [
        shown(find(cells, row=row, metric="win rate", decoding=decoding), digits=1) for decoding in ("greedy", "T=0.7")
    ]
    length = shown(find(cells, row=row, metric="length", decoding="T=0.7"), digits=0)
    return [row, *gains, *wins, length, _repetition(cells, row)]


def _repetition(cells: Sequence[Cell], row: str) -> str:
    """Return the repetition inside answers, greedily and at T=0.7."""
    found = [find(cells, row=row, metric=REPETITION, decoding=decoding) for decoding in ("greedy", "T=0.7")]
    return ", ".join(shown(entry, digits=0) for entry in found)


def _control_row(cells: Sequence[Cell], row: str) -> list[str]:
    gains = [
        shown(find(cells, row=row, metric="gain over base", judge=judge, decoding="T=0.7"))
        for judge in ("reward", "second-scorer")
    ]
    length = find(cells, row="base", metric="length", decoding=row.removeprefix("base at "))
    return [f"{row} (control)", "–", gains[0], "–", gains[1], "–", "–", shown(length, digits=0), "–"]


def validation_table(cells: Sequence[Cell]) -> Table:
    """Return what the loop measured after every iteration."""
    chosen = select(cells, table="validation")
    training = select(cells, table="training")
    rows = []
    for row in iterations_of(chosen):
        rows.append(
            [
                row,
                shown(find(chosen, row=row, metric="score", decoding="greedy")),
                shown(find(chosen, row=row, metric="score", decoding="T=0.7")),
                shown(find(chosen, row=row, metric="gain over base", decoding="T=0.7")),
                shown(find(chosen, row=row, metric=KL_TO_BASE)),
                shown(find(chosen, row=row, metric="entropy")),
                shown(find(chosen, row=row, metric="length", decoding="T=0.7"), digits=0),
                shown(find(chosen, row=row, metric="cut", decoding="T=0.7"), digits=0),
                shown(find(training, row=row, metric="pairs"), digits=0),
                shown(find(training, row=row, metric="weights changed after BF16"), digits=1),
            ]
        )
    header = ["model", "reward, greedy", "reward, T=0.7", "gain, T=0.7", "KL to base", "entropy", "tokens", "cut %"]
    notes = [f"KL in nats per response ({entry.note})." for entry in select(chosen, metric=KL_TO_BASE)[:1]]
    return Table("Validation prompts, after every iteration", [*header, "pairs", "weights moved %"], rows, notes)


def diagnostics_table(cells: Sequence[Cell]) -> Table:
    """Return how far every iteration went from the base, how varied its answers are, and how far length decides its reward."""
    chosen = select(cells, table="validation")
    training = select(cells, table="training")
    bounds = select(chosen, metric=BOUND)
    rows = []
    for row in iterations_of(chosen):
        columns = [shown(find(chosen, row=row, metric=metric)) for metric in (KL_TO_BASE, *OTHER_KL)]
        columns.append(shown(find(bounds, row=row)))
        columns.append(shown(find(chosen, row=row, metric="distinct-2", decoding="T=0.7")))
        columns.append(shown(find(chosen, row=row, metric="duplicates", decoding="T=0.7"), digits=0))
        columns.append(shown(find(training, row=row, metric=LENGTH_REWARD)))
        columns += [shown(find(training, row=row, metric=metric), digits=0) for metric in LENGTH_IN_PAIRS]
        rows.append([row, *columns])
    header = ["model", "KL", "KL, k1", "KL, k3", "best-of-n KL", "distinct-2, T=0.7", "duplicates %"]
    notes = [
        "KL to the base in nats per response: Rao-Blackwellised, and by the estimators k1 and k3. The last three columns are "
        "about the responses and pairs that the iteration was trained on."
    ]
    notes += [f"{bound.row}: {bound.note}." for bound in bounds if EXCEEDED in bound.note]
    length = ["Pearson(length, reward)", "longer is right %", "chosen longer %"]
    return Table("Divergence, variety and length, on validation and training prompts", [*header, *length], rows, notes)


def rules_table(cells: Sequence[Cell], name: str) -> Table:
    """Return how many greedy answers of every policy keep each rule, where the reward checks rules."""
    chosen = select(cells, table=name, judge="reward", decoding="greedy")
    rules = [
        metric
        for metric in dict.fromkeys(entry.metric for entry in chosen)
        if not metric.endswith(", gain") and (metric == ALL_RULES_KEPT or metric.startswith(RULE_KEPT))
    ]
    policies = iterations_of(chosen)
    rows = []
    for metric in sorted(rules, key=lambda metric: (metric == ALL_RULES_KEPT, metric)):
        found = [find(chosen, row=row, metric=metric) for row in policies]
        gain = find(chosen, row=policies[-1], metric=f"{metric}, gain")
        asked = "" if found[0] is None else str(found[0].n)
        rows.append(
            [metric.removeprefix(RULE_KEPT), asked, *(shown(entry, digits=0) for entry in found), shown(gain, digits=0)]
        )
    return Table(
        f"{TITLES.get(name, name)}: rules kept, % of greedy answers",
        ["rule", "prompts", *policies, "last gain"],
        rows,
        [
            "A rule is counted on the prompts that state it; an answer that was cut off or is degenerate keeps none. The last "
            "gain is the paired difference of the last iteration from the base, in percentage points."
        ],
    )


def scorer_table(cells: Sequence[Cell]) -> Table:
    """Return the held-out accuracy of the stand-in scorers by kind of contrast."""
    chosen = select(cells, table="scorers")
    rows = [
        [entry.row, entry.metric.removeprefix("held-out accuracy: "), shown(entry, digits=1), str(entry.n)]
        for entry in chosen
    ]
    notes = list(dict.fromkeys(f"{entry.row}: {entry.note}" for entry in chosen if entry.note))
    return Table("Stand-in scorers: held-out accuracy %", ["scorer", "contrast", "accuracy %", "pairs"], rows, notes)


def reported_table(name: str) -> Table:
    """Return the published numbers of eval/reported/<name>.yaml, with their source."""
    content = read_mapping(assets.find(name, "eval/reported", ".yaml"))
    header = list(content["rows"][0])
    rows = [[str(row[key]) for key in header] for row in content["rows"]]
    header = [f"length ({content['length_unit']})" if key == "length" else key for key in header]
    header[0] = "model"
    note = f"Source: {content['source']}. Judge: {content['judge']}. Baseline: {content['baseline']}."
    return Table(f"Reported for {content['name']}, {content['benchmark']} (not measured here)", header, rows, [note])


def prompt_table(cells: Sequence[Cell]) -> Table:
    """Return what came of writing prompts."""
    rows = []
    for entry in select(cells, table="prompts"):
        digits, unit = (1, " %") if entry.unit == "%" else (0, "")
        rows.append([entry.metric, f"{shown(entry, digits)}{unit}", entry.note])
    return Table("AI prompts", ["", "number", ""], rows)


def contamination_table(cells: Sequence[Cell]) -> Table:
    """Return how many of the run's prompts are too close to a benchmark's, and which benchmarks were not looked at."""
    rows = []
    for entry in select(cells, table=CONTAMINATION):
        label = entry.metric if entry.row == ROLES else f"{entry.row}: {entry.metric}"
        rows.append([label, shown(entry, 0), str(entry.n), entry.note])
    return Table("The run's prompts against those of benchmarks", ["", "prompts", "of", ""], rows)


def all_tables(cells: Sequence[Cell]) -> list[Table]:
    """Return every table that has cells, the most important last (it stays on the screen)."""
    tables = [
        prompt_table(cells),
        contamination_table(cells),
        scorer_table(cells),
        diagnostics_table(cells),
        validation_table(cells),
    ]
    for name in ("test", "eval"):
        if select(cells, table=name):
            tables += [rules_table(cells, name), evaluation_table(cells, name)]
    tables += benchmark_tables(cells)
    return [table for table in tables if table.rows]


def results_document(name: str, cells: Sequence[Cell], notice: str = "") -> str:
    """Return the results of a run as a Markdown document: a notice, then every table, measured numbers alone."""
    parts = [f"# Results of {name}", *([notice] if notice else [])]
    for table in all_tables(cells):
        parts += [f"## {table.title}", markdown(table), *table.notes]
    return "\n\n".join(parts) + "\n"
