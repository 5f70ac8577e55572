"""A folder of .npy files -> a `Source`: opened, checked and fingerprinted; the rows stay on disk.

Three layouts are told apart by their file names (`layouts`, which prediction uses too):

| layout      | images              | sounds              | labels                    | test files                |
| ----------- | ------------------- | ------------------- | ------------------------- | ------------------------- |
| competition | x_train_wr.npy      | x_train_sp.npy      | y_train.csv               | x_test_…, labels by option |
| zenodo      | data_wr_train.npy   | data_sp_train.npy   | labels_train.npy          | …_test.npy                |
| own         | images.npy          | audio.npy           | labels.npy, .csv …        |                           |

kfusion's own layout has a file for each kind of modality (`Modality.array_file`), any of which may be missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kfusion.data.array_files import (
    blank_lines,
    first_of_each_class,
    group_ids,
    list_folder,
    open_array,
    own_groups,
    scan_finite,
)
from kfusion.data.dataset import ModalityData, Source, read_coded, require_something
from kfusion.data.splits import joined
from kfusion.data.tables import read_classes, read_digits, read_groups
from kfusion.modalities import kinds, modality
from kfusion.run_dir import CLASSES
from kfusion.spec import DIGITS, Spec
from kfusion.validation import UserError, broken


@dataclass(frozen=True)
class LayoutFiles:
    """The names of files that belong together, row by row.

    Args:
        arrays: for each modality the file of its rows.
        labels: the file of the classes; "" where they come from elsewhere.
    """

    arrays: dict[str, str]
    labels: str


@dataclass(frozen=True)
class Layout:
    """Which files a layout has.

    Args:
        name: what it is called in messages and in the run folder.
        train: the labelled files.
        test: the test files; without a name for the labels where these come from elsewhere.
        labels_too: other names that the labels may have.
        groups: an optional file with a group for each row.
        classes: an optional file with the classes' names; the labels are then codes.
        known: the grid of each modality where the layout fixes it: then the classes are the digits, and all arrays must
            be there. Else sizes and classes come from the files, and so do the modalities.
    """

    name: str
    train: LayoutFiles
    test: LayoutFiles | None = None
    labels_too: tuple[str, ...] = ()
    groups: str = ""
    classes: str = ""
    known: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The names of all training files."""
        return {*self.train.arrays.values(), self.train.labels, *self.labels_too}


def _published(name: str, train: tuple[str, ...], test: tuple[str, ...]) -> Layout:
    """A layout of the digits: the files of the images, of the sounds and of the labels."""
    digits = Spec().modalities
    labelled, tested = (LayoutFiles(dict(zip(digits, arrays, strict=True)), last) for *arrays, last in (train, test))
    return Layout(name, labelled, tested, known={name: shape.grid for name, shape in digits.items()})


_PUBLISHED = (
    _published(
        "competition", ("x_train_wr.npy", "x_train_sp.npy", "y_train.csv"), ("x_test_wr.npy", "x_test_sp.npy", "")
    ),
    _published(
        "zenodo",
        ("data_wr_train.npy", "data_sp_train.npy", "labels_train.npy"),
        ("data_wr_test.npy", "data_sp_test.npy", "labels_test.npy"),
    ),
)


def layouts() -> tuple[Layout, ...]:
    """All layouts; kfusion's own has a file for each kind of modality that is registered."""
    own = {kind: modality(kind).array_file for kind in kinds() if modality(kind).array_file}
    files, tables = LayoutFiles(own, "labels.npy"), ("labels.csv", "labels.tsv", "labels.xlsx")
    return (*_PUBLISHED, Layout("own", files, labels_too=tables, groups="groups.npy", classes=CLASSES))


def has_layout(names: Sequence[str]) -> bool:
    """Whether any layout's files are among these names of a folder."""
    return any(layout.names & set(names) for layout in layouts())


def recognise(folder: Path) -> tuple[Layout, set[str]]:
    """The layout most of whose files are there, and the names in the folder.

    Raises:
        UserError: none of any layout's files is there, or the folder cannot be read.
    """
    present = list_folder(folder)
    layout = max(layouts(), key=lambda layout: len(layout.names & set(present)))
    if not layout.names & set(present):
        known = "; ".join(
            f"{layout.name}: {', '.join(layout.train.arrays.values())}, "
            + " or ".join((layout.train.labels, *layout.labels_too))
            for layout in layouts()
        )
        known += "; media: a subfolder for each class, with .png, .jpg and .wav files"
        some = ", ".join(present[:8]) + (f" and {len(present) - 8} more" if len(present) > 8 else "")
        raise broken(folder, f"must hold the files of a layout ({known})", some or "an empty folder")
    return layout, set(present)


def labels_file(layout: Layout, present: set[str], folder: Path) -> Path:
    """The one file with the labels.

    Args:
        layout: of the folder.
        present: the names in it.
        folder: the folder.

    Raises:
        UserError: there are two.
    """
    names = [name for name in (layout.train.labels, *layout.labels_too) if name in present]
    if len(names) > 1:
        raise broken(folder, "must hold its labels once", " and ".join(names))
    return folder / (names[0] if names else layout.train.labels)


_LICENCE = "as published with the files (the original: Khacef, Rodriguez, Miramond 2019, Zenodo 3515935)"


@dataclass(frozen=True, eq=False)
class _Part:
    """Files that belong together, checked and scanned, with the fingerprints of the rows in use."""

    source: Source
    paths: dict[str, Path]
    keys: dict[str, np.ndarray]


def load_folder(data: str, test_labels: str, limit: int) -> Source:
    """Reads a folder in the competition's layout, Zenodo's, or kfusion's own.

    Args:
        data: the folder.
        test_labels: a CSV with the labels of the competition's test files; "": these are not used.
        limit: rows to use at most, of the training and of the test files; 0: all.

    Returns:
        An aligned source; its arrays are memory maps.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    folder = Path(data)
    layout, present = recognise(folder)
    if test_labels and layout.name != "competition":
        rule = "'test_labels' must be empty unless the data are in the competition's layout"
        raise UserError(f"{rule}. Received: {test_labels!r} with the layout {layout.name}")
    labels_path = labels_file(layout, present, folder)
    if layout.classes in present:
        label, names = read_coded(labels_path, folder / layout.classes)
    else:
        label, names = (read_digits(labels_path), DIGITS) if layout.known else read_classes(labels_path)
    train = _open_part(layout, _array_paths(layout, folder, present), labels_path, label, names, limit)
    test = _open_test(folder, layout, present, test_labels, limit)
    if test:
        return _with_test(train, test)
    source = _grouped(train.source, {name: group_ids(key)[0] for name, key in train.keys.items()})
    return _with_groups(source, folder / layout.groups) if layout.groups in present else source


def _array_paths(layout: Layout, folder: Path, present: set[str]) -> dict[str, Path]:
    """The file of each modality: all of a published layout's, those that are there of kfusion's own."""
    files = layout.train.arrays
    used = files if layout.known else {name: file for name, file in files.items() if file in present}
    if not used:
        raise broken(folder, f"must hold {' or '.join(files.values())}, or several of them", "labels alone")
    return {name: folder / file for name, file in used.items()}


def _alone(layout: Layout, names: Sequence[str]) -> list[str]:
    """A line where one kind alone is there: the file of another may have been forgotten."""
    # Only of what comes in files too: nobody forgets the numbers of a table.
    absent = [file for name, file in layout.train.arrays.items() if name not in names and modality(name).suffixes]
    if len(names) > 1 or not absent:
        return []
    return [f"only {modality(names[0]).noun}s: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not there"]


def _open_part(
    layout: Layout, paths: dict[str, Path], labels_path: Path, label: np.ndarray, names: tuple[str, ...], limit: int
) -> _Part:
    """Shapes and lengths first, since they cost nothing; then one pass over each file."""
    arrays, shapes, notes = {name: open_array(path) for name, path in paths.items()}, {}, _alone(layout, [*paths])
    for name, array in arrays.items():
        shapes[name], note = modality(name).spec_of(array.shape, paths[name], 1, layout.known.get(name, ()))
        notes += [note] if note else []
        arrays[name] = modality(name).in_order(array, shapes[name])
    first, *others = paths
    num_rows = len(arrays[first])
    for path, length in [*((paths[name], len(arrays[name])) for name in others), (labels_path, len(label))]:
        if length != num_rows:
            raise broken(path, f"must have as many rows as {paths[first].name} ({num_rows})", f"{length} rows")
    rows, scans = first_of_each_class(label, limit), {}
    for name, array in arrays.items():
        scans[name] = scan_finite(array, rows, paths[name], modality(name).allows_missing)
        scale = modality(name).scale_of(scans[name].low, scans[name].high, paths[name])
        shapes[name] = replace(shapes[name], scale=scale)
    notes += [line for name, scanned in scans.items() for line in blank_lines(scanned, paths[name].name)]
    info = {
        "name": str(paths[first].parent),
        "layout": layout.name,
        "files": {path.name: path.stat().st_size for path in (*paths.values(), labels_path)},
        "front_end": None,
        **{f"{name}_range": [scanned.low, scanned.high] for name, scanned in scans.items()},
        "licence": _LICENCE if layout.known else None,
    }
    present = {name: scanned.present for name, scanned in scans.items()}
    data = {name: ModalityData(a, label[rows], rows, rows, present=present[name]) for name, a in arrays.items()}
    require_something(data, rows, paths[first].parent)
    source = Source(data, True, Spec(shapes, names), info, notes=tuple(notes))
    return _Part(source, paths, {name: scanned.fingerprint for name, scanned in scans.items()})


def _open_test(folder: Path, layout: Layout, present: set[str], test_labels: str, limit: int) -> _Part | None:
    """The data's own test files, if they and their labels are there."""
    if layout.test is None:
        return None
    files = layout.test
    if not test_labels and not present.issuperset((*files.arrays.values(), files.labels)):
        return None
    labels_path = Path(test_labels) if test_labels else folder / files.labels
    paths = {name: folder / file for name, file in files.arrays.items()}
    return _open_part(layout, paths, labels_path, read_digits(labels_path), DIGITS, limit)


def _with_test(train: _Part, test: _Part) -> Source:
    """The training files' source, with the test files' as its official test and ids that hold for both."""
    for name, own in train.source.spec.modalities.items():
        if test.source.spec[name].scale != own.scale:
            rule = f"pixels must be on the scale of {train.paths[name].name} (0-{own.scale})"
            raise broken(test.paths[name], rule, f"0-{test.source.spec[name].scale}")
    groups = {name: group_ids(key, test.keys[name]) for name, key in train.keys.items()}
    official = _grouped(test.source, {name: both[1] for name, both in groups.items()})
    files = {**train.source.info["files"], **test.source.info["files"]}
    return replace(
        _grouped(train.source, {name: both[0] for name, both in groups.items()}),
        info={**train.source.info, "files": files},
        official_test=official,
        notes=train.source.notes + test.source.notes,
    )


def _grouped(source: Source, group: dict[str, np.ndarray]) -> Source:
    """The source with other ids."""
    own = {name: own_groups(group[name], data.present) for name, data in source.data.items()}
    return replace(source, data={name: replace(data, group=own[name]) for name, data in source.data.items()})


def _with_groups(source: Source, path: Path) -> Source:
    """Rows of one group of the user's count as one sample of the last modality, and so stay in one part."""
    groups, (name, last) = read_groups(path), list(source.data.items())[-1]
    if len(groups) != len(last.values):
        nouns = f"{modality(source.spec.names[0]).noun}s"
        raise broken(path, f"must have as many rows as the {nouns} ({len(last.values)})", f"{len(groups)} rows")
    files = {**source.info["files"], path.name: path.stat().st_size}
    info = {**source.info, "files": files, "grouped_by": path.name}
    together = replace(last, group=joined(last.group, groups[last.row]))
    return replace(source, data={**source.data, name: together}, info=info)
