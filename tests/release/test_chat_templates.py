"""A chat template that is not the base model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from gshf_release.errors import ReleaseError
from gshf_release.release import chat_templates
from tests.release import made


def test_a_changed_template_is_refused_unless_declared(tmp_path: Path) -> None:
    folder = made.checkpoint(tmp_path / "made")
    chat_templates.check_against_base(folder, made.TEMPLATE, None)
    other = "{{ bos_token }}" + made.TEMPLATE
    with pytest.raises(ReleaseError, match=r"differs from the base model's from character \d+ on") as caught:
        chat_templates.check_against_base(folder, other, None)
    assert "release.template_change" in str(caught.value)
    chat_templates.check_against_base(folder, other, "The base's ends no turn.")


def test_a_template_where_the_base_has_none_is_refused_unless_declared(tmp_path: Path) -> None:
    folder = made.checkpoint(tmp_path / "made")
    with pytest.raises(ReleaseError, match="differs from the base model's from character 0 on"):
        chat_templates.check_against_base(folder, None, None)
    chat_templates.check_against_base(folder, None, "The base has none.")
