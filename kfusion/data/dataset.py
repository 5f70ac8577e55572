"""The rows of each modality, and how they are paired: what every data source becomes, and what training reads.

A `Source` is everything that a folder or package holds; a `Pairs` is one part of it (training, validation or test).
Both keep rows into the arrays, never copies of them.

One pass over the rows of an array: their range, whether they are finite, and a fingerprint of each.

Memory stays flat: rows are read in blocks. Values are looked at as float32, which is what the network reads, so that
equal contents have equal fingerprints whatever number type a file uses.

Rows of an array, in memory or in an .npy file, whatever its size.

Rows of a file are read with plain reads, not through the mapping: pages touched through a mapping count as resident
memory of the process, and would grow with every row until the whole file lies there.
"""

import mmap
from dataclasses import dataclass, field, replace
from typing import Any, Union

import numpy as np

from kfusion.spec import Spec
from kfusion.validation import UserError


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
class ModalityData:
    """The rows of one modality.

    Args:
        values: (N, ...), any real dtype, in the data's own unit; an array or a memory map.
        label: int64 (n,), in [0, num_classes), for each row in use.
        group: int64 (n,); rows with the same id must stay in one part, since they show or hold the same.
        row: int64 (n,), the rows of `values` in use; all of them if left out.
        speaker: int64 (n,), index into the source's `speaker_names`; None where nobody knows.
    """

    values: np.ndarray
    label: np.ndarray
    group: np.ndarray
    row: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    speaker: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.row is None:
            object.__setattr__(self, "row", np.arange(len(self.values)))

    def __len__(self) -> int:
        return len(self.label)

    def take(self, positions: np.ndarray) -> "ModalityData":
        """Some of the rows in use, in the order of `positions`, int (k,), each in [0, n)."""
        speaker = None if self.speaker is None else self.speaker[positions]
        return ModalityData(self.values, self.label[positions], self.group[positions], self.row[positions], speaker)


@dataclass(frozen=True, eq=False)
class Source:
    """All labelled samples of one data set.

    Args:
        data: the rows of each modality, by its name, in the spec's order.
        aligned: row i of each modality belongs together; then all have as many rows.
        spec: the modalities and the class names.
        info: what a run notes of its data, ready for JSON: name, files, front_end, a range for each modality, licence.
        speaker_names: who speaks.
        official_test: the data's own labelled test files; its group ids are comparable with this source's.
        official_val: the data's own validation files, likewise.
        notes: what should be said of the data before training, a line each.
    """

    data: dict[str, ModalityData]
    aligned: bool
    spec: Spec
    info: dict[str, Any] = field(default_factory=dict)
    speaker_names: tuple[str, ...] = ()
    official_test: Union["Source", None] = None
    official_val: Union["Source", None] = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ModalityData:
        return self.data[name]

    @property
    def anchor(self) -> ModalityData:
        """The first modality: its labels are the pairs', and others are chosen to go with its rows."""
        return next(iter(self.data.values()))

    @property
    def spoken(self) -> str:
        """The modality of which it is known who speaks; "" where there is none."""
        return next((name for name, each in self.data.items() if each.speaker is not None), "")

    def take(self, positions: dict[str, np.ndarray]) -> "Source":
        """Some rows of each modality, by positions in [0, n); without official parts."""
        data = {name: each.take(positions[name]) for name, each in self.data.items()}
        return replace(self, data=data, official_test=None, official_val=None)

    def pairs(self, positions: dict[str, np.ndarray]) -> "Pairs":
        """Samples made of one row of each modality.

        Args:
            positions: int (k,) for each modality, in [0, its rows in use).
        """
        return Pairs(
            values={name: each.values for name, each in self.data.items()},
            rows={name: each.row[positions[name]] for name, each in self.data.items()},
            label=self.anchor.label[next(iter(positions.values()))],
            spec=self.spec,
            positions={name: np.asarray(positions[name], np.int64) for name in self.data},
        )


@dataclass(frozen=True, eq=False)
class Pairs:
    """Samples of one class each, as rows of one array for each modality.

    Args:
        values: the array of each modality, by its name; see `ModalityData`.
        rows: int64 (n,) for each modality, each sample's row of its array.
        label: int64 (n,), the class of the first modality, in [0, num_classes).
        spec: the modalities and the class names.
        labels: int64 (n,) for each modality, its own class; `label` if left out. They differ only in conflicting pairs.
        positions: int64 (n,) for each modality, each sample's place among the source's rows in use, and so in its
            labels and groups; a row does not tell, since a source may use a row several times and in any order. The
            rows if left out.
    """

    values: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    label: np.ndarray
    spec: Spec
    labels: dict[str, np.ndarray] = None  # pyright: ignore[reportAssignmentType]
    positions: dict[str, np.ndarray] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if self.labels is None:
            object.__setattr__(self, "labels", dict.fromkeys(self.values, self.label))
        if self.positions is None:
            object.__setattr__(self, "positions", self.rows)

    def __len__(self) -> int:
        return len(self.label)

    def take(self, places: np.ndarray) -> "Pairs":
        """Some of the samples, in the order of `places`, int (k,), each in [0, len(self))."""
        some = {
            field: {name: each[places] for name, each in getattr(self, field).items()}
            for field in ("rows", "labels", "positions")
        }
        return replace(self, label=self.label[places], **some)

    def read(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """The contents of some samples, in the data's own units.

        Args:
            places: int (n,), in [0, len(self)).

        Returns:
            float32 (n, *shape) for each modality.
        """
        found = {}
        for name, values in self.values.items():
            read = read_rows(values, self.rows[name][places]).astype(np.float32, copy=False)
            found[name] = read.reshape(-1, *self.spec[name].shape)
        return found

    def repaired(self, rng: np.random.Generator, conflict: float = 0.0) -> "Pairs":
        """The same samples of the first modality, each with others of its class from among this part's.

        Given its class, an image tells nothing about who speaks how: any sound of the class is as good a partner, and
        new partners keep a network from learning the pairs by heart.

        Args:
            rng: decides the pairing.
            conflict: probability, in [0, 1], that the other modalities are of another class instead.

        Returns:
            Pairs of the same length, order and `label`.
        """
        if not 0 <= conflict <= 1:
            raise ValueError(f"'conflict' must be in [0, 1]. Received: {conflict}")
        first, *others = self.values
        rows, positions, wanted = {first: self.rows[first]}, {first: self.positions[first]}, self.label
        for name in others:
            # A row that a source uses under several labels is a sample of each of these classes.
            labelled = self.rows[name] * self.spec.num_classes + self.labels[name]
            _, pool = np.unique(labelled, return_index=True)
            pool_label = self.labels[name][pool]
            if conflict > 0 and name == others[0]:
                in_conflict = rng.random(len(self)) < conflict
                wanted = np.where(in_conflict, _other_labels(self.label, pool_label, rng), wanted)
            chosen = pool[pair_by_label(wanted, pool_label, rng)]
            rows[name], positions[name] = self.rows[name][chosen], self.positions[name][chosen]
        labels = {first: self.labels[first], **dict.fromkeys(others, wanted)}
        return replace(self, rows=rows, positions=positions, labels=labels)


def pair_by_label(label: np.ndarray, pool_label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each label a random member of the pool with that label; the members are used equally often, give or take one.

    Args:
        label: int (n,).
        pool_label: int (m,); must hold every value of `label`.
        rng: decides who meets whom.

    Returns:
        int64 (n,), positions in the pool.

    Raises:
        UserError: a label that nobody in the pool has.
    """
    out = np.empty(len(label), np.int64)
    if not len(label):
        return out
    # Sorted once, so that many classes cost no more than few.
    order, shuffled = np.argsort(label, kind="stable"), rng.permutation(len(pool_label))
    shuffled = shuffled[np.argsort(pool_label[shuffled], kind="stable")]
    classes, starts = np.unique(label[order], return_index=True)
    lows = np.searchsorted(pool_label[shuffled], classes, "left")
    highs = np.searchsorted(pool_label[shuffled], classes, "right")
    for value, rows, low, high in zip(classes, np.split(order, starts[1:]), lows, highs, strict=True):
        if low == high:
            raise UserError(f"'pool_label' must hold every label. Received: none of class {value}")
        out[rows] = np.resize(shuffled[low:high], len(rows))
    return out


def _other_labels(label: np.ndarray, pool_label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each label another one that the pool has."""
    classes = np.unique(pool_label)
    if len(classes) < 2:
        raise ValueError(f"'conflict' must be 0 where all sounds are of one class. Received: class {classes.tolist()}")
    shift = rng.integers(1, len(classes), len(label))
    return classes[(np.searchsorted(classes, label) + shift) % len(classes)]


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
