"""Names that are private to a library and needed all the same: a version without them is refused in one line.

Each is touched in one file: TRL's in `optimization/trl_internals.py`, transformers' in `optimization/fsdp.py` and
`models/packing.py`, huggingface_hub's in `hub/client.py`. pyproject.toml bounds their versions, constraints.txt has those that
were tested.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from gshf_release.errors import RunError


def require_internals(library: str, owner: Any, *names: str, consequence: str) -> None:
    """Check that private names of a library are there.

    Args:
        library: Its name on the package index.
        owner: The module, class or object that has them.
        names: The private names.
        consequence: What would happen without them, as a clause.

    Raises:
        RunError: The installed version lacks some.
    """
    if missing := [name for name in names if not hasattr(owner, name)]:
        raise RunError(
            f"{library} {version(library)} has no {', '.join(missing)}, without which {consequence}.",
            hint="Install the version of constraints.txt.",
        )
