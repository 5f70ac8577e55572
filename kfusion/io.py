"""Files that appear whole or not at all, and a progress bar for long steps."""

import hashlib
import importlib.util
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kfusion.validation import UserError, reason

DAMAGED = (OSError, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise where an archive is damaged; a flipped bit may ask for a password or a newer zip."""
PARTIAL = ".partial-"
"""How the name of a file that is being written begins."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside `path`, then puts it in place by rename.

    Args:
        path: the file to be; an older one of that name is replaced.
        write: gets a path with the same suffix to write to.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        # A full disk names no file by itself, and a user does not know the file beside it.
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, atomically.

    Args:
        path: the file.
        text: its content.
    """
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    """Writes values as JSON, atomically.

    Args:
        path: the file.
        values: its content.
    """
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def cache_folder() -> Path:
    """Where what can be made again is kept for the next process: features of files, and graphs that read them."""
    own = os.environ.get("KFUSION_CACHE")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kfusion")


def file_hash(path: Path) -> str:
    """A fingerprint of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_back(values: Any) -> Any:
    """The values as JSON gives them back: lists for tuples."""
    return json.loads(json.dumps(values))


def same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether two files hold the same arrays under the same names.

    Args:
        one: the arrays of a file.
        other: those of another.
    """
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def read_arrays(path: Path, rule: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Args:
        path: the file.
        rule: what it must be, for the error.

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    try:
        # Opened here: NumPy leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except DAMAGED as error:
        raise UserError(f"{path}: {rule}. Found: {reason(error)}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the file must be readable. Found: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the file must be JSON. Found: {error}") from error


def is_live(console: Console | None) -> bool:
    """Whether a bar can move on a console: in a terminal, or in a notebook whose widgets are installed."""
    if console is None:
        return False
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


@contextmanager
def progress(console: Console | None, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar that the block moves on; it is gone afterwards. A pipe or a file gets nothing.

    Args:
        console: where it is shown; None: nowhere.
        text: its label.
        total: steps of the whole.

    Yields:
        A function that takes how many more steps are done.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not is_live(console)) as bar:
        task = bar.add_task(text, total=total)
        yield lambda num: bar.advance(task, num)
