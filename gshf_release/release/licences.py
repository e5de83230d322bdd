"""Licences: the identifiers that the Hub knows, what each asks of those who pass the work on, and which may follow from which.

The order of permissiveness is inclusion: a licence is at least as strict as another if it asks for everything that the other
asks for. `mit` < `cc-by-nc-4.0` and `lgpl-3.0` < `gpl-3.0` < `agpl-3.0`; `cc-by-sa-4.0` and `cc-by-nc-4.0` stand beside each
other, so that what is made of both needs terms of its own. Versions of one family count as equal. It is a check against slips,
not legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gshf_release.errors import ReleaseError

SOURCE = "https://huggingface.co/docs/hub/repositories-licenses"
DATE = "2026-08-22"
"""Of the snapshot of the Hub's documentation (hub-docs 242f4a1) that the identifiers were taken from."""

NOTICE = "the notice of its authors"
NON_COMMERCIAL = "non-commercial use only"
NO_DERIVATIVES = "no derived works"

_GROUPS: dict[tuple[str, ...], str] = {
    (): "cc0-1.0 pddl unlicense wtfpl",
    (NOTICE,): """
        afl-3.0 apache-2.0 apple-ascl artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5
        cc-by-3.0 cc-by-4.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-2.0 etalab-2.0 isc lppl-1.3c mit ms-pl ncsa odc-by
        openmdw-1.0 postgresql zlib
    """,
    (NOTICE, "share-alike under CC BY-SA"): "cc-by-sa-3.0 cc-by-sa-4.0",
    (NOTICE, "share-alike under the CDLA"): "cdla-sharing-1.0",
    (NOTICE, "share-alike under the EPL"): "epl-1.0 epl-2.0",
    (NOTICE, "share-alike under the EUPL"): "eupl-1.1 eupl-1.2",
    (NOTICE, "share-alike under the GFDL"): "gfdl",
    (NOTICE, "share-alike under the MPL"): "mpl-2.0",
    (NOTICE, "share-alike under the ODbL"): "odbl",
    (NOTICE, "share-alike under the OFL"): "ofl-1.1",
    (NOTICE, "share-alike under the OSL"): "osl-3.0",
    (NOTICE, "share-alike under the LGPL-LR"): "lgpl-lr",
    (NOTICE, "share-alike under the LGPL"): "lgpl lgpl-2.1 lgpl-3.0",
    (NOTICE, "share-alike under the LGPL", "share-alike under the GPL"): "gpl gpl-2.0 gpl-3.0",
    (NOTICE, "share-alike under the LGPL", "share-alike under the GPL", "source for users over a network"): "agpl-3.0",
    (NOTICE, NON_COMMERCIAL): "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0",
    (NOTICE, NON_COMMERCIAL, "share-alike under CC BY-NC-SA"): "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0",
    (NOTICE, NO_DERIVATIVES): "cc-by-nd-4.0",
    (NOTICE, NON_COMMERCIAL, NO_DERIVATIVES): "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
}
_OWN_TERMS = """
    bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m c-uda creativeml-openrail-m gemma grok2-community llama2
    llama3 llama3.1 llama3.2 llama3.3 llama4 openrail openrail++
"""
"""Restrict use in words of their own, which must be passed on: only the same licence carries them."""
_OWN_TERMS_NON_COMMERCIAL = (
    "apple-amlr deepfloyd-if-license fair-noncommercial-research-license h-research intel-research"
)

ASKS: dict[str, frozenset[str]] = {
    **{name: frozenset(asked) for asked, names in _GROUPS.items() for name in names.split()},
    **{name: frozenset((NOTICE, f"the terms of {name}")) for name in _OWN_TERMS.split()},
    **{name: frozenset((NOTICE, f"the terms of {name}", NON_COMMERCIAL)) for name in _OWN_TERMS_NON_COMMERCIAL.split()},
}
"""What a licence asks of whoever passes the work on."""

UNCOMPARABLE = frozenset(("cc", "other", "unknown"))
"""Known to the Hub, but they do not say what they ask."""

LICENCES = frozenset(ASKS) | UNCOMPARABLE
"""Every identifier that the Hub knows."""


def check(licence: str, ingredients: Mapping[str, str | None]) -> list[str]:
    """Refuse a licence that is laxer than what the work was made of; return the ingredients that could not be compared.

    Args:
        licence: Of the release.
        ingredients: `{what it is: its licence}`; None if nobody states one.

    Raises:
        ReleaseError: Names the ingredient, what it asks, and licences that would do.
    """
    compared = {name: found for name, found in ingredients.items() if found is not None and found in ASKS}
    for name, found in compared.items():
        if NO_DERIVATIVES in ASKS[found]:
            raise ReleaseError(f"The licence of the {name}, {found}, allows no derived works.", hint="Use another.")
        missing = sorted(ASKS[found] - ASKS.get(licence, ASKS[found]))
        if missing:
            raise ReleaseError(
                f"license {licence!r} is laxer than that of the {name}, {found}: it does not ask for {' and '.join(missing)}.",
                hint=_suggestion(compared.values()),
            )
    return [name for name in ingredients if name not in compared or licence not in ASKS]


def derive(ingredients: Mapping[str, str | None]) -> str:
    """Return the most permissive licence that is not laxer than any ingredient, one of theirs where that will do.

    Raises:
        ReleaseError: An ingredient's licence is not stated or cannot be compared, or none covers them all.
    """
    for name, found in ingredients.items():
        if found is None or found not in ASKS:
            raise ReleaseError(
                f"The licence of the {name} is {found or 'not stated'}, so that of data made of it cannot be derived.",
                hint=f"State ingredients.{name.replace(' ', '_')}.license in the facts file, or leave the data set out.",
            )
        if NO_DERIVATIVES in ASKS[found]:
            raise ReleaseError(f"The licence of the {name}, {found}, allows no derived works.", hint="Use another.")
    names = [str(found) for found in ingredients.values()]
    fitting = covering(names)
    if not fitting:
        raise ReleaseError(f"No licence asks for all that {' and '.join(dict.fromkeys(names))} ask for.")
    least = len(ASKS[fitting[0]])
    own = [name for name in names if name in fitting and len(ASKS[name]) == least]
    return own[0] if own else fitting[0]


def covering(ingredients: Iterable[str]) -> list[str]:
    """Return the licences that ask for all that some licences ask for, the most permissive first."""
    asked = frozenset[str]().union(*(ASKS[name] for name in ingredients))
    return sorted((name for name in ASKS if asked <= ASKS[name]), key=lambda name: (len(ASKS[name]), name))


def _suggestion(ingredients: Iterable[str]) -> str:
    names = list(ingredients)
    fitting = [name for name in covering(names) if len(ASKS[name]) == len(ASKS[covering(names)[0]])]
    if not fitting:
        return "No licence of the Hub's list fits; write `license: other` with license_name and license_link."
    ours = [name for name in fitting if name in names] or fitting
    return f"Not laxer is: {', '.join(ours[:4])}."
