"""The contents of files, and why some could not be read."""

import os
import stat
from pathlib import Path

from kfusion.prediction.chunks import Files
from kfusion.spec import MODALITIES

MAX_BYTES = 64 * 2**20
"""A longer file is not read: it is no picture of a sign and no recording of a word, and a batch must fit in memory."""


def read_contents(base: Path, names: list[tuple[str, str]]) -> Files:
    """The files of some rows.

    Args:
        base: what relative names are relative to.
        names: a picture and a sound for each row; "" where there is none.
    """
    found = Files([], [], [])
    for row in names:
        contents, reasons = zip(*(_read(base, name, kind) for name, kind in zip(row, MODALITIES, strict=True)))  # noqa: B905
        missing = "" if any(row) else "a row must name a picture or a sound. Found: neither"
        found.image.append(contents[0])
        found.audio.append(contents[1])
        found.reason.append(next(filter(None, reasons), missing))
    return found


def _read(base: Path, name: str, kind: str) -> tuple[bytes, str]:
    """One file's content, or why there is none."""
    if not name:
        return b"", ""
    try:
        # Not blocking: a pipe must be refused, not waited for.
        with open(os.open(os.path.join(base, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                return b"", f"{kind}: must be a file. Found: a folder, a device or a pipe"
            if not 0 < state.st_size <= MAX_BYTES:
                return b"", f"{kind}: a file must have 1 to {MAX_BYTES} bytes. Found: {state.st_size}"
            return file.read(), ""
    except (OSError, ValueError) as error:
        return b"", f"{kind}: must be a file that can be read. Found: {getattr(error, 'strerror', None) or error}"
