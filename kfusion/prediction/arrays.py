"""Rows of arrays as input: .npy files of a layout, or what a program holds in memory, checked and brought to one scale.

Nothing is copied but the rows of a batch. A row that cannot be answered is marked with the reason.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfusion.data.array_files import open_array
from kfusion.data.array_folder import LayoutFiles, layouts
from kfusion.data.dataset import read_rows
from kfusion.data.in_memory import Samples
from kfusion.data.statistics import Range, largest, require_scale
from kfusion.modalities import each_of, modality, one_of
from kfusion.modalities.base import MAX_MAGNITUDE
from kfusion.prediction.inputs import Arrays, FilesOf, in_files
from kfusion.spec import Spec
from kfusion.validation import UserError, broken

if TYPE_CHECKING:
    from kfusion.prediction.models import Model

SAMPLES, SAMPLE_ROWS = 32, 32
"""Places, evenly over the input, and rows at each, whose values decide the scale."""
OUTLIERS = 0.01
"""Share of the sampled rows at either end, one at least, that may be broken without deciding the scale."""


@dataclass(frozen=True)
class ArrayRows:
    """Rows of .npy files, one for each modality; some may be missing.

    Args:
        paths: the files, by modality.
        num_rows: of each of them.
        spec: the shapes that the model takes.
        description: what is read, for the terminal.
        notes: what was taken for the shapes where the files leave that open, a line each.
        scale: for each bounded modality what 1.0 in a request is in the file; as the model has it if left out.
        limit: for each other modality how far from zero a value may be.
    """

    paths: dict[str, Path]
    num_rows: int
    spec: Spec
    description: str
    notes: tuple[str, ...] = ()
    scale: dict[str, int] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.num_rows

    def read(self, start: int, stop: int) -> Arrays:
        """The rows in the unit of a request; a row with a reason may hold anything."""
        rows, values, reason = np.arange(start, stop), {}, [""] * (stop - start)
        present = self._present(start, stop).copy()
        for at, (name, kind, shape) in enumerate(each_of(self.spec)):
            if name not in self.paths:
                values[name] = np.zeros((len(rows), *shape.shape), np.float32)
                continue
            read, low, high = self._values(name, rows)
            lowest, highest = self._bounds(name)
            with np.errstate(invalid="ignore"):
                wrong = ~((low >= lowest) & (high <= highest))  # NaN is neither.
            if kind.allows_missing:  # A row without any number is absent.
                present[:, at] &= ~np.isnan(low)
                wrong &= present[:, at]
            for place in np.flatnonzero(wrong):
                reason[place] = reason[place] or self._reason(name, low[place], high[place])
            values[name] = read / np.float32(highest) if kind.is_bounded() else read
        for place in np.flatnonzero(~present.any(axis=1)):
            nouns = [kind.called(name) for name, kind, _ in each_of(self.spec)]
            reason[place] = reason[place] or f"a row must have {one_of(nouns)}. Found: no number"
        return Arrays(values, present, reason)

    def array(self, name: str) -> np.ndarray:
        """The array of a modality that is present."""
        return opened(self.paths[name])

    def _present(self, start: int, stop: int) -> np.ndarray:
        """bool (rows, modalities)."""
        return np.tile([name in self.paths for name in self.spec.names], (stop - start, 1))

    def _values(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 (n, *shape), and each row's lowest and highest value: NaN where any value is, or all that may be."""
        shape = self.spec[name]
        with np.errstate(over="ignore", invalid="ignore"):
            array = modality(shape).in_order(self.array(name), shape)
            flat = read_rows(array, rows).reshape(len(rows), -1).astype(np.float32, copy=False)
            low, high = (np.fmin, np.fmax) if modality(shape).allows_missing else (np.minimum, np.maximum)
            return flat.reshape(-1, *shape.shape), low.reduce(flat, axis=1), high.reduce(flat, axis=1)

    def _bounds(self, name: str) -> Range:
        """The lowest and the highest value that a row may have."""
        if modality(self.spec[name]).is_bounded():
            return 0, self.scale.get(name, self.spec[name].scale)
        limit = self.limit.get(name, MAX_MAGNITUDE)
        return -limit, limit

    def _reason(self, name: str, low: float, high: float) -> str:
        """Why a row with these values is not answered."""
        kind, (lowest, highest) = modality(self.spec[name]), self._bounds(name)
        if not (np.isfinite(low) and np.isfinite(high)):
            return f"{name}: values must be finite (and within float32). Found: NaN or infinity"
        rule = f"within {lowest:g} and {highest:g}"
        if kind.is_bounded():
            rule = f"in 0-{highest:g}, as most of the input's are"
        return f"{name}: {kind.value_noun} must be {rule}. Found: {low:g} to {high:g}"

    def files(self, start: int, stop: int) -> None:
        """None: rows are no files."""
        return None

    def ids(self, start: int, stop: int) -> None:
        """None: rows are numbered."""
        return None

    def identity(self) -> dict[str, Any]:
        """Size and time of change of each file."""
        states = {path.name: path.stat() for path in self.paths.values()}
        return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}

    def ranges(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The lowest and the highest value of some rows of each modality, as they are in the arrays."""
        return {name: self._values(name, self._sample(name))[1:] for name in self.paths}

    def _sample(self, name: str) -> np.ndarray:
        """The rows that decide the scale."""
        first = np.unique(np.linspace(0, max(self.num_rows - SAMPLE_ROWS, 0), SAMPLES).astype(np.int64))
        return np.unique((first[:, None] + np.arange(SAMPLE_ROWS)).clip(max=self.num_rows - 1))


@dataclass(frozen=True, eq=False)
class ArraysOf(ArrayRows):
    """Arrays in memory, checked and scaled as those in files are.

    Args:
        arrays: by modality.
        present: bool (n, modalities), which of them each row has.
    """

    arrays: dict[str, Any] = field(default_factory=dict)
    present: Any = None

    def array(self, name: str) -> np.ndarray:
        """The program's own."""
        return self.arrays[name]

    def identity(self) -> dict[str, Any]:
        """Nothing: a program's rows are no job's."""
        return {}

    def _present(self, start: int, stop: int) -> np.ndarray:
        return self.present[start:stop]

    def _sample(self, name: str) -> np.ndarray:
        """As of files; rows that lack the modality do not count."""
        rows = np.flatnonzero(self.present[:, self.spec.names.index(name)])
        num = SAMPLES * SAMPLE_ROWS
        return rows[np.linspace(0, len(rows) - 1, num).astype(np.int64)] if len(rows) > num else rows


def opened(path: Path) -> np.ndarray:
    """A file that is opened once, as long as it is the same."""
    state = path.stat()
    return _opened(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _opened(path: Path, *_: int) -> np.ndarray:
    return open_array(path, copy=False)


def find_arrays(folder: Path, part: str | None, spec: Spec) -> tuple[LayoutFiles, str] | None:
    """The .npy files of a layout that a folder holds, and what they are called.

    Args:
        folder: may hold any number of other files.
        part: "test" or "train"; None: the test files where there are any.
        spec: the modalities of the model; a layout without any of them is none.

    Raises:
        UserError: the part that is wanted is missing.
    """
    for layout in layouts():
        parts = {"test": layout.test, "train": layout.train}
        held = {name: files for name, files in parts.items() if files and _paths(folder, files, spec)}
        if held and part and layout.test and part not in held:
            raise broken(folder, f"must hold the {part} files of its layout ({layout.name})", ", ".join(held))
        if held:
            chosen = part if part in held else next(iter(held))
            return held[chosen], f"{layout.name} layout" + (f", {chosen} files" if layout.test else "")
    return None


def _paths(folder: Path, files: LayoutFiles, spec: Spec) -> dict[str, Path]:
    """The file of each modality of the model that has one."""
    paths = {name: folder / files.arrays[name] for name in spec.names if name in files.arrays}
    return {name: path for name, path in paths.items() if path.exists()}


def open_arrays(folder: Path, part: str | None, spec: Spec) -> ArrayRows | None:
    """The folder's arrays as input; None where it holds no layout's.

    Args:
        folder: may hold any number of other files.
        part: as of `find_arrays`.
        spec: the modalities of the model.

    Raises:
        UserError: a file breaks a rule; one line that says which.
    """
    layout = find_arrays(folder, part, spec)
    if layout is None:
        return None
    files, title = layout
    paths = _paths(folder, files, spec)
    first, notes = next(iter(paths)), []
    num_rows = len(opened(paths[first]))
    for name, path in paths.items():
        array = opened(path)
        notes.append(modality(spec[name]).note_on(array.shape, path, spec[name]))
        if len(array) != num_rows:
            raise broken(path, f"must have as many rows as {paths[first].name} ({num_rows})", f"{len(array)} rows")
    for name in files.arrays.keys() - set(spec.names):
        if (folder / files.arrays[name]).exists():
            notes.append(f"{files.arrays[name]} is left out: the model takes no {modality(name).noun}")
    names = " and ".join(path.name for path in paths.values())
    return ArrayRows(paths, num_rows, spec, f"{names} of {folder} ({title})", tuple(filter(None, notes)))


def rows_of(samples: Samples, spec: Spec) -> ArraysOf | FilesOf:
    """Rows that a program holds as input for a model.

    Args:
        samples: what the program holds.
        spec: the shapes that the model takes.

    Raises:
        UserError: a shape is another than the model's, or a row has no modality at all.
    """
    columns, present = samples.columns, samples.where_present(spec.names)
    if samples.are_files:
        names = [name for name in spec.names if name in columns or name in in_files(spec)]
        rows = FilesOf(dict(zip(names, map(list, zip(*samples.names(names), strict=True)), strict=True)), spec)
    else:
        paths = {name: Path(f"X['{name}']") for name in spec.names if name in columns}
        for name, path in paths.items():
            modality(spec[name]).note_on(np.shape(columns[name]), path, spec[name])
        rows = ArraysOf(paths, len(samples), spec, "X", arrays=columns, present=present)
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        nouns = [kind.called(name) for name, kind, _ in each_of(spec)]
        received = f"{'neither' if len(nouns) == 2 else 'none'} in row {empty[0]}"
        raise UserError(f"'X': each row must have {one_of(nouns)}. Found: {received}")
    return rows


def on_scale(rows: ArrayRows, model: "Model", force: bool) -> tuple[ArrayRows, list[str]]:
    """The rows with the scale of their values, told by some rows evenly over the input.

    Args:
        rows: the input.
        model: what will answer it.
        force: take values on another scale than the training data's too.

    Returns:
        The rows, and lines for the terminal.

    Raises:
        UserError: bounded values are on no known scale; or others are on another than the training data's, and nobody
            forces it.
    """
    lines, checks, scale = list(rows.notes), [], {}
    for name, (low, high) in rows.ranges().items():
        kind, path, num = modality(rows.spec[name]), rows.paths[name], int((low == high).sum())
        if rows.spec[name].num_values > 1 and num and not kind.allows_missing:
            lines.append(f"{path.name}: {num:,} of {len(low):,} rows looked at are blank, all their values alike")
        if kind.is_bounded():
            scale[name] = kind.scale_of(*bounds(low, high), path)
        elif force:
            continue
        elif name not in model.ranges:
            checks.append(f"{kind.called(name)}s: their scale is not checked; this version does not tell its own")
        elif (np.isfinite(low) & np.isfinite(high)).any():  # Else each row is refused for that.
            require_scale(path, f"{name} features", bounds(low, high), model.ranges[name])
    limit = {name: largest(trained) for name, trained in model.ranges.items()}
    return replace(rows, scale=scale, limit=limit), lines + checks


def bounds(low: np.ndarray, high: np.ndarray) -> Range:
    """Lowest and highest value of some rows, a few at either end left out; rows that are not finite do not count.

    Args:
        low: lowest value of each row, (n,).
        high: highest value of each row, (n,).
    """
    good = np.isfinite(low) & np.isfinite(high)
    num = int(good.sum())
    if not num:
        return 0.0, 0.0
    left_out = min(int(np.ceil(OUTLIERS * num)), (num - 1) // 2)
    return float(np.sort(low[good])[left_out]), float(np.sort(high[good])[num - 1 - left_out])
