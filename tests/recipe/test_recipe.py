"""The two files a user writes: every mistake is one line that names the key and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gshf_release import recipe
from gshf_release.errors import RecipeError
from gshf_release.recipe import Recipe, parse, profile
from gshf_release.recipe.profile import Profile

MINIMAL = "name: small\nbase:\n  model: base-model\nreward:\n  model: r\nevaluation:\n  second_scorer:\n    model: s\n"


def written(tmp_path: Path, text: str = MINIMAL) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(tmp_path: Path, text: str = MINIMAL, *overrides: str) -> str:
    """Return the one line with which a recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        recipe.load(written(tmp_path, text), overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_defaults_are_those_of_the_paper(tmp_path: Path) -> None:
    loaded = recipe.load(written(tmp_path))
    assert (loaded.loop.iterations, loaded.prompts.roles.per_iteration) == (3, 20_000)
    assert (loaded.sampling.n, loaded.sampling.temperatures) == (8, (1.0, 0.7))
    assert (loaded.training.beta, loaded.training.learning_rate) == (0.1, 5e-7)
    assert (loaded.training.epochs, loaded.training.batch_pairs, loaded.training.schedule) == (2, 128, "cosine")
    assert (loaded.loop.init, loaded.loop.reference) == ("previous", "base")


def test_half_of_the_responses_get_each_temperature(tmp_path: Path) -> None:
    sampling = recipe.load(written(tmp_path)).sampling
    assert [sampling.temperature(index) for index in range(4)] == [1.0, 0.7, 1.0, 0.7]


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("trainig: {}\n", "did you mean 'training'?"),
        ("training:\n  bta: 0.1\n", "did you mean 'training.beta'?"),
        ("beta: 0.1\n", "did you mean 'training.beta'?"),
        ("prompts:\n  roles:\n    tests: 5\n", "did you mean 'prompts.roles.test'?"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, unknown: str, nearest: str) -> None:
    assert nearest in refusal(tmp_path, MINIMAL + unknown)


def test_an_unknown_key_like_no_other_lists_the_valid_ones(tmp_path: Path) -> None:
    line = refusal(tmp_path, MINIMAL + "loop:\n  xyzzyq: 1\n")
    assert "'loop.xyzzyq'" in line
    assert "iterations, init, reference, reference_revision, history" in line


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    line = refusal(tmp_path, MINIMAL + "sampling: {n: 1}\ntraining: {epochs: 0}\n")
    assert "sampling.n" in line
    assert "training.epochs" in line


@pytest.mark.parametrize(
    "override",
    [
        "sampling.n=1",
        "sampling.temperatures=[0]",
        "sampling.temperatures=[]",
        "sampling.top_p=0",
        "sampling.top_p=1.1",
        "sampling.top_k=-1",
        "sampling.max_new_tokens=0",
        "loop.iterations=0",
        "loop.algorithm=ppo",
        "training.beta=0",
        "training.beta=.nan",
        "training.beta=.inf",
        "training.warmup_share=1",
        "training.batch_pairs=2.5",
        "pairs.minimum_margin=-0.1",
        "reward.contrasts.held_out=1",
        "reward.contrasts.kinds=[]",
        "reward.contrasts.kinds=[upside_down]",
        "prompts.roles.validation=0",
        "seed=-1",
        "name=Not A Name",
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(tmp_path: Path, override: str) -> None:
    assert override.partition("=")[0] in refusal(tmp_path, MINIMAL, override)


def test_every_kind_of_contrast_that_a_recipe_may_name_can_be_made() -> None:
    from typing import get_args

    from gshf_release.rewards.contrasts import KINDS

    (kinds,) = (get_args(argument) for argument in get_args(recipe.Contrasts.model_fields["kinds"].annotation)[:1])
    assert set(kinds) <= set(KINDS)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "key 'base.model' is missing" in refusal(tmp_path, "name: small\nbase: {}\n")


def test_a_moving_reference_refuses_old_pairs(tmp_path: Path) -> None:
    line = refusal(tmp_path, MINIMAL, "loop.reference=previous", "loop.history=all")
    assert "loop: reference 'previous' needs history 'current'" in line


def test_a_trained_stand_in_needs_prompts(tmp_path: Path) -> None:
    assert "prompts.roles.reward of at least 8, not 0" in refusal(tmp_path, MINIMAL, "reward.model=null")


@pytest.mark.parametrize("text", ["name: [unclosed\nbase: {", "a: b: c\n", "\tname: tab\n"])
def test_broken_yaml_is_one_line_with_the_path(tmp_path: Path, text: str) -> None:
    line = refusal(tmp_path, text)
    assert "recipe.yaml is not valid YAML" in line
    assert "line" in line


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    assert "must hold keys and values" in refusal(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(RecipeError, match="not valid YAML"):
        recipe.load(str(tmp_path / "recipe.yaml"))


def test_a_name_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(RecipeError, match="neither a file nor a name in training/recipes"):
        recipe.load("no-such-recipe")


def test_an_override_beats_the_file(tmp_path: Path) -> None:
    loaded = recipe.load(written(tmp_path), ("loop.iterations=5", "sampling.temperatures=[0.5]", "prompts.source=mine"))
    assert loaded.loop.iterations == 5
    assert loaded.sampling.temperatures == (0.5,)
    assert loaded.prompts.source == "mine"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("loop.iterations", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("name.first=x", "is a value, not a section"),
        ("loop.iteration=3", "did you mean 'loop.iterations'?"),
        ("sampling.temperatures=[1.0", "--set"),
    ],
)
def test_a_bad_override_is_one_line(tmp_path: Path, override: str, reason: str) -> None:
    assert reason in refusal(tmp_path, MINIMAL, override)


def test_the_hash_ignores_order_comments_and_number_format(tmp_path: Path) -> None:
    text = "# a comment\nseed: 1\nname: small\ntraining: {beta: 0.1, epochs: 2}\nbase: {model: m}\n"
    other = "base:\n  model: m  # here\ntraining:\n  epochs: 2\n  beta: 1.0e-1\nname: 'small'\nseed: 1\n"
    scorers = "reward: {model: r}\nevaluation: {second_scorer: {model: s}}\n"
    first = recipe.load(written(tmp_path, text + scorers)).sha256
    assert recipe.load(written(tmp_path, scorers + other)).sha256 == first


def test_the_hash_ignores_whether_a_default_is_spelled_out(tmp_path: Path) -> None:
    spelled = recipe.load(written(tmp_path), ("training.beta=0.1",))
    assert recipe.load(written(tmp_path)).sha256 == spelled.sha256


def test_the_hash_follows_a_value(tmp_path: Path) -> None:
    changed = recipe.load(written(tmp_path), ("training.beta=0.2",))
    assert recipe.load(written(tmp_path)).sha256 != changed.sha256


def test_scientific_notation_without_a_dot_is_a_number(tmp_path: Path) -> None:
    assert recipe.load(written(tmp_path, MINIMAL + "training: {learning_rate: 5e-7}\n")).training.learning_rate == 5e-7


def test_a_dotted_key_gives_its_json_value(tmp_path: Path) -> None:
    loaded = recipe.load(written(tmp_path))
    assert loaded.value("sampling.temperatures") == [1.0, 0.7]
    with pytest.raises(KeyError):
        loaded.value("sampling.nonsense")


def test_a_recipe_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        recipe.load(written(tmp_path)).seed = 3  # type: ignore[misc]


def test_a_profile_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsampling_batch: 8\nstages: worker\n", encoding="utf-8")
    loaded = profile.load(str(path))
    assert (loaded.name, loaded.sampling_batch, loaded.stages) == ("mine", 8, "worker")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"devise": "cpu"}, "did you mean 'device'?"),
        ({"device": "tpu"}, "device: "),
        ({"parallel_workers": 0}, "parallel_workers: "),
        ({"threads": 0}, "threads: "),
    ],
)
def test_a_bad_profile_is_one_line(content: dict[str, object], reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(Profile, content, "profile")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_is_no_part_of_a_recipe() -> None:
    assert not set(Profile.model_fields) & set(Recipe.model_fields) - {"name"}
