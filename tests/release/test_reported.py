"""The card of a published model from reported facts: its numbers, what it does not claim, its example."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from gshf_release.errors import RecipeError, ReleaseError
from gshf_release.release import card as cards
from gshf_release.release.card import render_reported
from gshf_release.release.facts import Facts
from tests.conftest import REPOSITORY, Outcome
from tests.release.blocks import bibliography, blocks, languages, python

NAME = "fsfairx-zephyr-7b"
EXAMPLE = REPOSITORY / "model_cards" / "examples" / f"{NAME}.md"
ORIGINAL = Path("seed") / "FsfairX-Zephyr-Chat-v0.1.card.txt"
RUN_OF_LETTERS = 40


@pytest.fixture(scope="module")
def card() -> str:
    return render_reported(NAME)


@pytest.fixture(scope="module")
def original(test_data: Path) -> str:
    path = test_data / ORIGINAL
    if not path.is_file():
        pytest.skip(f"{path.name} is not in GSHF_TEST_DATA")
    return path.read_text(encoding="utf-8")


def test_the_example_is_what_the_command_writes(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("card", "--reported", NAME, "--out", tmp_path / EXAMPLE.name)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / EXAMPLE.name).read_text(encoding="utf-8") == EXAMPLE.read_text(encoding="utf-8")
    (link,) = re.findall(r"!\[[^\]]{40,}\]\((.+?)\)", EXAMPLE.read_text(encoding="utf-8"))
    for folder in (tmp_path, EXAMPLE.parent):
        assert (folder / link).read_bytes().startswith(b"\x89PNG")


def test_every_number_of_the_original_is_in_it(card: str, original: str) -> None:
    rows = re.findall(r"^(Base|Iteration \d) ([\d.]+) ([\d.]+) (\d+)$", original, re.MULTILINE)
    assert len(rows) == 4
    for name, win_rate, controlled, length in rows:
        assert f"| {name.lower().replace(' ', '-')} | {win_rate} | {controlled} | {length} |" in card
    for number in ("35.95", "34.79", "4.63", "about 7.5", "5.3", "60K", "7.24", "BF16"):
        assert number in original
        assert number in card


def test_no_sentence_of_the_original_is_in_it(card: str, original: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", card, flags=re.DOTALL | re.MULTILINE)
    ours, theirs = (" ".join(text.split()) for text in (prose, original))
    runs = (theirs[start : start + RUN_OF_LETTERS] for start in range(len(theirs) - RUN_OF_LETTERS + 1))
    assert [run for run in runs if run in ours] == []


def test_the_metadata_says_more_than_the_originals_one_key(card: str) -> None:
    data = ModelCard(card, ignore_metadata_errors=False).data
    assert data.license == "cc-by-sa-4.0"
    assert data.base_model == ["HuggingFaceH4/mistral-7b-sft-beta"]
    assert data.to_dict()["base_model_relation"] == "finetune"
    found = {result.metric_type: result for result in data.eval_results}
    assert {kind: result.metric_value for kind, result in found.items()} == {
        "length_controlled_winrate": 34.79,
        "win_rate": 35.95,
    }
    for result in found.values():
        assert result.dataset_type == "tatsu-lab/alpaca_eval"
        assert result.source_url == "https://huggingface.co/sfairXC/FsfairX-Zephyr-Chat-v0.1"
        assert result.metric_args["origin"] == "reported, not measured here"
        assert result.metric_args["iteration"] == 3
        assert result.metric_args["n"] == 805
        assert result.metric_args["standard_error"] == "not reported"
        assert "weighted_alpaca_eval_gpt4_turbo" in result.metric_args["judge"]


def test_another_judge_never_bears_the_benchmarks_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("eval/reported", NAME), ("model_cards", NAME), ("training/recipes", NAME)):
        (tmp_path / folder).mkdir(parents=True)
        source = REPOSITORY / folder / f"{name}.yaml"
        text = source.read_text(encoding="utf-8").replace("weighted_alpaca_eval_gpt4_turbo", "a judge of our own")
        (tmp_path / folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / ".gshf-release").touch()
    monkeypatch.chdir(tmp_path)
    results = ModelCard(render_reported(NAME)).data.eval_results
    assert {result.dataset_type for result in results} == {"reported"}
    assert {result.dataset_name for result in results} == {"AlpacaEval 2 (another judge or baseline)"}


def test_nothing_is_claimed_that_was_not_checked(card: str) -> None:
    assert "Nothing here was measured by the authors of this card" in card
    assert "**No external responses.**" not in card
    assert "The licence could not be compared with that of the prompts and the reward" in card
    assert "**Not stated for AlpacaEval 2 and MT-Bench**" in card
    assert "| `reward.model` | `hendrydong/Mistral-RM-for-RAFT-GSHF-v0` | \\[card\\] names none." in card


def test_a_name_without_its_three_files_is_refused(command: Callable[..., Outcome]) -> None:
    outcome = command("card", "--reported", "fsfairx-zephyr")
    assert outcome.code == 1
    assert "Did you mean 'fsfairx-zephyr-7b'?" in outcome.line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Name either a RUN or --reported NAME."),
        (("run", "--reported", NAME), "Name either a RUN or --reported NAME."),
        (("--reported", NAME, "--iteration", 1), "--iteration belongs to a RUN."),
        (("run", "--out", "x.md"), "--out belongs to --reported."),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    command: Callable[..., Outcome], arguments: tuple[str, ...], message: str
) -> None:
    outcome = command("card", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_facts_without_a_repository_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards.Facts, "load", classmethod(lambda cls, reference: Facts(license="mit")))
    with pytest.raises(ReleaseError, match="the facts do not name the repository"):
        render_reported(NAME)
    with pytest.raises(RecipeError):
        render_reported("quickstart")


# -- its code blocks -----------------------------------------------------------------------------------------


def test_the_python_block_answers(card: str, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(card, "python")
    assert code.count('"sfairXC/FsfairX-Zephyr-Chat-v0.1"') == 1
    capsys.readouterr()
    python(code.replace('"sfairXC/FsfairX-Zephyr-Chat-v0.1"', repr(str(tiny_folder / "tiny"))).replace("256", "8"))
    assert capsys.readouterr().out.strip()


def test_the_shell_blocks_are_commands_of_this_package(card: str, command: Callable[..., Outcome]) -> None:
    assert languages(card) == {"python", "bash", "bibtex"}
    plan, again = (block.split() for block in blocks(card, "bash"))
    outcome = command(*again[1:])
    assert (again[0], outcome.code, outcome.out) == ("gshf-release", 0, card)
    outcome = command(*plan[1:])
    assert plan[0] == "gshf-release"
    assert "iteration-3" in outcome.out, outcome.err


def test_the_bibliography_is_well_formed(card: str) -> None:
    paper, model = (bibliography(block) for block in blocks(card, "bibtex"))
    assert paper["eprint"] == "2312.11456"
    assert model["title"] == "FsfairX-Zephyr-Chat-v0.1"
    assert model["howpublished"] == "https://huggingface.co/sfairXC/FsfairX-Zephyr-Chat-v0.1"
