"""Files -> arrays of features, made once and kept in the user's cache: a training on the same files starts at once.

The name of a kept array is a hash of what it was made from (each file's path, size and time of change, and the front
end's name with its shape) and the fingerprint of the front end itself (`fingerprint.py`). So a changed file or front
end makes another array, and nothing is ever stale. The folder is `KFUSION_CACHE`, else `$XDG_CACHE_HOME/kfusion`, else
`~/.cache/kfusion`; delete it whenever you like.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from kfusion.data.checks import broken
from kfusion.data.front_ends import Reader
from kfusion.rules import UserError
from kfusion.system.files import write_atomically, write_json
from kfusion.system.progress import is_live
from kfusion.system.terminal import quiet

BATCH = 64
MAX_BYTES = 2**26
"""Larger files are refused before they are read."""


@dataclass(frozen=True)
class FrontEnd:
    """What turns files into features.

    Args:
        name: what its features are called in data.json.
        fingerprint: of what it does.
        read: it.
        shape: of one file's features.
        dtype: in which they are kept.
    """

    name: str
    fingerprint: str
    read: Reader
    shape: tuple[int, ...]
    dtype: type


def cache_folder() -> Path:
    own = os.environ.get("KFUSION_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kfusion"


def cache_key(paths: Sequence[Path], front_end: str) -> str:
    """What the features of these files are kept under."""
    facts: list[object] = [front_end]
    for path in paths:
        status = path.stat()
        facts.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def features(paths: Sequence[Path], front_end: FrontEnd, console: Console | None) -> tuple[np.ndarray, str]:
    """The features of each file, from the cache or made now.

    Args:
        paths: files, each named once.
        front_end: what reads them.
        console: where progress is shown; None: nowhere.

    Returns:
        (n, *shape), a memory map if it could be kept; and the key, which names the files, not kfusion's version.

    Raises:
        UserError: one line for all files that cannot be read, naming the first.
    """
    shape, dtype = front_end.shape, front_end.dtype
    key = cache_key(paths, f"{front_end.name} {shape} {np.dtype(dtype)}")
    kept = cache_folder() / f"{key}-{front_end.fingerprint}.npy"
    found = _kept(kept, (len(paths), *shape), dtype)
    if found is not None:
        return found, key
    array = _made(paths, front_end, console)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda partial: np.save(partial, array))
        write_json(kept.with_suffix(".json"), {"front_end": front_end.name, "crc32": _checksum(kept)})
    except OSError:
        return array, key  # A full or read-only disk costs the next start its time, not this one its data.
    found = _kept(kept, array.shape, dtype)
    return array if found is None else found, key


def _kept(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray | None:
    """The array in the cache, unless it is missing, damaged or something else."""
    try:
        noted = json.loads(path.with_suffix(".json").read_text("utf-8"))["crc32"]
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        sound = array.shape == shape and array.dtype == dtype and _checksum(path) == noted
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return array if sound else None


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _made(paths: Sequence[Path], front_end: FrontEnd, console: Console | None) -> np.ndarray:
    """Reads all files, in batches."""
    array, refused = np.empty((len(paths), *front_end.shape), front_end.dtype), []
    starts = range(0, len(paths), BATCH)
    shown = is_live(console)
    label = f"reading {len(paths):,} files"
    for start in track(starts, label, console=console, transient=True, disable=not shown):
        batch = paths[start : start + BATCH]
        contents = tf.constant([_content(path) for path in batch])
        with quiet():  # What libjpeg has to say of a file.
            values, reasons = front_end.read(contents)
        array[start : start + len(batch)] = values
        refused += [(path, reason.decode()) for path, reason in zip(batch, reasons.numpy(), strict=True) if reason]
    if refused:
        path, reason = refused[0]
        more = f" (and {len(refused) - 1:,} more of {len(paths):,} files cannot be read)" if len(refused) > 1 else ""
        raise UserError(f"{path}: {reason}{more}")
    return array


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise broken(path, f"a file must have 1 byte to {MAX_BYTES // 2**20} MB", f"{size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise broken(path, "must be a file that can be read", error.strerror) from None
