"""Cards: metadata the Hub accepts, measured and reported apart, and facts that stay text whatever they hold."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from gshf_release.data.results import Cell, find, read_cells, shown
from gshf_release.errors import ReleaseError
from gshf_release.evaluation.metrics import doubt
from gshf_release.evaluation.verdicts.reading import OTHER_MODEL
from gshf_release.recipe import Pairs, Recipe
from gshf_release.recipe import load as load_recipe
from gshf_release.release.assumptions import Assumption
from gshf_release.release.card import left_out, render_card
from gshf_release.release.card_data import Card
from gshf_release.release.card_templates import escape_text
from gshf_release.release.facts import Facts
from gshf_release.release.folders import RESULTS_FILE
from gshf_release.release.lineage import Lineage, verify_lineage
from gshf_release.release.quantization import losses
from gshf_release.run.directory import RunDirectory
from gshf_release.run.stage import Stage
from tests.release.blocks import blocks

POISON = (
    "x | y ` ``` ~~~ <script>alert(1)</script> {{ 7 * 7 }} {% for a in b %} [link](javascript:alert(1)) ![i](u) \\ **b**\n"
    "---\nlicense: mit\n---\n# Results: 100 %\n\n    code\n\n~~~\n| a | b |\n| --- | --- |\n<!-- "
)


@pytest.fixture
def cells(released: RunDirectory) -> list[Cell]:
    return read_cells(released.path / "results.json")


def text(released: RunDirectory, part: str = "tiny/iter-2") -> str:
    return (released.path / "release" / part / "README.md").read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    """Return what stands under a second-level heading."""
    return card.partition(f"\n## {title}")[2].partition("\n## ")[0]


def facts(**changes: Any) -> Facts:
    content = {
        "license": "apache-2.0",
        "base_model": "someone/tiny",
        "language": ["en"],
        "title": None,
        "description": "",
        "reported": None,
    }
    return Facts(**(content | changes))


def card(recipe: Recipe, cells: list[Cell], **changes: Any) -> str:
    return render_card(Card(recipe, "tester/tiny", 2, cells, facts(**changes)))


@pytest.mark.parametrize("number", [1, 2])
def test_the_hubs_own_reader_accepts_the_metadata(released: RunDirectory, number: int) -> None:
    data = ModelCard(text(released, f"tiny/iter-{number}"), ignore_metadata_errors=False).data
    assert (data.license, data.base_model, data.library_name) == ("apache-2.0", ["someone/tiny"], "transformers")
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.pipeline_tag == "text-generation"


@pytest.mark.parametrize("number", [1, 2])
def test_the_model_index_holds_the_numbers_of_this_iteration(
    released: RunDirectory, cells: list[Cell], number: int
) -> None:
    results = ModelCard(text(released, f"tiny/iter-{number}"), ignore_metadata_errors=False).data.eval_results
    assert results
    assert {result.metric_args["iteration"] for result in results} == {number}
    assert {result.dataset_type for result in results} == {"gshf-release-eval-prompts", "gshf-release-test-prompts"}
    assert all("stand-in" in result.dataset_name for result in results)
    for result in results:
        expected = find(
            cells,
            table=result.dataset_type.split("-")[2],
            row=f"iteration-{number}",
            metric=result.metric_type.replace("_", " "),
            judge=result.metric_args["judge"],
            decoding=result.metric_args["decoding"],
        )
        assert expected is not None
        assert result.metric_value == pytest.approx(expected.value, abs=1e-4)


def test_published_numbers_never_enter_the_model_index(released: RunDirectory) -> None:
    assert "35.95" not in yaml.safe_dump(ModelCard(text(released)).data.to_dict())


def test_the_table_has_a_row_for_every_iteration(released: RunDirectory, cells: list[Cell]) -> None:
    measured = section(text(released), "Results: measured here")
    for row in ("base", "iteration-1", "iteration-2"):
        assert f"\n| {row} | " in measured
    gain = find(
        cells, table="test", row="iteration-1", metric="gain over base", judge="second-scorer", decoding="greedy"
    )
    assert f"| {shown(gain)} |" in measured


def test_measured_and_reported_stand_apart(released: RunDirectory) -> None:
    measured = section(text(released), "Results: measured here")
    reported = section(text(released), "Results: reported elsewhere")
    assert "35.95" in reported
    assert "not measured here" in reported
    assert "huggingface.co/someone/tiny" in reported
    assert "35.95" not in measured
    assert "second scorer" not in reported


def test_the_stand_in_is_labelled_as_one(released: RunDirectory) -> None:
    assert "stands in for a judge" in section(text(released), "Results: measured here")
    assert "by a stand-in annotator, not by people" in section(text(released), "Limits")


def test_the_figure_is_in_the_release_and_has_a_text(released: RunDirectory) -> None:
    assert "![Gain of iteration-2 over the base at greedy decoding: training reward" in text(released)
    path = released.path / "release" / "tiny" / "iter-2" / "assets" / "learning.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_no_external_responses_is_said_because_the_lineage_proves_it(released: RunDirectory) -> None:
    for number in (1, 2):
        traced = verify_lineage(released, number)
        content = text(released, f"tiny/iter-{number}")
        assert (
            f"**No external responses.** Each of the {traced.trained} preference pairs that it was trained on"
            in content
        )
        assert f"was traced to the {traced.responses} responses that the run's own policies drew" in content
    assert verify_lineage(released, 1).trained < verify_lineage(released, 2).trained


def test_no_external_responses_is_not_said_without_proof(tiny_recipe: Recipe) -> None:
    base = Card(tiny_recipe, "tester/tiny", 2, [], facts())
    for claim, statement in (
        ({}, "Not traced for this card."),
        (
            {"lineage_problem": "iteration-1/pairs: x: not among <b>"},
            "Not traced for this card: iteration-1/pairs: x: not",
        ),
        ({"lineage": Lineage(8, 4, 3)}, "3 preference pairs came from elsewhere; 4 were made of the 8 responses"),
    ):
        content = render_card(replace(base, **claim))
        assert "No external responses" not in content
        assert statement in content
        assert "<b>" not in content


def test_the_results_behind_the_card_are_in_the_release_and_named_as_the_source(
    released: RunDirectory, cells: list[Cell]
) -> None:
    folder = released.path / "release" / "tiny" / "iter-1"
    shown = read_cells(folder / RESULTS_FILE)
    measured = [cell for cell in cells if not cell.table.startswith(losses.TABLE)]
    assert shown == [cell for cell in measured if cell.row != "iteration-2"], "quantizations are made of the release"
    results = ModelCard(text(released, "tiny/iter-1")).data.eval_results
    assert {result.source_url for result in results} == {
        f"https://huggingface.co/tester/tiny/blob/iter-1/{RESULTS_FILE}"
    }


def test_every_iteration_so_far_has_its_tag_and_hash(released: RunDirectory) -> None:
    measured = section(text(released, "tiny/iter-2"), "Results: measured here")
    for number in (1, 2):
        digest = released.stage_sha256(Stage(f"iteration-{number}/policy", work=""), "model")
        link = f"[iter-{number}](https://huggingface.co/tester/tiny/tree/iter-{number})"
        assert f"| {number} | {link} | `{digest[:16]}` |" in measured
    assert "tree/iter-2" not in text(released, "tiny/iter-1")


def test_assumptions_of_the_recipe_are_on_the_card(tiny_recipe: Recipe) -> None:
    found = [Assumption("pairs.cut", "keep", "not | stated"), Assumption("prompts.system", None, "none")]
    content = render_card(Card(tiny_recipe, "tester/tiny", 2, [], facts(), assumptions=found))
    assert "| `pairs.cut` | `keep` | not \\| stated |" in content
    assert "| `prompts.system` | none | none |" in content
    assert "### Assumptions" not in card(tiny_recipe, [])


def test_what_the_prompts_were_compared_with_is_stated_and_nothing_more(tiny_recipe: Recipe) -> None:
    assert "**Not done: the training prompts were compared with no public benchmark.**" in card(tiny_recipe, [])
    made = {"checked": ["AlpacaEval 2"], "method": "eight words in a row", "removed": 3, "unchecked": ["MT-Bench"]}
    content = card(tiny_recipe, [], decontamination=made)
    assert "were compared with AlpacaEval 2: eight words in a row; 3 were removed." in content
    assert "**Not compared with MT-Bench.**" in content


def test_what_the_run_compared_itself_is_stated(tiny_recipe: Recipe) -> None:
    place = {"table": "contamination", "row": "prompts", "artefact": "a", "n": 24}
    cells = [
        Cell(metric="too close to alpaca-eval", value=2, note="alpaca-eval/7, alpaca-eval/9", **place),
        Cell(metric="too close to mt-bench", value=None, note="NOT CHECKED: its file is not on this machine", **place),
    ]
    content = card(tiny_recipe, cells)
    assert "| too close to alpaca-eval | 2 | 24 | alpaca-eval/7, alpaca-eval/9 |" in content
    assert "NOT CHECKED: its file is not on this machine" in content
    assert "Not done" not in content
    assert "**The run did not check mt-bench**" in content
    assert "prompts of all its roles with those of alpaca-eval:" in content
    assert "removed none" not in content


def test_decontamination_that_was_not_checked_claims_nothing(tiny_recipe: Recipe) -> None:
    place = {"table": "contamination", "row": "prompts", "artefact": "a", "n": 24, "value": None}
    missed = [Cell(metric=f"too close to {name}", note="NOT CHECKED: no file", **place) for name in ("a", "b")]
    found = section(card(tiny_recipe, missed), "Decontamination")
    assert "**The run did not check a and b**" in found
    for claim in ("removed", "The run compared", "stayed in"):
        assert claim not in found


def test_the_prompts_of_external_pairs_are_compared_by_name(tiny_recipe: Recipe) -> None:
    given = tiny_recipe.model_copy(update={"pairs": Pairs(source="hybrid", offline="given.jsonl")})
    cells = [
        Cell(table="contamination", row="offline pairs", artefact="a", n=9, metric="too close to mt-bench", value=1)
    ]
    content = card(given, cells)
    assert "and those of the external preference data, with those of mt-bench:" in content
    assert "| offline pairs: too close to mt-bench | 1 | 9 |" in content


def test_the_licences_of_the_ingredients_are_listed(tiny_recipe: Recipe) -> None:
    assert "could not be compared with that of the base and the prompts and the reward" in card(tiny_recipe, [])
    stated = {"base": {"license": "mit"}, "prompts": {"license": "cc0-1.0"}, "reward": {"license": "apache-2.0"}}
    content = card(tiny_recipe, [], ingredients=stated)
    assert "| prompts | prompts.jsonl | cc0-1.0 |" in content
    assert "asks for everything that those of the ingredients ask for" in content


def test_a_deviation_from_the_cited_algorithm_is_stated(released: RunDirectory) -> None:
    assert "this run uses init previous and history current" in text(released)


def test_a_local_reward_model_is_named_without_its_path(released: RunDirectory, tiny_folder: Path) -> None:
    assert str(tiny_folder) not in text(released)
    assert "| reward | reward |" in text(released)


def test_the_quantizations_claim_no_results_and_show_their_measured_loss(released: RunDirectory) -> None:
    content = text(released, "tiny-GGUF/main")
    assert "model-index" not in content
    assert "not measured" not in content
    (row,) = [line for line in content.splitlines() if line.startswith("| Q8\\_0 |")]
    _, _, bits, _, divergence, tail, same, *_ = row.strip("| ").split(" | ")
    assert 8.5 < float(bits) < 10
    assert 0 <= float(divergence.split(" ")[0]) <= float(tail)
    assert 50 < float(same.split(" ")[0]) <= 100


def test_the_gguf_card_names_its_source_and_files(released: RunDirectory) -> None:
    content = text(released, "tiny-GGUF/main")
    data = ModelCard(content, ignore_metadata_errors=False).data
    assert data.to_dict()["base_model_relation"] == "quantized"
    assert data.base_model == ["tester/tiny"]
    assert data.eval_results is None
    assert "tiny-Q8\\_0.gguf" in content


def test_an_ensemble_is_named_by_its_members_without_their_paths(tiny_recipe: Recipe) -> None:
    reward = {"models": [{"model": "/home/me/first"}, {"model": "someone/second"}]}
    chosen = Recipe.model_validate(tiny_recipe.model_dump() | {"reward": reward})
    assert "mean of first, someone/second" in card(chosen, [])


def test_a_card_without_results_can_be_rendered(tiny_recipe: Recipe) -> None:
    content = card(tiny_recipe, [], license=None, base_model=None)
    assert "model-index" not in content
    assert "license" not in content.partition("# tiny")[0]


# -- poisoned facts ------------------------------------------------------------------------------------------


def structure(content: str) -> tuple[Counter[str], list[str]]:
    """Return the kinds of blocks and inline marks of a card's body, and its headings' levels."""
    body = content.split("\n---\n\n", 1)[1]
    kinds: Counter[str] = Counter()
    levels = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(body):
        kinds[token.type] += 1
        kinds.update(
            child.type for child in token.children or [] if child.type not in ("text", "text_special", "softbreak")
        )
        levels += [token.tag] if token.type == "heading_open" else []
    return kinds, levels


CLEAN = {"title": "A", "description": "B", "intended_use": "C"}


@pytest.mark.parametrize("key", ["title", "description", "intended_use"])
@pytest.mark.parametrize("value", [POISON, "~~~", "```", "<!--", "1. one", "- one", "---", "# one", "> one", "\tcode"])
def test_facts_are_text_whatever_they_hold(tiny_recipe: Recipe, cells: list[Cell], key: str, value: str) -> None:
    clean = card(tiny_recipe, cells, **CLEAN)
    poisoned = card(tiny_recipe, cells, **(CLEAN | {key: value}))
    assert structure(poisoned) == structure(clean)
    assert ModelCard(poisoned, ignore_metadata_errors=False).data.to_dict() == ModelCard(clean).data.to_dict()


@pytest.mark.parametrize(
    "poisoned",
    [
        {"limits": [POISON]},
        {"authors": [POISON]},
        {"ingredients": {"reward": {"name": POISON}}},
        {"decontamination": {"checked": [POISON], "method": POISON}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_lists_and_sections_of_facts_are_text_too(tiny_recipe: Recipe, poisoned: dict[str, Any]) -> None:
    plain = card(tiny_recipe, [], **_plain(poisoned))
    assert structure(card(tiny_recipe, [], **poisoned)) == structure(plain)


def _plain(value: Any) -> Any:
    """Return the same facts with harmless texts."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else "x"


def test_a_poisoned_system_turn_stays_a_text_of_its_code_block(tiny_recipe: Recipe) -> None:
    def recipe(system: str) -> Recipe:
        return tiny_recipe.model_copy(update={"prompts": tiny_recipe.prompts.model_copy(update={"system": system})})

    poison = POISON + '\n```\n# Results\n"})\nimport os'
    assert structure(card(recipe(poison), [])) == structure(card(recipe("x"), []))
    (code,) = blocks(card(recipe(poison), []), "python")
    messages = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.List))
    assert ast.literal_eval(messages)[0] == {"role": "system", "content": poison}


def test_facts_are_never_templates(tiny_recipe: Recipe) -> None:
    content = card(tiny_recipe, [], title="{{ 7 * 7 }} {{ recipe.name }} {% raw %}")
    assert "{{ 7 \\* 7 }} {{ recipe.name }} {% raw %}" in content


def test_a_poisoned_language_stays_inside_its_value(tiny_recipe: Recipe) -> None:
    poisoned = facts().model_copy(update={"language": ("en\n---\nlicense: mit", "[x]: {y}")})
    content = render_card(Card(tiny_recipe, "tester/tiny", 2, [], poisoned))
    metadata = yaml.safe_load(content.split("\n---\n\n# ", 1)[0].removeprefix("---\n"))
    assert metadata["language"] == ["en\n---\nlicense: mit", "[x]: {y}"]
    assert metadata["license"] == "apache-2.0"


def test_what_cells_say_of_themselves_stays_inside_its_value(tiny_recipe: Recipe, cells: list[Cell]) -> None:
    poisoned = [cell.model_copy(update={"baseline": POISON, "note": POISON if cell.note else ""}) for cell in cells]
    content = card(tiny_recipe, poisoned)
    assert structure(content) == structure(card(tiny_recipe, cells))
    data = ModelCard(content, ignore_metadata_errors=False).data
    assert {result.metric_args["baseline"] for result in data.eval_results} == {POISON}
    assert data.license == "apache-2.0"


def test_cells_cannot_break_out_of_their_table(tiny_recipe: Recipe, cells: list[Cell]) -> None:
    poisoned = [
        cell.model_copy(update={"row": cell.row.replace("iteration-1", "iteration-1 | <b>\n\n# x `")}) for cell in cells
    ]
    assert structure(card(tiny_recipe, poisoned)) == structure(card(tiny_recipe, cells))


def test_escaped_text_reads_as_it_was() -> None:
    for value in ("plain", "a_b*c [d] <e> | `f`", "1. one", "- one", "~x~", "-0.5 is below 2. Yes"):
        (paragraph,) = [token for token in MarkdownIt().parse(escape_text(value)) if token.type == "inline"]
        assert "".join(child.content for child in paragraph.children or []) == value


# -- facts files ---------------------------------------------------------------------------------------------


def load(tmp_path: Path, content: str) -> Facts:
    path = tmp_path / "facts.yaml"
    path.write_text(content, encoding="utf-8")
    return Facts.load(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("licence: mit", "unknown key 'licence'"),
        ("license: none-such", "'none-such' is no licence identifier"),
        ("license: [mit]", "is no licence identifier"),
        ("license: 'mit\n\n  base_model: x/y'", "is no licence identifier"),
        ("base_model: tiny", "'tiny' is not of the form OWNER/NAME"),
        ("base_model: 3", "3 is not of the form OWNER/NAME"),
        ("base_model: a/b](javascript:x)", "is not of the form OWNER/NAME"),
        ('base_model: "a/b\\n"', "is not of the form OWNER/NAME"),
    ],
)
def test_a_fact_that_cannot_be_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ReleaseError, match=r"facts\.yaml: ") as caught:
        load(tmp_path, content)
    assert message in str(caught.value)


def test_one_language_may_stand_alone(tmp_path: Path) -> None:
    assert load(tmp_path, "language: de").language == ("de",)
    assert load(tmp_path, "language: [de, en]").language == ("de", "en")
    assert load(tmp_path, "title: x").language == ("en",)


def judged(judge: str, n: int = 805) -> list[Cell]:
    place = {"table": "alpaca_eval_2", "judge": judge, "baseline": "gpt4_1106_preview", "decoding": "T=0.7"}
    found = []
    for row, rate in (("base", 5.0), ("iteration-2", 36.0), ("somebody", 77.0)):
        found += [
            Cell(metric="win rate", row=row, value=rate, standard_error=1.5, n=n, unit="%", **place),
            Cell(metric="LC win rate", row=row, value=rate - 2, standard_error=0.3, n=n, unit="%", **place),
            Cell(metric="failed judgments", row=row, value=0.0, n=n, **place),
        ]
    return found


def index_of(content: str) -> list[Any]:
    return list(ModelCard(content, ignore_metadata_errors=False).data.eval_results or [])


OFFICIAL, SUBSTITUTE = "weighted_alpaca_eval_gpt4_turbo", "openai-compatible-alpaca-eval/small"


def test_numbers_of_the_official_judge_bear_the_benchmarks_name(tiny_recipe: Recipe) -> None:
    content = card(tiny_recipe, judged(OFFICIAL))
    assert {result.dataset_name for result in index_of(content)} == {"AlpacaEval 2"}
    rates = {result.metric_type: result for result in index_of(content)}
    assert {name: result.metric_value for name, result in rates.items()} == {
        "win_rate": 36.0,
        "length_controlled_winrate": 34.0,
    }
    assert rates["win_rate"].metric_args == {
        "judge": OFFICIAL,
        "baseline": "gpt4_1106_preview",
        "decoding": "T=0.7",
        "iteration": 2,
        "n": 805,
        "standard_error": 1.5,
    }
    measured = section(content, "Results: measured here")
    assert f"### {escape_text(f'alpaca_eval_2, judged by {OFFICIAL} against gpt4_1106_preview')}" in measured
    assert "| iteration-2 | 36.00 ± 1.50 | 34.00 ± 0.30 |" in measured
    assert "somebody" not in content
    assert "stand-in annotator" not in section(content, "Limits")
    assert "not as its published numbers were" not in content


def test_numbers_of_another_judge_do_not(tiny_recipe: Recipe) -> None:
    content = card(tiny_recipe, judged(SUBSTITUTE))
    assert {result.dataset_name for result in index_of(content)} == {f"alpaca_eval_2, judged by {SUBSTITUTE}"}
    assert {result.dataset_type for result in index_of(content)} == {"alpaca_eval_2"}
    assert "not as its published numbers were" in section(content, "Limits")


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([], "20 of 805"),  # the first 20 alone, or answers to 20
        ([{"of": 805}], "20 of 805"),
        ([{"n": 804, "of": 805}], "804 of 805"),  # one question was never asked
    ],
)
def test_part_of_a_benchmark_is_said_first_and_is_no_result_of_it(
    tiny_recipe: Recipe, cells: list[dict[str, int]], told: str
) -> None:
    changes = cells[0] if cells else {}
    content = card(tiny_recipe, [entry.model_copy(update=changes) for entry in judged(OFFICIAL, 20)])
    assert index_of(content) == []
    body = content.split("---\n", 2)[2].strip().split("\n")
    assert body[2].startswith("> **Incomplete: ")
    assert f"iteration-2 {told} judgments" in body[2]
    assert f"(incomplete: {told})" in content
    assert f"| {told} (incomplete) |" in content


def test_judgments_of_another_model_are_no_result_of_the_judge(tiny_recipe: Recipe) -> None:
    cells = judged(OFFICIAL)
    other = cells[0].model_copy(
        update={"metric": doubt(OTHER_MODEL), "row": "iteration-2", "value": 805.0, "standard_error": None}
    )
    content = card(tiny_recipe, [*cells, other])
    assert index_of(content) == []
    assert f"805 of 805 judgments: {OTHER_MODEL}" in content
    assert "not as its published numbers were" in section(content, "Limits")


def test_a_few_failed_judgments_of_all_that_were_asked_for_leave_a_benchmark_whole(tiny_recipe: Recipe) -> None:
    cells = [entry.model_copy(update={"of": 805}) for entry in judged(OFFICIAL)]
    failed = [entry.model_copy(update={"n": 800}) if entry.metric != "failed judgments" else entry for entry in cells]
    content = card(tiny_recipe, failed)
    assert {result.dataset_name for result in index_of(content)} == {"AlpacaEval 2"}
    assert index_of(content)[0].metric_args["n"] == 800
    assert "Incomplete" not in content
    assert "| 800 of 805 |" in content
    many = [entry.model_copy(update={"n": 780}) if entry.metric != "failed judgments" else entry for entry in cells]
    assert index_of(card(tiny_recipe, many)) == []


@pytest.mark.parametrize(
    ("name", "base", "stem", "shown"),
    [
        ("someone/tiny", None, "any", True),  # it is the base
        ("tester/tiny", None, "any", True),  # it is the model itself
        ("somebody/else", "someone/tiny", "tiny", True),  # it is the recipe
        ("somebody/else", None, "tiny", True),
        ("somebody/else", "another/base", "tiny", False),  # the same name on another base
        ("somebody/else", "someone/tiny", "any", False),
    ],
)
def test_reported_numbers_are_shown_only_of_the_models_own_base_or_recipe(
    tiny_recipe: Recipe, tmp_path: Path, name: str, base: str | None, stem: str, shown: bool
) -> None:
    path = tmp_path / f"{stem}.yaml"
    rows = "rows: [{row: iteration-1, win rate: 12.34, length: 5}]"
    path.write_text(
        f"name: {name}\nsource: https://x.org/y\nbenchmark: B\njudge: j\nbaseline: b\nlength_unit: characters\n{rows}\n"
        + (f"base: {base}\n" if base else ""),
        encoding="utf-8",
    )
    assert ("12.34" in card(tiny_recipe, [], reported=str(path))) is shown
    told = left_out(facts(reported=str(path)), tiny_recipe, "tester/tiny")
    assert told == "" if shown else f"{stem}.yaml are left out of the card" in told


def test_the_numbers_of_a_7b_model_are_on_no_card_of_a_135m_model() -> None:
    assert Facts.load("quickstart").reported is None
    assert left_out(facts(reported="fsfairx-zephyr-7b"), load_recipe("quickstart"))
    known = Facts.load("fsfairx-zephyr-7b")
    assert not left_out(known, load_recipe("fsfairx-zephyr-7b"))
    assert left_out(known, load_recipe("quickstart"))


def test_what_weakens_every_number_stands_before_them(tiny_recipe: Recipe) -> None:
    line = "Stale: the numbers were made with training.beta 0.1; the recipe now says 0.3."
    body = render_card(Card(tiny_recipe, "tester/tiny", 2, [], facts(), notices=(line,))).split("---\n", 2)[2]
    assert body.strip().split("\n")[2] == f"> **{line}**"
