"""Files of judgments that other tools wrote: their text, plain or packed, or one line that says what is wrong with it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from gshf_release.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """Return a file's text. Packed files are known by their content, so any name will do.

    Raises:
        DataError: It is missing, empty, not UTF-8, or breaks off.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}.", hint="Bring the file again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from error
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return text
