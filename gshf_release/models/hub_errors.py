"""Translate errors of downloads from the Hub into one line that says who has to do what."""

from __future__ import annotations

from gshf_release.errors import CheckpointError, GshfError, NetworkError, first_line

ACCESS = "A private or gated {what} needs a token that may read it: hf auth login (or HF_TOKEN)"
REFUSALS = (401, 403)


def download_error(error: Exception, name: str, revision: str | None, *, offline: bool, what: str) -> GshfError:
    """Return the library's error as ours.

    Args:
        error: What `snapshot_download` raised.
        name: `OWNER/NAME`.
        revision: Branch, tag or commit.
        offline: Whether only the cache was asked.
        what: `model` or `dataset`.
    """
    from huggingface_hub import errors

    known = _about_the_name(error, name, revision, what)
    if known is not None:
        return known
    if offline:
        return CheckpointError(
            f"{name!r} is no local path, and it has not been fetched from the Hub.",
            hint="Run: gshf-release prefetch RECIPE",
        )
    status = _status(error)
    if status in REFUSALS:
        return NetworkError(
            f"The Hub refused {name!r} with status {status}: no token, or one that may not read this {what}.",
            hint=ACCESS.format(what=what),
        )
    if status is not None:
        return NetworkError(f"The Hub answered {status} for {name!r}.", hint="Run it again.")
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError) or _hung_up(error):
        return NetworkError(
            f"The Hub could not be reached for {name!r}: {_reason(error)}.", hint="Check the network and run it again."
        )
    if isinstance(error, OSError):
        return NetworkError(f"The Hub did not answer for {name!r}: {first_line(error)}.", hint="Run it again.")
    return NetworkError(
        f"What answered for {name!r} is not the Hub: its answer cannot be read ({type(error).__name__}).",
        hint="A proxy or a login page may stand in between; check the network and HF_ENDPOINT, and run it again.",
    )


def _about_the_name(error: Exception, name: str, revision: str | None, what: str) -> GshfError | None:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{name!r} is neither an existing path nor a Hub id.")
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{name!r} is gated, and this token has not been granted access.",
            hint=f"Ask for it on the {what}'s page. {ACCESS.format(what=what)}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{name!r} is neither an existing path nor a {what} on the Hub that you may read.",
            hint=ACCESS.format(what=what),
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{name!r} has no revision {revision!r}.")
    return None


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error, or None if no answer was the reason."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
        error = error.__cause__
    return None


def _hung_up(error: BaseException | None) -> bool:
    from huggingface_hub.utils import httpx

    return isinstance(error, httpx.TransportError)


def _reason(error: BaseException) -> str:
    """Return the first line of what is behind an error: the library's own text is about its cache."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
