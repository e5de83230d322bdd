"""doctor, --plan, prefetch and train go through one list of checks and give the same exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gshf_release.planning import preflight
from gshf_release.recipe import Recipe, parse
from tests import tiny
from tests.conftest import Outcome

Command = Callable[..., Outcome]
COMMANDS = (("doctor",), ("train", "--plan"), ("prefetch",), ("train",))
LISTS = "{% for m in messages %}{% if m.content is not string %}{{ m.content[0].text }}{% endif %}</s>{% endfor %}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
OPEN_END = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<s>\n{% endfor %}"
DATED = "{{ strftime_now('%d %b %Y') }}" + tiny.TEMPLATE


@pytest.fixture
def made(tmp_path: Path, one_thread: None) -> Callable[..., Path]:
    """Return what writes a recipe whose base, or another of its models, has a template."""

    def write(template: str | None, name: str = "tiny", **changes: Any) -> Path:
        content = tiny.recipe(tmp_path, **changes)
        if template is None:
            (tmp_path / name / "chat_template.jinja").unlink()
        else:
            tiny.retemplate(tmp_path / name, template)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize(
    ("template", "name", "reason"),
    [
        (LISTS, "tiny", "tiny/chat_template.jinja loses words: none of the words of the user's earlier turn"),
        ("{% for m in messages %}", "tiny", "is no valid Jinja: line 1"),
        (None, "tiny", "has no chat template. Use an instruction-tuned base model"),
        (OPEN_END, "tiny", "ends an answer with '<s>' (token 1), which is no stop token"),
        (LISTS, "reward", "reward/chat_template.jinja loses words"),
    ],
)
def test_a_template_that_cannot_be_used_ends_every_command_before_any_work(
    command: Command,
    made: Callable[..., Path],
    tmp_path: Path,
    words: Any,
    template: str | None,
    name: str,
    reason: str,
) -> None:
    first, *options = words
    run = ["--run", tmp_path / "run"] if first == "train" else []
    found = command(first, made(template, name), *options, *run)
    assert found.code == 1
    assert reason in (found.out if first == "doctor" else found.err.strip().splitlines()[-1])
    assert not (tmp_path / "run").exists()


def findings(path: Path) -> list[preflight.Finding]:
    return preflight.findings(parse(Recipe, yaml.safe_load(path.read_text(encoding="utf-8")), "made"))


def test_what_is_well_is_said_so(made: Callable[..., Path]) -> None:
    found = findings(made(tiny.TEMPLATE))
    assert [finding.what for finding in found] == [
        *("base template", "reward template", "second-scorer template"),
        *("prompts.source", "evaluation.prompts"),
    ]
    assert all(finding.ok and not finding.warning for finding in found)


def test_a_system_turn_counts_where_the_recipe_or_a_prompt_has_one(made: Callable[..., Path], tmp_path: Path) -> None:
    assert all(finding.ok for finding in findings(made(NO_SYSTEM)))
    prompts = tiny.recipe(tmp_path)["prompts"]
    assert "System role not supported" in findings(made(NO_SYSTEM, prompts=prompts | {"system": "Be brief."}))[0].found
    assert findings(made(NO_SYSTEM, prompts=prompts | {"system": "Be brief.", "fold_system": True}))[0].ok
    turns = '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why?"}]}\n'
    with (tmp_path / "prompts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(turns)
    assert "prompts.fold_system" in findings(made(NO_SYSTEM))[0].found


def test_a_model_that_is_not_here_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    content = tiny.recipe(tmp_path, base={"model": "someone/nowhere"})
    found = preflight.findings(parse(Recipe, content, "made"))
    assert (found[0].found, found[0].ok) == ("not checked: someone/nowhere is not here", True)


def test_a_date_is_said_and_stops_nothing(command: Command, made: Callable[..., Path], tmp_path: Path) -> None:
    path = made(DATED)
    assert [finding.ok for finding in findings(path) if "the date" in finding.found] == [True]
    assert (
        "base template: Warning: it writes the date" in command("train", path, "--plan", "--run", tmp_path / "run").out
    )


def test_end_tokens_are_those_of_the_files(made: Callable[..., Path], tmp_path: Path) -> None:
    """The list of `generation_config.json` counts, as it does in the engines."""
    path = made(OPEN_END)
    config = tmp_path / "tiny" / "generation_config.json"
    config.write_text('{"eos_token_id": [1, 2]}', encoding="utf-8")
    assert findings(path)[0].ok


def _prompts_from(folder: Path, name: str) -> dict[str, Any]:
    return dict(tiny.recipe(folder)["prompts"]) | {"source": str(folder / name)}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_row_that_cannot_be_read_ends_every_command_before_any_work(
    command: Command, made: Callable[..., Path], tmp_path: Path, words: Any
) -> None:
    path = made(tiny.TEMPLATE, prompts=_prompts_from(tmp_path, "bad.jsonl"))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Why?"}\n{"prompt": "Why?", "tools": [{"name": "search"}]}\n')
    first, *options = words
    found = command(first, path, *options, *(["--run", tmp_path / "run"] if first == "train" else []))
    assert found.code == 1
    assert "bad.jsonl:2: " in (found.out if first == "doctor" else found.err.strip().splitlines()[-1])
    assert not (tmp_path / "run").exists()


def test_prompts_that_are_not_here_are_not_checked(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made(tiny.TEMPLATE, prompts=_prompts_from(tmp_path, "nowhere.jsonl"))
    (found,) = [finding for finding in findings(path) if finding.what == "prompts.source"]
    assert found.ok
    assert found.found.startswith("not checked: ")
