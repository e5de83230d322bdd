"""The date of a run, for chat templates that write it into prompts: the same on every day, in every process, for every seed.

It is written into `run.json` when a template first asks, so that runs whose templates write no date hold none. It is the moment
when the run began: a run that is resumed or verified on another day gives the same token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache

from gshf_release.errors import RunError
from gshf_release.run.directory import DOCUMENT, RunDirectory, seed_runs, write_json

KEY = "date"


def clock(run: RunDirectory, *, record: bool = True) -> Callable[[], datetime]:
    """Return the clock of a run: it tells one moment, looked up when it is first asked.

    Args:
        run: The run.
        record: Write the moment down if it is not yet; a reader, such as `verify`, does not.
    """
    return cache(lambda: _moment(run, record))


def recorded(run: RunDirectory) -> datetime | None:
    """Return the date that the run has written down, or None.

    Raises:
        RunError: It is no date.
    """
    text = run.document.get(KEY)
    try:
        return None if text is None else datetime.fromisoformat(str(text))
    except ValueError as error:
        raise RunError(f"{run.path / DOCUMENT}: {text!r} is no date.", hint="Restore the file.") from error


def _moment(run: RunDirectory, record: bool) -> datetime:
    known = recorded(run)
    if known is not None:
        return known
    if not record:
        return _beginning(run)
    with run.short_lock(KEY):
        known = recorded(run)  # another process may have been first
        if known is None:
            known = _beginning(run)
            write_json(run.path / DOCUMENT, {**run.document, KEY: known.isoformat(timespec="seconds")})
            run.log("date written down for the chat template", date=known.isoformat(timespec="seconds"))
    return known


def _beginning(run: RunDirectory) -> datetime:
    """Return when the run, or the first of the runs that share a parent as its seeds, began."""
    siblings = seed_runs(run.path.resolve().parent) if run.path.resolve().name.startswith("seed-") else {}
    shared = [date for path in siblings.values() if (date := recorded(RunDirectory(path))) is not None]
    if shared:
        return min(shared)
    times = (entry.get("time") for entry in run.journal())
    first = next((time for time in times if isinstance(time, int | float)), None)
    return (datetime.now() if first is None else datetime.fromtimestamp(first)).replace(microsecond=0)
