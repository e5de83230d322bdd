"""The data sets of a release: whose texts they hold, that others read them, their licence, and their way to the Hub."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, HfApi

from gshf_release import pipeline
from gshf_release.data.records import Judgment, Pair, Sample
from gshf_release.errors import ReleaseError
from gshf_release.hub import publish as releases
from gshf_release.preference.offline import parse_preference
from gshf_release.release import data_sets, manifest
from gshf_release.release.data_sets import Preference, PublishedJudgment
from gshf_release.release.facts import Facts
from gshf_release.release.folders import copy_release
from gshf_release.run.directory import RunDirectory
from gshf_release.run.execution import SilentObserver, execute
from tests.end_to_end.train_tiny import EXACT
from tests.release.blocks import blocks, languages, python, shell
from tests.release.test_card import POISON, structure
from tests.servers.hub import HubServer

FACTS = """\
license: apache-2.0
base_model: someone/tiny
language: [en]
ingredients:
  base: {license: apache-2.0}
  prompts: {name: prompts of the tests, license: cc-by-4.0}
  evaluation_prompts: {license: mit}
"""


def release(run: RunDirectory, facts: Path, repository: str | None = "tester/tiny") -> None:
    """Make the data sets of a released run, and nothing else."""
    changed = {"facts": str(facts), "datasets": ("preferences", "judgments"), "repository": repository}
    recipe = run.recipe.model_copy(update={"release": run.recipe.release.model_copy(update=changed)})
    stages = pipeline.build(recipe, run).stages
    goal = [stage for stage in stages if stage.identity.startswith("write-data-set/")]
    execute(stages, run, recipe, EXACT, goal=goal, allow_redo=True, observer=SilentObserver())


@pytest.fixture(scope="module")
def run(finished: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return the tiny run with its data sets."""
    folder = tmp_path_factory.mktemp("data-sets")
    shutil.copytree(finished.path, folder / "run")
    (folder / "facts.yaml").write_text(FACTS, encoding="utf-8")
    made = RunDirectory.open(folder / "run")
    release(made, folder / "facts.yaml")
    return made


def part(run: RunDirectory, kind: str) -> Path:
    return run.path / "release" / f"tiny-{kind}" / "main"


def test_the_pairs_are_those_that_were_trained_on(run: RunDirectory) -> None:
    for iteration in (1, 2):
        published = Preference.read(part(run, "preferences") / "data" / f"iteration-{iteration}.parquet")
        files = sorted((run.path / f"iteration-{iteration}" / "pairs").rglob("pairs.parquet"))
        trained = Pair.read(*files)
        assert [(row.prompt_id, row.chosen[0]["content"], row.rejected_reward) for row in published] == [
            (pair.prompt_id, pair.chosen_text, pair.rejected_reward) for pair in trained
        ]
        assert {row.policy_sha256 for row in published} == {pair.policy_sha256 for pair in trained}
        assert all(len(digest) == 64 for row in published for digest in (row.scorer_sha256, row.reference_sha256))
        assert all(row.chosen_reward >= row.rejected_reward for row in published)


def test_the_pairs_are_rows_that_offline_training_takes(run: RunDirectory) -> None:
    row = Preference.read(part(run, "preferences") / "data" / "iteration-1.parquet")[0]
    document = {"messages": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
    assert parse_preference(document).prompt.prompt_id == row.prompt_id
    assert parse_preference(document).chosen == row.chosen[0]["content"]


def test_the_judgments_hold_the_answer_and_only_the_hash_of_the_baselines(run: RunDirectory) -> None:
    published = PublishedJudgment.read(part(run, "judgments") / "data" / "iteration-2.parquet")
    expected = Judgment.read(*sorted((run.path / "iteration-2" / "test" / "judgments").rglob("judgments.parquet")))
    rows = [row for row in published if row.set == "test"]
    assert [(row.prompt_id, row.decoding, row.preference) for row in rows] == [
        (row.prompt_id, row.decoding, row.preference) for row in expected
    ]
    base = Sample.read(*sorted((run.path / "base" / "test" / "answers").rglob("samples.parquet")))
    texts = {(row.prompt_id, row.decoding): row.text for row in base}
    for row in rows:
        text = texts[row.prompt_id, row.decoding]
        assert row.baseline_answer_sha256 == hashlib.sha256(text.encode()).hexdigest()
    columns = PublishedJudgment.schema().names
    assert "baseline_answer" not in columns


def test_the_licence_follows_from_the_ingredients(run: RunDirectory) -> None:
    for kind in ("preferences", "judgments"):
        card = DatasetCard.load(part(run, kind) / "README.md")
        assert card.data.license == "cc-by-4.0"
        assert "| prompts | prompts of the tests | cc-by-4.0 |" in card.text
        assert "| base | tiny | apache-2.0 |" in card.text
    assert "| evaluation prompts | eval.jsonl | mit |" in DatasetCard.load(part(run, "judgments") / "README.md").text


def test_a_licence_that_nobody_stated_stops_the_data_set(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "facts.yaml").write_text("license: apache-2.0\nbase_model: someone/tiny\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"The licence of the prompts is not stated") as caught:
        release(RunDirectory.open(tmp_path / "run"), tmp_path / "facts.yaml")
    assert "ingredients.prompts.license" in caught.value.hint


def test_evaluation_prompts_matter_only_where_they_are_shown() -> None:
    facts = Facts.model_validate({"ingredients": {"prompts": {"license": "mit"}, "base": {"license": "mit"}}})
    assert set(data_sets.ingredients("preferences", facts)) == {"prompts", "base"}
    assert set(data_sets.ingredients("judgments", facts, ["test"])) == {"prompts", "base"}
    assert set(data_sets.ingredients("judgments", facts, ["eval", "test"])) == {"prompts", "evaluation prompts", "base"}


def test_a_run_without_pairs_of_its_own_is_refused_before_any_work(run: RunDirectory) -> None:
    recipe = run.recipe.model_copy(update={"loop": run.recipe.loop.model_copy(update={"algorithm": "raft"})})
    with pytest.raises(ReleaseError, match="makes no preference pairs of its own"):
        data_sets.declare_data_sets(recipe, [], "")


@pytest.mark.parametrize("kind", ["preferences", "judgments"])
def test_the_python_block_of_the_card_reads_it(
    run: RunDirectory, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    text = (part(run, kind) / "README.md").read_text(encoding="utf-8")
    assert languages(text) == {"python", "bash"}
    (code,) = blocks(text, "python")
    capsys.readouterr()
    python(code.replace(f'"tester/tiny-{kind}"', repr(str(part(run, kind)))))
    shown = capsys.readouterr().out
    assert 0 <= float(shown) <= 100 if kind == "judgments" else shown.strip()


def test_without_an_owner_the_blocks_run_in_the_folder_of_the_card(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    copy = RunDirectory.open(shutil.copytree(run.path, tmp_path / "run"))
    release(copy, run.path.parent / "facts.yaml", repository=None)
    for kind in ("preferences", "judgments"):
        monkeypatch.chdir(part(copy, kind))
        card = Path("README.md").read_text(encoding="utf-8")
        assert "tester/" not in card
        (code,) = blocks(card, "bash")
        assert "files have their recorded sha256" in shell(code, part(copy, kind), {})
        (code,) = blocks(card, "python")
        capsys.readouterr()
        python(code)
        assert capsys.readouterr().out.strip()


def test_the_manifest_lists_everything_and_no_path_of_this_machine_is_in_it(run: RunDirectory) -> None:
    for kind in ("preferences", "judgments"):
        assert manifest.verify(part(run, kind)) == 3
        assert str(run.path) not in (part(run, kind) / "README.md").read_text(encoding="utf-8")


def test_copies_hold_the_data_sets_too(run: RunDirectory, tmp_path: Path) -> None:
    copied = copy_release(run.path / "release", "tiny", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in copied] == [
        "tiny-preferences/main",
        "tiny-judgments/main",
    ]


def test_they_become_data_sets_on_the_hub_and_the_cards_commands_verify_them(
    run: RunDirectory, hub: HubServer, tmp_path: Path
) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.write_token)
    wanted = releases.parts(run.path / "release", "tester/tiny")
    assert [(entry.repository, entry.repo_type) for entry in wanted] == [
        ("tester/tiny-preferences", "dataset"),
        ("tester/tiny-judgments", "dataset"),
    ]
    commits = releases.publish(api, wanted, public=False, report=lambda line: None)
    assert api.repo_info("tester/tiny-preferences", repo_type="dataset").sha == commits[0]
    assert releases.publish(api, wanted, public=False, report=lambda line: None) == commits
    (code,) = blocks((part(run, "preferences") / "README.md").read_text(encoding="utf-8"), "bash")
    shown = shell(code, tmp_path, dict(hub.environment))
    assert "3 files have their recorded sha256" in shown


def test_what_the_recipe_no_longer_wants_is_not_declared(run: RunDirectory) -> None:
    recipe = run.recipe.model_copy(update={"release": run.recipe.release.model_copy(update={"datasets": ()})})
    assert data_sets.declare_data_sets(recipe, [], "") == []


def test_poisoned_facts_stay_text_in_the_cards_of_data_sets(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    poisoned = RunDirectory.open(tmp_path / "run")
    found = yaml.safe_load(FACTS)
    found["ingredients"]["prompts"]["name"] = POISON
    found["ingredients"]["evaluation_prompts"]["name"] = POISON
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
    release(poisoned, tmp_path / "facts.yaml")
    for kind in ("preferences", "judgments"):
        before, after = ((part(one, kind) / "README.md").read_text(encoding="utf-8") for one in (run, poisoned))
        assert after != before
        assert structure(after) == structure(before)
