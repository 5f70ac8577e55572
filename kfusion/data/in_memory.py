"""Data that a program holds in memory: brought to columns, and kept as files by the run that is trained on them.

| X                                                  | means                                              |
| -------------------------------------------------- | -------------------------------------------------- |
| `{"image": (N, H, W[, C]), "audio": (N, D)}`        | arrays, or lists of paths; any may be left out     |
| a DataFrame with the columns image and audio        | each cell a path or an array                       |
| `[("a.png", "a.wav"), ("b.png", None)]`             | a file of each kind that comes in files, row by row |
| `("a.png", "a.wav")`                                | one such row                                       |

Columns go by the modalities of the model, or, where there is none yet, by every kind that is registered. A run keeps
arrays in kfusion's own layout; files stay where they are and are named in a manifest:

    training_data/images.npy, audio.npy, labels.npy, kfusion_classes.json, and groups.npy if there are groups
    training_data/manifest.csv, kfusion_classes.json
"""

import contextlib
import csv
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.data.columns import OTHERS, parse, places_of
from kfusion.data.dataset import Classes, Source, encode, read_classes, write_classes
from kfusion.data.loaders import load
from kfusion.data.tables import LABELS, NOTHING, Table
from kfusion.io import PARTIAL, write_atomically
from kfusion.modalities import each_of, kinds, modality, one_of
from kfusion.modalities.base import Modality
from kfusion.run_dir import CLASSES, OWN_DATA, lock
from kfusion.spec import Spec
from kfusion.validation import UserError

Column = np.ndarray | list[str]
"""An array (n, …); or a path for each row, "" where there is none."""
MANIFEST = "manifest.csv"


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows as columns.

    Args:
        columns: each modality that the rows have, by its name, in the registry's order.
        present: for each of them, bool (n,), which rows have it.
        more: the other columns of a table, such as `label`, `group` and `speaker`.
    """

    columns: dict[str, Column]
    present: dict[str, np.ndarray]
    more: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    @property
    def are_files(self) -> bool:
        """Whether the rows name files; arrays else."""
        return any(isinstance(column, list) for column in self.columns.values())

    def names(self, modalities: Sequence[str]) -> list[tuple[str, ...]]:
        """The files of each row, one of each of some modalities; "" where there is none."""
        nothing = [""] * len(self)
        columns = [self.columns.get(name, nothing) for name in modalities]
        return list(zip(*columns, strict=True))

    def where_present(self, modalities: Sequence[str]) -> np.ndarray:
        """Which of some modalities each row has: bool (n, modalities)."""
        absent = np.zeros(len(self), bool)
        return np.stack([self.present.get(name, absent) for name in modalities], axis=1)


def read_samples(X: Any, spec: Spec | None = None) -> Samples:
    """Brings X to columns; nothing is read from files.

    Args:
        X: see the table above.
        spec: the modalities of a model, where there is one: an array without an axis of rows is one row then. Else any
            kind that is registered may be among the columns.

    Returns:
        The rows; at least one of them, and at least one modality.

    Raises:
        UserError: it is of none of these forms, its columns are of different lengths, or it mixes paths and arrays.
    """
    allowed = {name: modality(spec[name] if spec else name) for name in (spec.names if spec else kinds())}
    cells, others = _columns(X, allowed)
    single = {name: kind.row_shapes(shape) for name, kind, shape in each_of(spec)} if spec else {}
    read = {
        name: _column(name, values, single.get(name, set())) for name, values in cells.items() if values is not None
    }
    columns = {name: column for name, column in read.items() if column is not None}
    if not columns:
        # Two are named at most: whoever brings none has not come for the third.
        nouns = [kind.called(name) for name, kind in allowed.items()][:2]
        raise UserError(f"'X' must be {_forms(allowed)}. Received: {_kind(X)} without {one_of(nouns)}")
    for one, other in itertools.pairwise(columns):
        lengths = [len(columns[name][1]) for name in (one, other)]
        if lengths[0] != lengths[1]:
            rule = f"'X' must have as many {allowed[one].called(one)}s as {allowed[other].called(other)}s"
            raise UserError(f"{rule}. Received: {lengths[0]} and {lengths[1]}")
    if not len(next(iter(columns.values()))[1]):
        raise UserError("'X' must have at least one row. Received: none")
    if len({isinstance(values, list) for values, _ in columns.values()}) > 1:
        raise UserError("'X' must hold paths alone or arrays alone. Received: both")
    return Samples(
        {name: values for name, (values, _) in columns.items()},
        {name: present for name, (_, present) in columns.items()},
        others,
    )


def _forms(allowed: Mapping[str, Modality]) -> str:
    """All that X may be, in words."""
    keys = ", ".join(f"'{name}': …" for name in allowed)
    files = [kind.file_noun for kind in allowed.values() if kind.suffixes]
    rows = f"a list of ({', '.join(files)}) {'pairs' if len(files) == 2 else 'tuples'}, " if files else ""
    return f"{{{keys}}}, a DataFrame with these columns, {rows}or a folder"


def _columns(X: Any, allowed: Mapping[str, Modality]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The modalities' columns, and all others that a table has."""
    if isinstance(X, pd.DataFrame):
        table = {str(name): X[name] for name in X.columns}
        return {name: table.get(name) for name in allowed}, table
    if isinstance(X, Mapping):
        strange = [name for name in X if name not in allowed]
        if strange:
            *first, last = allowed
            keys = f"keys {', '.join(first)} and {last}" if first else f"key {last}"
            raise UserError(f"'X' must have the {keys}. Received: {strange[0]!r}")
        return {name: X.get(name) for name in allowed}, {}
    in_files = {name: kind.file_noun for name, kind in allowed.items() if kind.suffixes}
    if isinstance(X, tuple) and len(X) == len(in_files) and all(cell is None or _is_path(cell) for cell in X):
        X = [X]
    if not isinstance(X, list) or not all(isinstance(row, tuple | list) for row in X):
        raise UserError(f"'X' must be {_forms(allowed)}. Received: {_kind(X)}")
    for number, row in enumerate(X):
        if len(row) != len(in_files):
            wanted = " and ".join(f"a {noun}" for noun in in_files.values())
            raise UserError(f"'X': each row must be {wanted}. Found: {len(row)} values in row {number}")
    return {name: [row[place] for row in X] for place, name in enumerate(in_files)}, {}


def _column(name: str, values: Any, single: set[tuple[int, ...]]) -> tuple[Column, np.ndarray] | None:
    """A column, and which rows have something in it; None where none has. An array of a `single` shape is one row."""
    if values is None:
        return None
    if _is_path(values):
        values = [values]
    if not isinstance(values, list | tuple | pd.Series):
        values = np.asarray(values)
        if values.ndim and values.dtype.kind in "biuf":
            values = values[None] if values.shape in single else values
            return values, np.ones(len(values), bool)
        if values.ndim != 1 or values.dtype.kind not in "OU":
            raise UserError(f"'{name}' must be an array with a row for each sample. Received: {_described(values)}")
    cells = list(values)
    present = np.array([not _is_missing(cell) for cell in cells], bool)
    if cells and not present.any():
        return None
    full = [cell for cell in cells if not _is_missing(cell)]
    if all(map(_is_path, full)):
        return ["" if _is_missing(cell) else os.path.expanduser(os.fspath(cell)) for cell in cells], present
    if any(map(_is_path, full)):
        raise UserError(f"'{name}' must hold paths alone or arrays alone. Received: both")
    return _stacked(name, cells, present), present


def _stacked(name: str, cells: list[Any], present: np.ndarray) -> np.ndarray:
    """One array of the cells'; zeros where there is none."""
    arrays: list[Any] = [np.asarray(cell) if full else None for cell, full in zip(cells, present, strict=True)]
    first = next(array for array in arrays if array is not None)
    for row, array in enumerate(arrays):
        if array is None:
            continue
        if not array.ndim or array.dtype.kind not in "biuf":
            raise UserError(f"'{name}' must hold paths or arrays. Received: {_described(array)} in row {row}")
        if array.shape != first.shape:
            rule = f"'{name}' must hold arrays of one shape, {first.shape}"
            raise UserError(f"{rule}. Received: shape {array.shape} in row {row}")
    return np.stack([np.zeros_like(first) if array is None else array for array in arrays])


def _is_path(cell: Any) -> bool:
    return isinstance(cell, str | os.PathLike)


def _is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or an empty text."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def _kind(X: Any) -> str:
    return f"an array of shape {X.shape}" if isinstance(X, np.ndarray) else type(X).__name__


def _described(array: np.ndarray) -> str:
    return f"shape {array.shape}, {array.dtype}"


def column(values: Iterable[Any]) -> list[str]:
    """A column of a table as texts, "" where a cell is missing."""
    return ["" if _is_missing(cell) else str(cell) for cell in values]


@dataclass(frozen=True, eq=False)
class OwnData:
    """Data written beside a run, checked, and ready to be put into it.

    Args:
        folder: where they lie until they are placed, alone in a staging folder.
        data: what the config calls them, in the run.
        source: the data.
    """

    folder: Path
    data: str
    source: Source

    def place(self, run_folder: Path) -> None:
        """Moves the files into the run folder; it has all of them or none."""
        # Not at once into its place: the move to another disk is a copy.
        partial, place = run_folder / f"{PARTIAL}{OWN_DATA}", run_folder / OWN_DATA
        shutil.move(self.folder, partial)
        partial.rename(place)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        for array in (each.values for each in self.source.data.values()):
            if isinstance(array, np.memmap) and array.filename and Path(array.filename).parent == self.folder:
                # Rows are read by the file's name, which has just changed.
                array.filename = str(place / Path(array.filename).name)


@contextlib.contextmanager
def own_data(
    samples: Samples, label: Any, groups: Any, folder: Path, config: DataConfig, console: Console | None = None
) -> Iterator[OwnData]:
    """Within the block, a program's data as files beside a run folder to be; after it, they are placed or removed.

    Args:
        samples: the rows.
        label: (n,), of any values.
        groups: (n,), rows that belong together have the same; None: there are none.
        folder: the run folder to be.
        config: how they are read; its `data` is left aside.
        console: where progress is shown; None: nowhere.

    Raises:
        UserError: the data break a rule.
    """
    with staging(folder.parent, OWN_DATA) as parent:
        # Named as it will be, so that messages tell it from the user's files.
        place = parent / OWN_DATA
        written = write_samples(place, samples, label, groups)
        name = str(folder / OWN_DATA / MANIFEST if samples.are_files else folder / OWN_DATA)
        try:
            source = load(replace(config, data=str(written)), console)
        except UserError as error:
            raise UserError(in_terms_of_x(str(error), place)) from None
        own, read = read_classes(place / CLASSES).names, source.spec.class_names
        if set(own) != set(read):
            rule = "labels of files must be told apart by a table too, where 1.0 and 01 are the number 1"
            raise UserError(f"'y': {rule}. Found: {min(set(own) - set(read))!r}")
        yield OwnData(place, name, replace(source, info={**source.info, "name": name}))


@contextlib.contextmanager
def own_table(
    X: Any, y: Any, groups: Any, folder: Path, config: DataConfig, console: Console | None = None
) -> Iterator[OwnData]:
    """As `own_data`, of a DataFrame whose columns the config names.

    Args:
        X: the DataFrame.
        y: (n,), of any values; None: the column of the classes.
        groups: (n,), rows that belong together have the same; None: the column of groups, if there is one.
        folder: the run folder to be.
        config: its `columns` say what the columns are.
        console: where progress is shown; None: nowhere.

    Raises:
        UserError: X is no DataFrame, or the data break a rule.
    """
    with staging(folder.parent, OWN_DATA) as parent:
        place = parent / OWN_DATA
        write_table(place, X, y, groups, config.columns)
        try:
            source = load(replace(config, data=str(place / MANIFEST)), console)
        except UserError as error:
            raise UserError(in_terms_of_x(str(error), place)) from None
        name = str(folder / OWN_DATA / MANIFEST)
        yield OwnData(place, name, replace(source, info={**source.info, "name": name}))


def write_table(place: Path, X: Any, y: Any, groups: Any, columns: Sequence[str], known: Classes | None = None) -> Path:
    """Writes a labelled DataFrame into a new folder.

    Args:
        place: the folder to be.
        X: the DataFrame.
        y: (n,), of any values; None: the column of the classes.
        groups: (n,), rows that belong together have the same; None: the column of groups, if there is one.
        columns: what the columns are; see `kfusion.data.columns`.
        known: the classes that there may be; None: those that there are.

    Returns:
        The manifest.

    Raises:
        UserError: X is no DataFrame, a column is missing, or labels break a rule.
    """
    if not isinstance(X, pd.DataFrame):
        raise UserError(f"'columns' must be left out unless X is a DataFrame or a table. Received: {_kind(X)}")
    X = X.set_axis(list(map(str, X.columns)), axis=1)
    wanted, table = parse(columns), Table(Path("'X'"), tuple(X.columns))
    names = {name: [table.header[at] for at in places_of(table, name, parts)] for name, parts in wanted.items()}
    label_name = names.get("label", [LABELS[0]])[0]
    if y is None and label_name not in table.header:
        raise UserError("'y' must be given, or 'columns' name the classes: label=COLUMN. Received: neither")
    codes, classes = encode(X[label_name] if y is None else y, len(X), known)
    used = X[[column for of_name in names.values() for column in of_name if column != label_name]].copy()
    used[label_name] = [classes.names[code] for code in codes]
    if groups is not None and "group" not in names:
        used["group"] = column(groups)
    place.mkdir(parents=True)
    files = [of_name[0] for name, of_name in names.items() if name not in OTHERS]
    write_frame(place / MANIFEST, used, files)
    write_classes(place, classes)
    return place / MANIFEST


def write_frame(path: Path, frame: pd.DataFrame, may_be_files: Sequence[str]) -> None:
    """Writes a DataFrame as a manifest.

    Args:
        path: the file.
        frame: the columns.
        may_be_files: columns whose paths, if they hold paths, become whole: the manifest lies elsewhere.
    """
    whole = frame.copy()
    for name in may_be_files:
        if name in whole:
            whole[name] = [cell if _is_number(cell) else _whole_path(cell) for cell in whole[name]]
    write_atomically(path, lambda partial: whole.to_csv(partial, index=False))


def _whole_path(cell: Any) -> str:
    return str(Path(cell).expanduser().absolute())


def _is_number(cell: Any) -> bool:
    """Whether a cell is no path: a number, or nothing."""
    if not _is_path(cell) or _is_missing(cell):
        return True
    try:
        float(str(cell))
    except ValueError:
        return str(cell).casefold() in NOTHING
    return True


@contextlib.contextmanager
def staging(parent: Path, purpose: str) -> Iterator[Path]:
    """Within the block, a new folder, in which files wait for their place.

    A process that is killed leaves its folder behind: the next one removes it, told by its lock from one in use.

    Args:
        parent: where it lies; made where it is missing, and removed again if it stays empty.
        purpose: what it is for, the end of its name.
    """
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{PARTIAL}*-{purpose}"):
        with contextlib.suppress(UserError, OSError):
            lock(left).close()
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f"-{purpose}", dir=parent)).resolve()
    try:
        with lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def in_terms_of_x(message: str, place: Path) -> str:
    """A message about files that a program's data were written to, in the program's own words.

    Args:
        message: names the files.
        place: the folder that they were written to.
    """
    arrays = {modality(kind).array_file: f"X['{kind}']" for kind in kinds() if modality(kind).array_file}
    for name, word in {**arrays, "labels.npy": "'y'", "groups.npy": "'groups'", MANIFEST: "'X'"}.items():
        message = message.replace(str(place / name), word)
    return message.replace(str(place), "'X'")


def write_samples(place: Path, samples: Samples, label: Any, groups: Any, known: Classes | None = None) -> Path:
    """Writes labelled rows into a new folder.

    Args:
        place: the folder to be.
        samples: the rows; arrays must have every modality in each row, files every one or a single one.
        label: (n,).
        groups: (n,) or None.
        known: the classes that there may be; None: those that there are.

    Returns:
        What `load` reads: the folder, or the manifest in it.

    Raises:
        UserError: labels or groups break a rule, or a modality is missing.
    """
    codes, classes = encode(label, len(samples), known)
    if groups is not None and len(groups) != len(samples):
        raise UserError(f"'groups' must have one for each of the {len(samples)} rows. Received: {len(groups)}")
    if samples.are_files:
        place.mkdir(parents=True)
        _write_manifest(place / MANIFEST, samples, codes, classes, groups)
    else:
        modalities = tuple(name for name in samples.columns if not modality(name).allows_missing)
        missing = np.argwhere(~samples.where_present(modalities)) if modalities else np.zeros((0, 2), int)
        if len(missing):
            row, which = missing[0]
            rule = "a row of arrays must have every modality"
            raise UserError(f"'X': {rule}. Found: no {modality(modalities[which]).noun} in row {row}")
        place.mkdir(parents=True)
        for name, values in samples.columns.items():
            array = np.asarray(values)
            if not samples.present[name].all():
                array = np.where(samples.present[name].reshape(-1, *[1] * (array.ndim - 1)), array, np.nan)
            _write_array(place / modality(name).array_file, array)
        _write_array(place / "labels.npy", codes)
        if groups is not None:
            _write_array(place / "groups.npy", np.unique(column(groups), return_inverse=True)[1].astype(np.int64))
    write_classes(place, classes)
    return place / MANIFEST if samples.are_files else place


def _write_array(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda partial: np.save(partial, array, allow_pickle=False))


def _write_manifest(path: Path, samples: Samples, codes: np.ndarray, classes: Classes, groups: Any) -> None:
    """The files by their whole paths: the manifest will lie in a run folder."""
    names, empty = classes.names, [""] * len(samples)
    group = empty if groups is None else column(groups)
    speaker = column(samples.more["speaker"]) if "speaker" in samples.more else empty

    modalities = tuple(samples.columns)

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow([*modalities, "label", "group", "speaker"])
            for files, code, *rest in zip(samples.names(modalities), codes, group, speaker, strict=True):
                whole = [str(Path(name).absolute()) if name else "" for name in files]
                table.writerow([*whole, names[code], *rest])

    write_atomically(path, write)
