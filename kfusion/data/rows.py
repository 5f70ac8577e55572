"""Rows of an array, in memory or in an .npy file, whatever its size.

Rows of a file are read with plain reads, not through the mapping: pages touched through a mapping count as resident
memory of the process, and would grow with every row until the whole file lies there.
"""

import mmap

import numpy as np


def read_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copies some rows of an array.

    Args:
        array: (N, ...), any dtype; a plain array, or the memory map that `np.load(path, mmap_mode="r")` gives.
        rows: int (n,), each in [0, N).

    Returns:
        (n, ...), of the array's dtype, in memory.

    Raises:
        IndexError: a row outside the array.
        ValueError: the file became shorter since it was opened.
    """
    if not (isinstance(array, np.memmap) and _is_whole_file(array)):
        return np.asarray(array[rows])
    if len(rows) and (rows.min() < 0 or rows.max() >= len(array)):
        raise IndexError(f"'rows' must be in [0, {len(array)}). Received: {rows.min()} to {rows.max()}")
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    if out.nbytes:
        _read_runs(array, rows, out.reshape(-1).view(np.uint8).data)
    return out


def _is_whole_file(array: np.memmap) -> bool:
    """Whether row r lies at `offset + r * row bytes` of the file; false for slices of a map."""
    return array.filename is not None and isinstance(array.base, mmap.mmap) and array.flags.c_contiguous


def _read_runs(array: np.memmap, rows: np.ndarray, buffer: memoryview) -> None:
    """Fills the buffer, one read per run of neighbouring rows."""
    row_bytes = len(buffer) // len(rows)
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, len(rows))
    starts = np.append(0, ends[:-1])
    # Opened for each call: this costs 10 µs, and leaves nothing to share between threads or to close later.
    with open(str(array.filename), "rb", buffering=0) as file:
        for start, end, row in zip(starts.tolist(), ends.tolist(), rows[starts].tolist(), strict=True):
            file.seek(array.offset + row * row_bytes)
            part = buffer[start * row_bytes : end * row_bytes]
            if file.readinto(part) != len(part):
                raise ValueError(f"{array.filename}: must not change while it is read. Found: it ends after row {row}")
