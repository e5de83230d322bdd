"""Render cards from the templates of model_cards/ in a sandbox, with filters that keep values plain text.

Values are never templates. Each filter is for one place: `text` in a paragraph or heading, `table` for a whole table, `code`
for a code span, `bibtex` inside an entry of a bibliography, `literal` for a string of Python.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gshf_release.data import assets
from gshf_release.errors import ReleaseError
from gshf_release.report import tables
from gshf_release.run import input_copies
from gshf_release.run.directory import RunDirectory

FOLDER = "model_cards"
SUFFIX = ".md.j2"


def render(template: str, values: dict[str, Any], copy: Path | None = None) -> str:
    """Return a template of model_cards/ with `values` filled in.

    Args:
        template: The file's name.
        values: What it may show.
        copy: A run's copy of the templates, as `kept_card_templates` returns it.

    Raises:
        ReleaseError: The template is broken, misses a value, or reaches for what the sandbox does not give.
    """
    from jinja2 import TemplateError

    try:
        return str(environment(copy).get_template(template).render(values))
    except TemplateError as error:
        reason = " ".join(str(error).split())
        raise ReleaseError(
            f"model_cards/{template} cannot be rendered: {reason}.",
            hint="Compare it with the template that is shipped.",
        ) from error


def environment(copy: Path | None = None) -> Any:
    """Return the sandbox with its filters, for the templates of `folders`."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folders(copy)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "text": escape_text,
        "code": code_span,
        "bibtex": escape_bibtex,
        "table": tables.markdown,
        "literal": literal,
    }
    return made


def keep_card_templates(run: RunDirectory) -> None:
    """Copy the templates of the project we stand in into the run: its cards are written with them wherever it is moved."""
    own = assets.project()
    if own is not None and (own / FOLDER).is_dir():
        input_copies.keep_input(run, FOLDER, FOLDER, own / FOLDER)


def kept_card_templates(run: RunDirectory | None) -> Path | None:
    """Return the run's copy of a project's templates, unless we stand in a project, whose own then count."""
    return None if run is None or assets.project() is not None else input_copies.kept_input(run, FOLDER, FOLDER)


def folders(copy: Path | None = None) -> list[Path]:
    """Return where templates are looked for, a run's copy first."""
    return [*([] if copy is None else [copy]), *(root / FOLDER for root in assets.roots())]


def files(copy: Path | None = None) -> list[Path]:
    """Return every template in order of its name, those that others include among them."""
    found = {path.name: path for folder in reversed(folders(copy)) for path in folder.glob(f"*{SUFFIX}")}
    return [found[name] for name in sorted(found)]


def escape_text(value: Any) -> str:
    """Return a value as plain text inside one Markdown paragraph: it opens no block, link, tag, formula or code."""
    text = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", " ".join(_printable(value).split()))
    text = re.sub(r"^([-+=]|\d+(?=[.)]))", r"\\\1" if not text[:1].isdigit() else r"\1\\", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def code_span(value: Any) -> str:
    """Return a value as a code span, also inside a table: backticks get a longer fence, a pipe becomes a broken bar."""
    text = " ".join(_printable(value).split()).replace("|", "¦")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if text[:1] == "`" or text[-1:] == "`" or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def escape_bibtex(value: Any) -> str:
    """Return a value for a braced BibTeX field inside a code block: no brace, backslash, backtick or newline remains."""
    return re.sub(r"[{}\\`]", "", " ".join(_printable(value).split()))


def literal(value: Any) -> str:
    """Return a text as a string literal of Python on one line, so that no fence can end the code block around it."""
    return json.dumps(str(value), ensure_ascii=False)


def _printable(value: Any) -> str:
    """Return the text without control characters; separators of any kind become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))
