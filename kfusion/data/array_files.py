"""Rules for the files of a folder. Whoever breaks one gets a single line: `FILE: rule. Found: …`.

Arrays are opened, never loaded: a header is checked against the file's size, and rows are looked at block by block.
"""

import io
import math
import tokenize
from pathlib import Path

import numpy as np

from kfusion.data.dataset import Scan, scan
from kfusion.validation import UserError, broken

REAL = "biuf"
"""NumPy's kinds of real numbers: booleans, integers and floats."""
_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 1 << 16


def list_folder(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        rule = "'data' must be 'builtin', or a folder or manifest that can be read"
        raise UserError(f"{rule}. Received: '{folder}' ({error.strerror})") from None


def open_file(path: Path) -> io.BufferedReader:
    """Opens a file for reading, or says in one line why that cannot be."""
    try:
        if path.exists() and not path.is_file():  # Opening a pipe would wait for ever.
            raise broken(path, "must be a file", "a folder" if path.is_dir() else "a device or a pipe")
        return open(path, "rb")
    except FileNotFoundError:
        raise broken(path, "must exist", "no such file") from None
    except OSError as error:
        raise broken(path, "must be a file that can be read", error.strerror) from None


def open_array(path: Path, kinds: str = REAL, content: str = "numbers", copy: bool = True) -> np.ndarray:
    """Maps an .npy file into memory without reading it.

    Args:
        path: the file.
        kinds: NumPy's kinds of the dtypes that are allowed.
        content: what these kinds are called in the error.
        copy: hold a file in Fortran order, as those of pandas tables often are, in memory: the values of its rows lie
            far apart. Runs of neighbouring rows are read well without (`dataset.read_rows`).

    Returns:
        A memory map; an array in memory where the file is in Fortran order and `copy` is set.

    Raises:
        UserError: it is no .npy file, is truncated, has no rows, or holds something else.
    """
    with open_file(path) as file:
        shape, fortran, dtype = _read_header(path, file)
        first = file.tell()
        num_bytes = file.seek(0, io.SEEK_END)
    if dtype.hasobject:
        raise broken(path, f"must hold {content}, not pickled Python objects", f"dtype {dtype}")
    if dtype.kind not in kinds:
        raise broken(path, f"must hold {content}", f"dtype {dtype}")
    if not shape or 0 in shape or dtype.itemsize == 0:
        raise broken(path, "must have at least one row and one value a row", f"shape {shape}")
    if min(shape) < 0 or first + math.prod(shape) * dtype.itemsize > num_bytes:
        raise broken(path, f"must hold all the values of its shape {shape}", f"a file of only {num_bytes} bytes")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise broken(path, "must be a complete .npy file", error) from None
    return np.ascontiguousarray(array) if copy and fortran and len(shape) > 1 else array


def _read_header(path: Path, file: io.BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype."""
    start = file.read(len(_MAGIC))
    if start != _MAGIC:
        kind = "an .npz archive" if start[:2] == b"PK" else f"a file that begins with {start!r}" if start else "nothing"
        raise broken(path, "must be an .npy file", kind)
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            # Version 3 exists for field names beyond ASCII; plain numbers are never written with it.
            raise broken(path, "must be an .npy file of version 1 or 2", f"version {version[0]}.{version[1]}")
        return read(file, max_header_size=_HEADER_BYTES)
    except (ValueError, SyntaxError, TypeError, tokenize.TokenError) as error:
        if str(error).startswith(str(path)):
            raise
        raise broken(path, "must have a readable .npy header", str(error)[:200]) from None


def scan_finite(array: np.ndarray, rows: np.ndarray, path: Path) -> Scan:
    """Looks once at some rows of an array.

    Args:
        array: (N, ...).
        rows: int (n,), the rows to look at.
        path: of the file, for messages.

    Raises:
        UserError: a value is not finite.
    """
    found = scan(array, rows)
    if found.bad_row is not None:
        row = int(rows[found.bad_row])
        raise broken(path, "values must be finite (and within float32)", f"NaN or infinity in row {row}")
    return found


def first_of_each_class(label: np.ndarray, limit: int) -> np.ndarray:
    """Positions of at most `limit` rows, evenly over the classes.

    The classes take turns, each with its first row not yet taken; a class that has run out is passed over.

    Args:
        label: int (n,).
        limit: rows at most; 0: all.

    Returns:
        int64 (min(n, limit),), ascending.
    """
    if limit == 0 or limit >= len(label):
        return np.arange(len(label))
    order = np.argsort(label, kind="stable")
    _, starts, counts = np.unique(label[order], return_index=True, return_counts=True)
    turn = np.arange(len(label)) - np.repeat(starts, counts)
    return np.sort(order[np.argsort(turn, kind="stable")[:limit]])
