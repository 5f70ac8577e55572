"""Rows of an array, in memory or in an .npy file, whatever its size.

Rows of a file are read with plain reads, not through the mapping: pages touched through a mapping count as resident
memory of the process, and would grow with every row until the whole file lies there.
"""

import mmap

import numpy as np

from kfusion.rules import UserError


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
