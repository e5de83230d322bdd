"""The sandbox and its filters: poisoned values are text, and a template gets no further than its values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gshf_release.data import assets
from gshf_release.errors import ReleaseError
from gshf_release.release import card_templates
from gshf_release.release.card_templates import code_span, escape_bibtex, escape_text
from gshf_release.run.directory import RunDirectory

TRAVERSAL = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


def own_template(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> str:
    (folder / "model_cards").mkdir()
    (folder / "model_cards" / "own.md.j2").write_text(content, encoding="utf-8")
    (folder / assets.MARKER).touch()
    monkeypatch.chdir(folder)
    return "own.md.j2"


@pytest.mark.parametrize(
    "content",
    [
        TRAVERSAL,
        "{{ value.__class__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ''|attr('__class__') }}",
        "{% set _ = found.append(1) %}",
        "{{ missing }}",
        "{% if %}",
        "{% include '../../../etc/hostname' %}",
    ],
)
def test_a_template_that_reaches_out_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    name = own_template(tmp_path, monkeypatch, content)
    with pytest.raises(ReleaseError, match=r"^model_cards/own\.md\.j2 cannot be rendered: "):
        card_templates.render(name, {"value": "x", "found": []})


@pytest.mark.parametrize("value", [TRAVERSAL, "{% raw %}", "{{ 7 * 7 }}", "{# gone #}"])
def test_a_value_is_never_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    name = own_template(tmp_path, monkeypatch, "{{ value | code }}")
    assert card_templates.render(name, {"value": value}) == f"`{value}`"


def test_a_run_keeps_the_templates_of_its_project_for_when_it_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = own_template(tmp_path, monkeypatch, "first")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    card_templates.keep_card_templates(run)
    assert card_templates.kept_card_templates(run) is None, "the project's own count while we stand in it"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copy = card_templates.kept_card_templates(run)
    assert card_templates.render(name, {}, copy) == "first"
    assert name in [path.name for path in card_templates.files(copy)]
    assert name not in [path.name for path in card_templates.files()]


@given(st.text())
def test_any_value_is_one_paragraph_of_text_alone(value: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(escape_text(value))
    assert [token.type for token in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "text_special", "entity"}


@given(st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()))
def test_any_value_is_one_code_span(value: str) -> None:
    (paragraph,) = [token for token in MarkdownIt().parse(f"x {code_span(value)} y") if token.type == "inline"]
    first, code, last = paragraph.children or []
    assert (first.content, code.type, last.content) == ("x ", "code_inline", " y")
    assert code.content.strip() == " ".join(value.split()).replace("|", "¦")


@given(st.text(), st.text())
def test_any_value_is_one_table_cell(value: str, other: str) -> None:
    text = f"| a | b |\n| --- | --- |\n| {escape_text(value)} | {code_span(other)} |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    assert [token.type for token in tokens].count("td_open") == 2
    assert [token.type for token in tokens].count("tr_open") == 2


@pytest.mark.parametrize("value", ["a} , b = {c", "x\n```\n# y", "\\input{z}", "`"])
def test_nothing_closes_the_field_of_a_bibliography(value: str) -> None:
    assert not set("{}\\`\n") & set(escape_bibtex(value))
