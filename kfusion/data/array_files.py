"""Arrays in .npy files: opened, never loaded; read and scanned row by row.

Whoever breaks a rule gets a single line: `FILE: rule. Found: …`. A header is checked against the file's size, and rows
are looked at block by block, so that memory stays flat. Rows of a file are read with plain reads, not through the
mapping: pages touched through a mapping count as resident memory of the process, and would grow with every row until
the whole file lies there. Arrays in memory are read and scanned alike.
"""

import io
import math
import mmap
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.validation import UserError, broken

REAL = "biuf"
"""NumPy's kinds of real numbers: booleans, integers and floats."""
_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20  # Small enough for the processor's cache, large enough to hide the cost of a call.
_HASH_SEED = 0x5EED


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
            far apart. Runs of neighbouring rows are read well without (`read_rows`).

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


def read_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copies some rows of an array.

    Args:
        array: (N, ...), any dtype; a plain array, or the memory map that `np.load(path, mmap_mode="r")` gives, its
            second axis moved to the end if need be.
        rows: int (n,), each in [0, N).

    Returns:
        (n, ...), of the array's dtype, in memory.

    Raises:
        IndexError: a row outside the array.
        UserError: the file became shorter since it was opened.
    """
    if not (isinstance(array, np.memmap) and _is_whole_file(array)):
        before = _before_moving(array)
        return np.asarray(array[rows]) if before is None else np.moveaxis(read_rows(before, rows), 1, -1)
    if len(rows) and not array.flags.c_contiguous:
        return _read_columns(array, rows)
    if len(rows) and (rows.min() < 0 or rows.max() >= len(array)):
        raise IndexError(f"'rows' must be in [0, {len(array)}). Received: {rows.min()} to {rows.max()}")
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    if out.nbytes:
        _read_runs(array, rows, out.reshape(-1).view(np.uint8).data)
    return out


def _is_whole_file(array: np.memmap) -> bool:
    """Whether the array is all that follows its offset in the file; false for slices of a map."""
    return array.filename is not None and isinstance(array.base, mmap.mmap) and array.flags.forc


def _before_moving(array: np.ndarray) -> np.memmap | None:
    """The map of a whole file that `np.moveaxis(map, 1, -1)` made this array of; None where it is something else."""
    base = array.base
    if not (isinstance(array, np.memmap) and isinstance(base, np.memmap) and _is_whole_file(base)):
        return None
    if base.ndim != array.ndim or base.ndim < 3:
        return None
    moved = np.moveaxis(base, 1, -1)
    same = moved.shape == array.shape and moved.strides == array.strides and moved.ctypes.data == array.ctypes.data
    if not same or moved.dtype != array.dtype:
        return None
    base.filename = array.filename  # Whoever moves the file tells the array that is in use.
    return base


def _runs(rows: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of neighbouring rows: from which place up to which in `rows`, and the first row."""
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, len(rows))
    starts = np.append(0, ends[:-1])
    return list(zip(starts.tolist(), ends.tolist(), rows[starts].tolist(), strict=True))


def _read_runs(array: np.memmap, rows: np.ndarray, buffer: memoryview) -> None:
    """Fills the buffer, one read per run of neighbouring rows."""
    row_bytes = len(buffer) // len(rows)
    # Opened for each call: this costs 10 µs, and leaves nothing to share between threads or to close later.
    with open(str(array.filename), "rb", buffering=0) as file:
        for start, end, row in _runs(rows):
            file.seek(array.offset + row * row_bytes)
            part = buffer[start * row_bytes : end * row_bytes]
            if file.readinto(part) != len(part):
                raise UserError(f"{array.filename}: must not change while it is read. Found: it ends after row {row}")


def _read_columns(array: np.memmap, rows: np.ndarray) -> np.ndarray:
    """Rows of a file in Fortran order, one read per column and run of neighbouring rows."""
    num_columns = int(np.prod(array.shape[1:], dtype=np.int64))
    out, size = np.empty((num_columns, len(rows)), array.dtype), array.dtype.itemsize
    buffer = out.reshape(-1).view(np.uint8).data
    with open(str(array.filename), "rb", buffering=0) as file:
        for start, end, row in _runs(rows):
            for column in range(num_columns):
                file.seek(array.offset + (column * len(array) + row) * size)
                part = buffer[(column * len(rows) + start) * size : (column * len(rows) + end) * size]
                if file.readinto(part) != len(part):
                    raise UserError(f"{array.filename}: must not change while it is read. Found: it is shorter")
    return out.reshape(*array.shape[:0:-1], len(rows)).T


@dataclass(frozen=True, eq=False)
class Scan:
    """The facts that a pass over (n, …) gives.

    Args:
        low: the smallest value.
        high: the largest value.
        bad_row: the first row (of those scanned) that holds an infinity, more than float32 can hold, or a NaN where
            these are not allowed; or None.
        fingerprint: uint64 (n, 2); rows with equal contents have equal fingerprints.
        num_blank: rows all of whose values are one and the same.
        present: bool (n,), the rows that have any number at all; None: all have.
    """

    low: float
    high: float
    bad_row: int | None
    fingerprint: np.ndarray
    num_blank: int = 0
    present: np.ndarray | None = None


def scan(array: np.ndarray, rows: np.ndarray, missing: bool = False) -> Scan:
    """Looks once at each of some rows.

    Values are looked at as float32, which is what the network reads, so that equal contents have equal fingerprints
    whatever number type a file uses.

    The fingerprint is the multilinear hash Σ mᵢ·sᵢ mod 2⁶⁴ of the row's 32-bit words sᵢ, with random 64-bit mᵢ, taken
    twice. Two different rows have the same fingerprint with a probability of at most 2⁻⁶⁶.

    Args:
        array: (N, ...), real numbers; an array or a memory map.
        rows: int (n,), n ≥ 1, the rows to scan.
        missing: whether NaN is allowed; it counts as no value.

    Reference:
        Lemire and Kaser, Strongly universal string hashing is fast, The Computer Journal 57 (2014).
    """
    width = int(np.prod(array.shape[1:]))
    multipliers = np.random.default_rng(_HASH_SEED).integers(0, 2**64, (width, 2), np.uint64)
    block_rows = max(1, _BLOCK_BYTES // (width * max(array.itemsize, 8)))
    fingerprint = np.empty((len(rows), 2), np.uint64)
    low, high, bad_row, num_blank, empty = np.inf, -np.inf, None, 0, np.zeros(len(rows), bool)
    of_ones = multipliers.sum(axis=0)
    for start in range(0, len(rows), block_rows):
        block = _read_block(array, rows[start : start + block_rows])
        if missing:
            known = ~np.isnan(block)
            empty[start : start + block_rows] = ~known.any(axis=1)
            block_low = float(block.min(where=known, initial=np.inf))
            block_high = float(block.max(where=known, initial=-np.inf))
            bad = np.isinf(block).any(axis=1)
        else:
            block_low, block_high = float(block.min()), float(block.max())
            # NaN and infinity both show in the sum of the extremes, so that the values need no third look.
            finite = np.isfinite(block_low + block_high)
            bad = np.zeros(0, bool) if finite else ~np.isfinite(block).all(axis=1)
        if bad_row is None and bad.any():
            bad_row = start + int(np.flatnonzero(bad)[0])
        low, high = min(low, block_low), max(high, block_high)
        words = block.view(np.uint32).astype(np.uint64)
        hashes = words @ multipliers
        fingerprint[start : start + block_rows] = hashes
        num_blank += int((hashes == words[:, :1] * of_ones).all(axis=1).sum()) if width > 1 else 0
    present = ~empty if empty.any() else None
    return Scan(low, high, bad_row, fingerprint, max(0, num_blank - int(empty.sum())), present)


def blank_lines(scanned: Scan, what: str) -> list[str]:
    """A line where rows show or sound of nothing.

    Args:
        scanned: the rows.
        what: the file's name, or what the rows are.
    """
    num, blank = len(scanned.fingerprint), scanned.num_blank
    return [f"{what}: {blank:,} of {num:,} are blank, all their values alike"] if blank else []


def _read_block(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows as float32 (n, values of a row); what float32 cannot hold becomes infinite, -0 becomes 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        block = read_rows(array, rows).reshape(len(rows), -1).astype(np.float32)
    block += np.float32(0)
    return block


def group_ids(*fingerprints: np.ndarray) -> list[np.ndarray]:
    """Numbers equal rows alike.

    Args:
        fingerprints: uint64 (n, 2) each; the numbering is common to all of them.

    Returns:
        int64 (n,) for each argument.
    """
    both = np.concatenate(fingerprints)
    order = np.lexsort((both[:, 1], both[:, 0]))
    new = np.any(both[order[1:]] != both[order[:-1]], axis=1)
    ids = np.empty(len(both), np.int64)
    ids[order] = np.append(0, np.cumsum(new))
    return np.split(ids, np.cumsum([len(part) for part in fingerprints])[:-1])


def own_groups(group: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """Ids of groups in which rows that lack a modality are not alike for that.

    Args:
        group: int64 (n,).
        present: bool (n,), which rows have the modality; None: all have.
    """
    if present is None:
        return group
    return np.where(present, group, int(group.max()) + 1 + np.arange(len(group)))


def scan_finite(array: np.ndarray, rows: np.ndarray, path: Path, missing: bool = False) -> Scan:
    """Looks once at some rows of an array.

    Args:
        array: (N, ...).
        rows: int (n,), the rows to look at.
        path: of the file, for messages.
        missing: whether NaN is allowed; it counts as no value.

    Raises:
        UserError: a value is not finite, or there is none at all.
    """
    scanned = scan(array, rows, missing)
    if scanned.bad_row is not None:
        row = int(rows[scanned.bad_row])
        if missing:
            raise broken(
                path, "values must be finite (and within float32), or NaN where missing", f"infinity in row {row}"
            )
        raise broken(path, "values must be finite (and within float32)", f"NaN or infinity in row {row}")
    if scanned.low > scanned.high:
        raise broken(path, "must hold at least one number", "NaN alone")
    return scanned


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
