"""One pass over the rows of an array: their range, whether they are finite, and a fingerprint of each.

Memory stays flat: rows are read in blocks. Values are looked at as float32, which is what the network reads, so that
equal contents have equal fingerprints whatever number type a file uses.
"""

from dataclasses import dataclass

import numpy as np

from kfusion.data.rows import read_rows

_BLOCK_BYTES = 1 << 20  # Small enough for the processor's cache, large enough to hide the cost of a call.
_HASH_SEED = 0x5EED


@dataclass(frozen=True, eq=False)
class Scan:
    """What a pass over (n, …) found.

    Args:
        low: the smallest value.
        high: the largest value.
        bad_row: the first row (of those scanned) that holds a NaN, an infinity, or more than float32 can hold; or None.
        fingerprint: uint64 (n, 2); rows with equal contents have equal fingerprints.
        num_blank: rows all of whose values are one and the same.
    """

    low: float
    high: float
    bad_row: int | None
    fingerprint: np.ndarray
    num_blank: int = 0


def scan(array: np.ndarray, rows: np.ndarray) -> Scan:
    """Looks once at each of the given rows.

    The fingerprint is the multilinear hash Σ mᵢ·sᵢ mod 2⁶⁴ of the row's 32-bit words sᵢ, with random 64-bit mᵢ, taken
    twice. Two different rows have the same fingerprint with a probability of at most 2⁻⁶⁶.

    Args:
        array: (N, ...), real numbers; an array or a memory map.
        rows: int (n,), n ≥ 1, the rows to scan.

    Reference:
        Lemire and Kaser, Strongly universal string hashing is fast, The Computer Journal 57 (2014).
    """
    width = int(np.prod(array.shape[1:]))
    multipliers = np.random.default_rng(_HASH_SEED).integers(0, 2**64, (width, 2), np.uint64)
    block_rows = max(1, _BLOCK_BYTES // (width * max(array.itemsize, 8)))
    fingerprint = np.empty((len(rows), 2), np.uint64)
    low, high, bad_row, num_blank = np.inf, -np.inf, None, 0
    of_ones = multipliers.sum(axis=0)
    for start in range(0, len(rows), block_rows):
        block = read_block(array, rows[start : start + block_rows])
        block_low, block_high = float(block.min()), float(block.max())
        # NaN and infinity both show in the sum of the extremes, so that the values need no third look.
        if bad_row is None and not np.isfinite(block_low + block_high):
            bad_row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
        low, high = min(low, block_low), max(high, block_high)
        words = block.view(np.uint32).astype(np.uint64)
        found = words @ multipliers
        fingerprint[start : start + block_rows] = found
        num_blank += int((found == words[:, :1] * of_ones).all(axis=1).sum()) if width > 1 else 0
    return Scan(low, high, bad_row, fingerprint, num_blank)


def blank_lines(found: Scan, what: str) -> list[str]:
    """A line where rows show or sound of nothing.

    Args:
        found: what a pass over them found.
        what: what they are, with the file's name.
    """
    num = len(found.fingerprint)
    return [f"{what}: {found.num_blank:,} of {num:,} are blank, all their values alike"] if found.num_blank else []


def read_block(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
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
