"""The rows of each modality, their classes, and how they are paired: what data become, and what training reads.

A `Source` is everything that a folder or package holds; a `Pairs` is one part of it (training, validation or test).
Both keep rows into the arrays, never copies of them. `Classes` turns labels of any values into codes 0 … K-1 and back.
Those of data that a program gives lie beside the data as `kfusion_classes.json`: `{"dtype": "<i8", "values": [3, 7]}`.
So a run knows its classes by their real names, and a classifier predicts in the very type of the labels that it was
fitted on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

import numpy as np

from kfusion.data.array_files import open_array, read_rows
from kfusion.io import read_json, write_json
from kfusion.modalities import modality
from kfusion.run_dir import CLASSES
from kfusion.spec import Spec
from kfusion.validation import UserError, broken


@dataclass(frozen=True, eq=False)
class ModalityData:
    """The rows of one modality.

    Args:
        values: (N, ...), any real dtype, in the data's own unit; an array or a memory map.
        label: int64 (n,), in [0, num_classes), for each row in use.
        group: int64 (n,); rows with the same id must stay in one part, since they show or hold the same.
        row: int64 (n,), the rows of `values` in use; all of them if left out.
        speaker: int64 (n,), index into the source's `speaker_names`; None where nobody knows.
        present: bool (n,), which rows in use have this modality at all; None: all have. The values of others mean
            nothing, and their groups are their own.
        origin: int64 (n,), index into the source's `origins`; None where there is but one.
        copies: (N, K, ...), changed versions of each row of `values`, of which training draws; zeros: the row itself;
            None: there are none.
        files: (N,), what each row of `values` was read from, "" for no file; None: they come from no files.
    """

    values: np.ndarray
    label: np.ndarray
    group: np.ndarray
    row: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    speaker: np.ndarray | None = None
    present: np.ndarray | None = None
    origin: np.ndarray | None = None
    copies: np.ndarray | None = None
    files: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.row is None:
            object.__setattr__(self, "row", np.arange(len(self.values)))

    def __len__(self) -> int:
        return len(self.label)

    def is_present(self, positions: np.ndarray) -> np.ndarray:
        """Which of some rows in use have this modality: bool (k,)."""
        return np.ones(len(positions), bool) if self.present is None else self.present[positions]

    def take(self, positions: np.ndarray) -> "ModalityData":
        """Some of the rows in use, in the order of `positions`, int (k,), each in [0, n)."""
        speaker = None if self.speaker is None else self.speaker[positions]
        present = None if self.present is None else self.present[positions]
        label, group, row = self.label[positions], self.group[positions], self.row[positions]
        origin = None if self.origin is None else self.origin[positions]
        return ModalityData(self.values, label, group, row, speaker, present, origin, self.copies, self.files)

    def file(self, positions: np.ndarray) -> np.ndarray | None:
        """What some of the rows in use were read from, (k,), "" where a row has no file; None: from no files."""
        if self.files is None:
            return None
        return np.where(self.is_present(positions), self.files[self.row[positions]], "")


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
        origins: what the sources are called that this one is made of; none where it is one by itself.
    """

    data: dict[str, ModalityData]
    aligned: bool
    spec: Spec
    info: dict[str, Any] = field(default_factory=dict)
    speaker_names: tuple[str, ...] = ()
    official_test: Union["Source", None] = None
    official_val: Union["Source", None] = None
    notes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ModalityData:
        return self.data[name]

    @property
    def anchor(self) -> ModalityData:
        """The first modality: its labels are the pairs', and others are chosen to go with its rows."""
        return next(iter(self.data.values()))

    @property
    def spoken(self) -> str:
        """The modality of which it is known who speaks; "" where there is none."""
        return next((name for name, data in self.data.items() if data.speaker is not None), "")

    def origin(self, pairs: "Pairs") -> dict[str, np.ndarray]:
        """From which of `origins` each of some of its samples has each modality, -1: from none, since it lacks it.

        Empty where the source is one by itself.
        """
        rows = {name: self.data[name].origin for name in pairs.positions}
        return {
            name: np.where(pairs.is_present(name), origin[pairs.positions[name]], -1)
            for name, origin in rows.items()
            if origin is not None
        }

    def files(self, pairs: "Pairs") -> dict[str, np.ndarray]:
        """The files of some of its samples, "" for none; of the modalities that come from files."""
        found = {name: self.data[name].file(positions) for name, positions in pairs.positions.items()}
        return {name: files for name, files in found.items() if files is not None}

    def take(self, positions: dict[str, np.ndarray]) -> "Source":
        """Some rows of each modality, by positions in [0, n); without official parts."""
        data = {name: data.take(positions[name]) for name, data in self.data.items()}
        return replace(self, data=data, official_test=None, official_val=None)

    def pairs(self, positions: dict[str, np.ndarray]) -> "Pairs":
        """Samples made of one row of each modality.

        Args:
            positions: int (k,) for each modality, in [0, its rows in use).
        """
        some_lack = any(data.present is not None for data in self.data.values())
        return Pairs(
            values={name: data.values for name, data in self.data.items()},
            rows={name: data.row[positions[name]] for name, data in self.data.items()},
            label=self.anchor.label[next(iter(positions.values()))],
            spec=self.spec,
            positions={name: np.asarray(positions[name], np.int64) for name in self.data},
            present={name: data.is_present(positions[name]) for name, data in self.data.items()} if some_lack else None,
            copies={name: data.copies for name, data in self.data.items() if data.copies is not None},
            origins={name: data.origin[positions[name]] for name, data in self.data.items() if data.origin is not None},
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
        present: bool (n,) for each modality, which samples have it; None: all have all of them.
        copies: for each modality that has them, changed versions of the rows of its array; see `ModalityData`.
        origins: for each modality of several sources, int64 (n,), each sample's source.
    """

    values: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    label: np.ndarray
    spec: Spec
    labels: dict[str, np.ndarray] = None  # pyright: ignore[reportAssignmentType]
    positions: dict[str, np.ndarray] = None  # pyright: ignore[reportAssignmentType]
    present: dict[str, np.ndarray] | None = None
    copies: dict[str, np.ndarray] = field(default_factory=dict)
    origins: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is None:
            object.__setattr__(self, "labels", dict.fromkeys(self.values, self.label))
        if self.positions is None:
            object.__setattr__(self, "positions", self.rows)

    def __len__(self) -> int:
        return len(self.label)

    def take(self, places: np.ndarray) -> "Pairs":
        """Some of the samples, in the order of `places`, int (k,), each in [0, len(self))."""

        def of(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: column[places] for name, column in columns.items()}

        names = ("rows", "labels", "positions", "origins")
        columns = {name: of(getattr(self, name)) for name in names}
        return replace(self, label=self.label[places], present=self.present and of(self.present), **columns)

    @property
    def windowed(self) -> "Pairs":
        """The same samples, of which `read` draws windows of long files, but no changed copies."""
        cut = [name for name in self.copies if modality(self.spec[name]).windows(self.spec[name])]
        copies = {name: self.copies[name] for name in cut}
        return replace(self, copies=copies)

    @property
    def num_versions(self) -> int:
        """Among how many versions of a sample `read` draws: itself and its copies."""
        return 1 + max((copies.shape[1] for copies in self.copies.values()), default=0)

    def is_present(self, name: str) -> np.ndarray:
        """Which samples have a modality: bool (n,)."""
        return np.ones(len(self), bool) if self.present is None else self.present[name]

    def seen(self, places: np.ndarray) -> np.ndarray:
        """What some samples have: bool (n, modalities), in the spec's order."""
        return np.stack([self.is_present(name)[places] for name in self.values], axis=1)

    def read(self, places: np.ndarray, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The contents of some samples, in the data's own units.

        Args:
            places: int (n,), in [0, len(self)).
            draws: int64 (n,), the samples' keys, which choose among a sample and its copies; None: the samples.

        Returns:
            float32 (n, *shape) for each modality; zeros, or NaN where it may be missing, for a sample that lacks it.
        """
        contents = {}
        for name, values in self.values.items():
            read = read_rows(values, self.rows[name][places]).astype(np.float32, copy=False)
            contents[name] = read.reshape(-1, *self.spec[name].shape)
            if draws is not None and name in self.copies:
                chosen = draws % (self.copies[name].shape[1] + 1)
                changed = self.copies[name][self.rows[name][places], np.maximum(chosen - 1, 0)]
                changed = changed.reshape(len(read), -1)
                # Zeros are no copy, as of a short sound beside long ones.
                is_copy = (chosen > 0) & changed.any(axis=1)
                changed = np.where(is_copy[:, None], changed, read.reshape(changed.shape))
                contents[name] = changed.reshape(contents[name].shape).astype(np.float32)
            if self.present is not None and not (here := self.present[name][places]).all():
                contents[name] = contents[name].copy()
                contents[name][~here] = np.nan if modality(self.spec[name]).allows_missing else 0
        return contents

    def repaired(self, rng: np.random.Generator, conflict: float = 0.0) -> "Pairs":
        """The same samples of the first modality, each with others of its class from among this part's.

        Given its class, an image tells nothing about a sound: any of the class is as good a partner, and new partners
        keep a network from learning the pairs by heart. A sample that lacks a modality goes on lacking it. Of several
        sources each that has the class is heard as often as the others, however few its rows.

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
            here = np.flatnonzero(self.is_present(name))
            labelled = (self.rows[name] * self.spec.num_classes + self.labels[name])[here]
            pool = here[np.unique(labelled, return_index=True)[1]]
            pool_label = self.labels[name][pool]
            if conflict > 0 and name == others[0]:
                in_conflict = rng.random(len(self)) < conflict
                if self.present is not None:
                    together = self.present[first] & np.any([self.present[other] for other in others], axis=0)
                    in_conflict &= together
                wanted = np.where(in_conflict, _other_labels(self.label, pool_label, rng), wanted)
            # Nobody else can stand in for a modality that is absent.
            chosen = np.arange(len(self))
            label = wanted[here]
            if name in self.origins:
                label, pool_label = _by_origin(label, pool_label, self.origins[name][pool], rng)
            chosen[here] = pool[pair_by_label(label, pool_label, rng)]
            rows[name], positions[name] = self.rows[name][chosen], self.positions[name][chosen]
        labels = {first: self.labels[first], **dict.fromkeys(others, wanted)}
        return replace(self, rows=rows, positions=positions, labels=labels)


def require_something(data: Mapping[str, ModalityData], rows: np.ndarray, where: Path) -> None:
    """Checks that each row of an aligned source has a modality.

    Args:
        data: of each modality.
        rows: int (n,), what the rows are called in a message.
        where: the folder or file that they come from.

    Raises:
        UserError: a row has none.
    """
    nothing = np.flatnonzero(~np.any([each.is_present(np.arange(len(rows))) for each in data.values()], axis=0))
    if len(nothing):
        raise broken(where, f"each row must have a value of {' or '.join(data)}", f"none in row {rows[nothing[0]]}")


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


def _by_origin(
    label: np.ndarray, pool_label: np.ndarray, origin: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Both labels made finer by a source: the pool's by its own, the others' by one that has the class, at random."""
    num = int(origin.max()) + 1
    has = np.zeros((int(max(label.max(), pool_label.max())) + 1, num), bool)
    has[pool_label, origin] = True
    drawn = np.argmax(rng.random((len(label), num)) * has[label], axis=1)
    return label * num + drawn, pool_label * num + origin


def _other_labels(label: np.ndarray, pool_label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each label another one that the pool has."""
    classes = np.unique(pool_label)
    if len(classes) < 2:
        raise ValueError(f"'conflict' must be 0 where all rows are of one class. Received: class {classes.tolist()}")
    shift = rng.integers(1, len(classes), len(label))
    return classes[(np.searchsorted(classes, label) + shift) % len(classes)]


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of some labels.

    Args:
        values: (K,), different ones, of the labels' own dtype; code k means `values[k]`.
    """

    values: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes are called in tables, figures and exported models."""
        return tuple(class_name(value) for value in self.values.tolist())

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        dtype = self.values.dtype
        return {"dtype": "object" if dtype.hasobject else dtype.str, "values": self.values.tolist()}


def class_name(value: Any) -> str:
    """A label as a text: the float 3.0 is called 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def encode(label: Any, num_rows: int | None = None, known: Classes | None = None) -> tuple[np.ndarray, Classes]:
    """Labels as codes.

    Args:
        label: (n,) or (n, 1): texts, whole numbers or booleans.
        num_rows: n, where it is known.
        known: the classes that there may be; None: those that there are, sorted.

    Returns:
        int64 (n,), in [0, K), and the classes.

    Raises:
        UserError: another shape, a missing label, or one that is neither a text nor a whole number.
    """
    array = np.asarray(label)
    array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or not len(array):
        raise UserError(f"'y' must have the shape (N,), N ≥ 1. Received: shape {array.shape}")
    if num_rows not in (None, len(array)):
        raise UserError(f"'y' must have one label for each of the {num_rows} rows. Received: {len(array)} labels")
    array = _checked(array)
    if known is not None:
        place = {value: code for code, value in enumerate(known.values.tolist())}
        unknown = [value for value in array.tolist() if value not in place]
        if unknown:
            shown = ", ".join(known.names[:6]) + (" …" if len(known.names) > 6 else "")
            raise UserError(f"'y' must hold the classes of the run ({shown}). Received: {unknown[0]!r}")
        return np.array([place[value] for value in array.tolist()], np.int64), known
    values, codes = np.unique(array, return_inverse=True)
    classes = Classes(values)
    twice = [name for name in classes.names if classes.names.count(name) > 1]
    if twice or "" in classes.names:
        rule = "labels must be texts that are not empty, and differ by more than spaces"
        raise UserError(f"'y': {rule}. Found: {twice[0] if twice else ''!r}")
    if len(values) < 2:
        raise UserError(f"'y' must have at least two classes. Received: only {classes.names[0]!r}")
    return codes.reshape(-1).astype(np.int64), classes


def _checked(array: np.ndarray) -> np.ndarray:
    """The labels, each a text, a whole number or a boolean; those as bytes as texts."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind == "O":
        for row, value in enumerate(array.tolist()):
            if not isinstance(value, str | bool | int | np.integer):
                missing = value is None or value != value or str(value) in ("<NA>", "NaT")
                rule = "each row must have a label, a text or a whole number"
                raise UserError(f"'y': {rule}. Found: {'none' if missing else repr(value)} in row {row}")
        kinds = {isinstance(value, str) for value in array.tolist()}
        if len(kinds) > 1:
            raise UserError("'y' must hold texts or whole numbers, not both. Received: both")
        return array
    if array.dtype.kind not in "biufU":
        raise UserError(f"'y' must hold texts or whole numbers. Received: dtype {array.dtype}")
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~(np.isfinite(array) & (array == np.floor(array))))
        if len(wrong):
            raise UserError(f"'y' must hold texts or whole numbers. Received: {array[wrong[0]]} in row {wrong[0]}")
    return array


def of_names(names: tuple[str, ...]) -> Classes:
    """The classes of data that came with names alone: 0, 1, … as numbers, as predictions have them, else the names."""
    numbers = np.arange(len(names))
    return Classes(numbers if names == tuple(map(str, numbers)) else np.array(names, dtype=object))


def read_classes(path: Path) -> Classes:
    """The content of a `kfusion_classes.json`.

    Raises:
        UserError: it is damaged.
    """
    content = read_json(path)
    try:
        classes = Classes(np.array(content["values"], np.dtype(content["dtype"])))
        names = set(classes.names)
    except (LookupError, TypeError, ValueError) as error:
        raise broken(path, "must hold the dtype and the values of the classes", error) from None
    if classes.values.ndim != 1 or not 2 <= len(names) == len(classes.values):
        raise broken(path, "must hold at least two different classes", content["values"])
    return classes


def write_classes(folder: Path, classes: Classes) -> None:
    """Writes `kfusion_classes.json` into a folder."""
    write_json(folder / CLASSES, classes.to_json())


def read_coded(labels: Path, classes: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels that are codes, with the names of their classes.

    Args:
        labels: an .npy file, int (n,), each in [0, K).
        classes: the `kfusion_classes.json` beside it.

    Returns:
        int64 (n,), and the K class names.

    Raises:
        UserError: a file is damaged, or a code means no class.
    """
    names, array = read_classes(classes).names, open_array(labels, "iu", "codes of classes")
    if array.ndim != 1:
        raise broken(labels, "must have the shape (N,)", f"shape {array.shape}")
    codes = np.array(array).astype(np.int64)
    if codes.min() < 0 or codes.max() >= len(names):
        raise broken(labels, f"labels must be codes of the {len(names)} classes in {classes.name}", int(codes.max()))
    return codes, names
