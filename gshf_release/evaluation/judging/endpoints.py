"""Endpoints that a user's key may be sent to: those that the user has named, never one that only a run from elsewhere names.

A run remembers its judges with their addresses, so that a later command asks them again. The run may be anybody's, and with it
the address and the name of the variable whose value is sent there. An endpoint is the user's if it was given in a command or
in a file outside the run, or ships with the package. It is then noted in the user's cache for all runs, so a moved one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from gshf_release.data import assets
from gshf_release.data.hashing import sha256_json
from gshf_release.errors import EngineError, GshfError
from gshf_release.evaluation import benchmarks
from gshf_release.evaluation.judging import judges
from gshf_release.evaluation.judging.judges import JudgeSettings
from gshf_release.recipe import Recipe
from gshf_release.recipe.profile import Server
from gshf_release.run.directory import write_json

FOLDER = "trusted-endpoints"
ADDRESS = "endpoint.address="


def remember(server: Server) -> None:
    """Note that the user sends the key of this variable to this address."""
    if not is_known(server):
        write_json(_note(server), {"address": server.address, "key_variable": server.key_variable})


def is_known(server: Server) -> bool:
    """Return whether the user has named an endpoint, or it ships with the package."""
    return _note(server).is_file() or _identity(server) in _shipped(assets.shipped())


def require(judge: JudgeSettings) -> None:
    """Refuse a judge at an endpoint that only a run names.

    Raises:
        EngineError: Names the address, the variable and the ways out.
    """
    if not is_known(judge.endpoint):
        raise EngineError(
            f"Only the run says that its judge {judge.name} is at {judge.endpoint.address}, with the key in "
            f"${judge.endpoint.key_variable}; nothing is sent there.",
            hint="If it is your server, name it: --benchmark NAME --judge FILE, or with --set-judge endpoint.address=ADDRESS. "
            "Or trust all that the run names: eval RUN --trust-code.",
        )


def is_given(judge: str | None, overrides: Sequence[str], benchmark: str | None, named: str) -> bool:
    """Return whether the user, not a run, says where a judge is.

    Args:
        judge: The judge that the command names, if it does.
        overrides: The command's `key=value` of the judge's settings.
        benchmark: The benchmark that the command or the user's recipe names; None where only a run names it.
        named: The judge that the benchmark's file names.
    """
    if any(override.startswith(ADDRESS) for override in overrides):
        return True
    path = _outside(judge or named, judges.FOLDER)
    if path is None:
        return False  # the run's copy alone
    if judge is not None or _is_asset(path):
        return True
    return benchmark is not None and _outside(benchmark, benchmarks.FOLDER) is not None


def remember_recipe(recipe: Recipe) -> None:
    """Note the endpoints of the judges that the benchmarks of the user's recipe name."""
    for reference in recipe.evaluation.benchmarks:
        if _outside(reference, benchmarks.FOLDER) is None:
            continue
        named = benchmarks.load_benchmark(reference).judge
        if is_given(None, (), reference, named):
            settings = judges.load(named)
            if settings.endpoint.address is not None:
                remember(settings.endpoint)


def _outside(reference: str, folder: str) -> Path | None:
    """Return the file of an asset that is no copy in a run, or None."""
    try:
        return assets.find(reference, folder, ".yaml")
    except GshfError:
        return None


def _is_asset(path: Path) -> bool:
    """Return whether a judge's file lies in eval/judges of the package or of the user's project."""
    return any(path.parent.absolute() == (root / judges.FOLDER).absolute() for root in assets.roots())


@lru_cache(maxsize=2)
def _shipped(root: Path) -> frozenset[tuple[str, str]]:
    files = sorted((root / judges.FOLDER).glob("*.yaml"))
    return frozenset(_identity(judges.load(str(file)).endpoint) for file in files)


def _identity(server: Server) -> tuple[str, str]:
    return (server.address or "").rstrip("/"), server.key_variable


def _note(server: Server) -> Path:
    return assets.cache_folder() / FOLDER / f"{sha256_json(list(_identity(server)))[:32]}.json"
