"""Which media files there are, their classes, and which belong together: from a folder or a manifest.

A folder has one subfolder for each class, named like it; files may lie at any depth in there:

    digits/three/0001.png                digits/three/images/a.png
    digits/three/0001.wav                digits/three/sounds/b.wav

What a file is, its ending says (`Modality.suffixes`). Where each file has a partner of every other kind, of the same
path up to the ending, as on the left, they belong together. Where none has, as on the right, any picture of a class may
meet any of its sounds. Files of one kind alone are a data set of one modality. Subfolders called train, val and test
(`PART_NAMES`), each with the classes' folders, are the parts of a split that somebody has made.

A manifest is a table, CSV, Excel or Parquet, with a column for each kind (image, audio) and the column label; its paths
count from its own folder. A row with a file of each kind belongs together. A table whose rows have one file each, the
others left empty, has files that meet by label. The columns `group` (rows that belong together, and so to one part of a
split) and `speaker` are optional. Where only some rows lack a file, each row is used for what it has. Names of columns
count in any case, and by their common names: `image_path` or `photo` is a column of images, `class` or `target` of
labels (`tables.LABELS`), and `filename` or `path` is one of what its files are, where no column says so by its name.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kfusion.data.array_files import first_of_each_class, list_folder
from kfusion.data.tables import (
    MISSING,
    NOTHING,
    SUFFIXES,
    Table,
    column_key,
    named_file,
    open_table,
    plain_numbers,
    shown,
)
from kfusion.modalities import is_visible, kind_named, kind_of_file, kind_that_reads, kinds, modality
from kfusion.modalities.base import Modality
from kfusion.validation import broken

PARTS = TRAINING, VALIDATION, TEST = "training", "validation", "test"
PART_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What folders of a split are called, in any case, and the part that each is."""


ABSENT = Path()
"""The path of what is no file."""


@dataclass(frozen=True)
class Item:
    """One file, or one row of numbers, and what is known of it.

    Args:
        path: the file; `ABSENT` where a row has none.
        label: the name of its class.
        group: files of the same one stay in one part of a split; "" where there are none.
        speaker: who speaks; "" where nobody knows.
        part: the part of the data's own split; "" where they have none.
        row: the row of the numbers; -1 where there are none.
    """

    path: Path
    label: str
    group: str = ""
    speaker: str = ""
    part: str = ""
    row: int = -1

    @property
    def is_present(self) -> bool:
        """Whether there is a file or numbers."""
        return self.path != ABSENT or self.row >= 0


@dataclass(frozen=True)
class Listing:
    """All files of a data set.

    Args:
        where: the folder or the manifest.
        layout: what this kind is called in messages and in the run folder.
        items: the files of each modality, in a fixed order; those of one place belong together if `aligned`.
        aligned: whether the modalities' files belong together already.
        num_ignored: files in the classes' folders that are of no kind.
        notes: what should be said of the files before training, a line each.
        values: of modalities that are numbers of a table: their rows, float32 (n, d).
        columns: see `data.columns.Columns`; empty where nobody says what the columns of a table are.
    """

    where: Path
    layout: str
    items: dict[str, tuple[Item, ...]]
    aligned: bool
    num_ignored: int = 0
    notes: tuple[str, ...] = ()
    values: dict[str, np.ndarray] = field(default_factory=dict)
    columns: dict[str, str | list[str]] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Numbers in their order, else names in theirs."""
        names = {item.label for item in self.everything}
        numbers = all(name.isdecimal() for name in names)
        return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the data's own split, training first; ("",) where they have none."""
        parts = {item.part for item in self.everything}
        return tuple(part for part in ("", *PARTS) if part in parts)

    def limited(self, limit: int) -> "Listing":
        """At most so many files of each modality in each part, evenly over the classes; 0: all."""
        some = {
            name: tuple(item for part in self.parts for item in _limited([i for i in items if i.part == part], limit))
            for name, items in self.items.items()
        }
        return replace(self, items=some)

    @property
    def everything(self) -> list[Item]:
        """The files of all modalities."""
        return [item for items in self.items.values() for item in items]


def _limited(items: list[Item], limit: int) -> list[Item]:
    label = np.unique([item.label for item in items], return_inverse=True)[1]
    return [items[row] for row in first_of_each_class(label, limit)]


def is_media_folder(names: Sequence[str], folder: Path) -> bool:
    """Whether some subfolder holds a file of a known kind, of whatever format.

    Args:
        names: of what is in the folder.
        folder: the folder.
    """
    return any(kind_of_file(path.name) for name in filter(is_visible, names) for path in files_below(folder / name))


def list_media(folder: Path) -> Listing:
    """The files of a folder with a subfolder for each class, or with such subfolders for each part of a split.

    Raises:
        UserError: fewer than two classes, a class without files of some kind, only some that belong together, or
            subfolders that are no classes.
    """
    below = {name: files_below(folder / name) for name in filter(is_visible, list_folder(folder))}
    parts, notes = parts_of(folder, below)
    items, outside = [], [folder / name for name in below if (folder / name).is_file()]
    for name, paths in below.items():
        for path in paths:
            inside = path.relative_to(folder / name).parts
            if not parts:
                items.append(Item(path, name))
            elif name in parts and len(inside) > 1:
                items.append(Item(path, inside[0], part=parts[name]))
            else:
                outside.append(path)
    unread = [item for item in items if not kind_that_reads(item.path.name)]
    items, same = _as_numbers([item for item in items if kind_that_reads(item.path.name)])
    if not items:
        readable = ", and ".join(f"{kind.file_noun}s that are {kind.formats}" for kind in _kinds_of_files().values())
        files = [*(item.path for item in unread), *outside]
        raise broken(folder, f"must hold {readable}, in a subfolder for each class", endings(map(_name, files)))
    of_kind = {name: [item for item in items if kind_that_reads(item.path.name) == name] for name in _kinds_of_files()}
    meant = {name: files for name, files in of_kind.items() if files or _is_in_each_class(name, unread, items)}
    files, aligned = _paired(meant)
    notes += same + _left_out([item.path for item in unread], outside)
    absent = [kind for name, kind in _kinds_of_files().items() if name not in meant]
    notes += _alone([*meant], [f"no {kind.file_noun}s ({kind.formats})" for kind in absent])
    return checked(Listing(folder, "media folder", files, aligned, len(unread), tuple(notes)))


def _kinds_of_files() -> dict[str, Modality]:
    """The kinds that come in files."""
    return {name: modality(name) for name in kinds() if modality(name).suffixes}


def _name(path: Path) -> str:
    return path.name


def _is_in_each_class(kind: str, unread: list[Item], items: list[Item]) -> bool:
    """Whether each class has files of a kind in formats that are not read: then it is not left out on purpose."""
    unread, _ = _as_numbers([item for item in unread if kind_of_file(item.path.name) == kind])
    return {item.label for item in items} <= {item.label for item in unread}


def _alone(names: list[str], absent: list[str]) -> list[str]:
    """A line where files of one kind alone are there: others may have been forgotten."""
    return [f"only {modality(names[0]).file_noun}s: {' and '.join(absent)}"] if len(names) == 1 and absent else []


def parts_of(folder: Path, below: dict[str, list[Path]]) -> tuple[dict[str, str], list[str]]:
    """Which part of a split each subfolder is; none where they are classes.

    They are parts where all of them are called like parts and one has subfolders as classes have: with files of each
    kind. Folders that have such subfolders of the same names, and are called otherwise, might be anything.

    Args:
        folder: of the data.
        below: the files below each of its subfolders.

    Returns:
        {subfolder: part}, and what should be said.

    Raises:
        UserError: subfolders might be classes or something else, or are parts without one to train on.
    """
    num_kinds = len({kind for paths in below.values() for path in paths if (kind := kind_that_reads(path.name))})
    inner = {name: _inner_classes(folder / name, paths, num_kinds) for name, paths in below.items()}
    used = [name for name, paths in below.items() if any(kind_that_reads(path.name) for path in paths)]
    if not any(len(names) > 1 for names in inner.values()):
        return {}, []
    if not all(name.casefold() in PART_NAMES for name in used):
        _require_classes(folder, inner)
        return {}, []
    parts = {name: PART_NAMES[name.casefold()] for name in used if inner[name]}
    if TRAINING not in parts.values() or len(set(parts.values())) < len(parts):
        rule = "where subfolders are the parts of a split, one must be called train, and each part must be there once"
        raise broken(folder, rule, " and ".join(map(repr, parts)))
    used_as = ", ".join(f"{part} from {name!r}" for part in PARTS for name in parts if parts[name] == part)
    missing = [part for part in PARTS if part not in parts.values()]
    also = f"; split off training: {' and '.join(missing)}" if missing else ""
    return parts, [f"the data's own parts are used: {used_as}{also}"]


def _inner_classes(folder: Path, paths: list[Path], num_kinds: int) -> set[str]:
    """The subfolders of a folder that hold files of every kind that the data have, as classes do."""
    inner: dict[str, set[str]] = {}
    for path in paths:
        inside = path.relative_to(folder).parts
        if len(inside) > 1 and (kind := kind_that_reads(path.name)):
            inner.setdefault(inside[0], set()).add(kind)
    return {name for name, held in inner.items() if len(held) == num_kinds}


def _require_classes(folder: Path, inner: dict[str, set[str]]) -> None:
    """No two classes may look as if their own subfolders were the classes."""
    for one, other in itertools.combinations([name for name in inner if len(inner[name]) > 1], 2):
        same = sorted(inner[one] & inner[other])
        if len(same) > 1:
            rule = "subfolders must be classes (or train, val and test), and no two classes hold the same subfolders"
            raise broken(folder, rule, f"{one!r} and {other!r} with {' and '.join(map(repr, same[:3]))} in both")


def _as_numbers(items: list[Item]) -> tuple[list[Item], list[str]]:
    """Folders `01` and `1` are one class; and a line that says so."""
    plain = plain_numbers(item.label for item in items)
    changed = sorted(name for name in plain if plain[name] != name)
    notes = [f"folders of one number are one class: {', '.join(map(repr, changed[:8]))}"] if changed else []
    return [replace(item, label=plain[item.label]) for item in items], notes


def _left_out(ignored: list[Path], outside: list[Path]) -> list[str]:
    """What is said of files that are not used: their number and their endings."""
    notes = []
    if ignored:
        first, *others = [(f"{kind.file_noun}s", kind.formats) for kind in _kinds_of_files().values()]
        rule = ", ".join([f"{first[0]} must be {first[1]}", *(f"{noun} {formats}" for noun, formats in others)])
        notes.append(f"{_files(len(ignored))} left out: {endings(map(_name, ignored))} ({rule})")
    strays = [path for path in outside if kind_of_file(path.name)]
    if strays:
        notes.append(f"{_files(len(strays))} left out, in no class's folder: {endings(map(_name, strays))}")
    return notes


def _files(num: int) -> str:
    return f"{num:,} file{' is' if num == 1 else 's are'}"


def endings(names: Iterable[str]) -> str:
    """The endings of some files and how often each occurs, the most frequent first."""
    counts = Counter(Path(name).suffix.lower() or "no ending" for name in names)
    words = [f"{ending} ({num:,})" for ending, num in sorted(counts.items(), key=lambda count: (-count[1], count[0]))]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more endings" if len(words) > 8 else "")


def checked(listing: Listing) -> Listing:
    """The listing, if each class can be trained on.

    Raises:
        UserError: it cannot.
    """
    if len(listing.class_names) < 2:
        raise broken(listing.where, "must have at least two classes", f"only {', '.join(listing.class_names)!r}")
    part = listing.parts[0]
    where = f"in {part} " if part else ""
    for kind, items in listing.items.items():
        labels = {item.label for item in items if item.part == part and item.is_present}
        missing = [name for name in listing.class_names if name not in labels]
        if missing:
            known = kind_named(kind)
            such = f" ({', '.join(known.suffixes[:2])})" if kind not in listing.values else ""
            rule = f"each class must have a {known.file_noun}{such}"
            raise broken(listing.where, rule, f"none {where}of class {missing[0]!r}")
    return listing


def _paired(items_of: dict[str, list[Item]]) -> tuple[dict[str, tuple[Item, ...]], bool]:
    """Files of the same stem in the same order, and true; or as they came, and false."""
    by_stem = {kind: _by_stem(items) for kind, items in items_of.items()}
    shared = sorted(set.intersection(*map(set, by_stem.values())))
    if not shared or len(items_of) == 1:
        return {kind: tuple(items) for kind, items in items_of.items()}, len(items_of) == 1
    such = " and ".join(f"{modality(kind).file_noun}s" for kind in items_of)
    rule = f"where {such} are pairs by their names, each must have one partner; keep others in subfolders"
    for kind, of_stem in by_stem.items():
        for other in (name for name in by_stem if name != kind):
            for stem, items in of_stem.items():
                if len(items) > 1:
                    raise broken(items[0].path, rule, f"also {items[1].path.name}")
                if stem not in by_stem[other]:
                    raise broken(items[0].path, rule, f"no {modality(other).file_noun} of this name{_unread(stem)}")
    return {kind: tuple(of_stem[stem][0] for stem in shared) for kind, of_stem in by_stem.items()}, True


def _unread(stem: Path) -> str:
    """The files of this stem that are not read, in words."""
    names = sorted(path.name for path in stem.parent.iterdir() if path.stem == stem.name)
    unread = [name for name in names if not kind_that_reads(name)]
    return f" but {unread[0]}, which is not read" if unread else ""


def _by_stem(items: list[Item]) -> dict[Path, list[Item]]:
    of_stem: dict[Path, list[Item]] = {}
    for item in items:
        of_stem.setdefault(item.path.with_suffix(""), []).append(item)
    return of_stem


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones aside, sorted."""
    if not folder.is_dir():
        return []
    below = sorted(folder.rglob("*"))
    return [path for path in below if path.is_file() and all(map(is_visible, path.relative_to(folder).parts))]


_SPLITS = ("split", "part", "subset", "fold")
_OPTIONAL = ("group", "speaker")
Row = dict[str, str]


def read_manifest(path: Path) -> Listing:
    """The files that a manifest names.

    Raises:
        UserError: a column is missing or there twice, a row has no label or no file, or a file is missing or has two
            labels.
    """
    table = _open_manifest(path)
    (columns, taken), rows = file_columns(table, _kinds_of_files()), _rows(table)
    num_files = [sum(bool(row[name]) for name in columns) for row in rows]
    for number, (row, num) in enumerate(zip(rows, num_files, strict=True)):
        if row["label"] in MISSING or not num:
            found = repr(row["label"]) if row["label"] in MISSING - {""} else "none of one"
            raise broken(path, "each row must have a label and a file", f"{found} in row {number}")
    plain = plain_numbers(row["label"] for row in rows)
    items = {name: _items(path, rows, name, plain) for name in columns}
    items = {name: files for name, files in items.items() if any(item.is_present for item in files)}
    aligned = len(items) == 1 or max(num_files) > 1
    if not aligned:  # Files that meet by label: a row is nothing but the file in it.
        items = {name: tuple(item for item in files if item.is_present) for name, files in items.items()}
    unused = [name for name, known in zip(table.header, table.names, strict=True) if known in _SPLITS]
    label = table.header[table.label_place() or 0]
    taken += [f"label from {label!r}"] if column_key(label) != "label" else []
    notes = [f"columns of {path.name} are taken by their names: {', '.join(taken)}"] if taken else []
    notes += [f"the column {name} is not used: the parts are dealt anew" for name in unused]
    if any(row["speaker"] for row in rows) and not all(item.speaker for item in list(items.values())[-1]):
        notes.append("the column speaker is not used: it is empty in some rows")
    absent = [name for name in _kinds_of_files() if name not in items]
    notes += _alone([*items], [f"{'an empty' if name in columns else 'no'} column {name}" for name in absent])
    notes += lacking(items) if aligned else []
    return checked(Listing(path, "manifest", items, aligned, notes=tuple(notes)))


def lacking(items: Mapping[str, Sequence[Item]]) -> list[str]:
    """A line where rows of an aligned table lack modalities; `items`: of each modality, row by row."""
    nums = {name: sum(not item.is_present for item in of_name) for name, of_name in items.items()}
    words = [f"{num:,} without {kind_named(name).called(name)}" for name, num in nums.items() if num]
    total = len(next(iter(items.values())))
    rule = "rows that lack something are trained on for what they have"
    return [f"{rule}: of {total:,}, {', '.join(words)}"] if words else []


def file_columns(table: Table, wanted: Mapping[str, Modality]) -> tuple[dict[str, int], list[str]]:
    """The columns of a manifest that name files, in training as in prediction.

    A column is called like its modality, or else by a common name of files of its kind; where none is, a column
    `filename` or the like is of the kind that its files have.

    Args:
        table: the manifest.
        wanted: the modalities that come in files, by name.

    Returns:
        The place of each column that is there; and what was taken for what, where names do not say it outright.

    Raises:
        UserError: several columns may be meant.
    """
    places = {name: table.place(column_key(name)) for name in wanted}
    for name, kind in wanted.items():
        if places[name] is None and [*wanted.values()].count(kind) == 1:
            words = {kind.kind, kind.noun, kind.file_noun, *kind.column_words}
            places[name] = _place_of(table, {word + ending for word in words for ending in ("", *_ENDINGS)})
    if all(place is None for place in places.values()) and (place := _place_of(table, _FILES)) is not None:
        cells = itertools.islice(
            (text for (text,) in table.rows([place]) if text.casefold() not in NOTHING), _LOOKED_AT
        )
        found = sorted({kind for text in cells if (kind := kind_of_file(text))})
        if len(found) > 1:
            rule = f"files of each kind must be in a column of their own, {' and '.join(found)}"
            raise broken(table.path, rule, f"both in {table.header[place]!r}")
        places |= {name: place for name, kind in wanted.items() if [kind.kind] == found}
    there = {name: place for name, place in places.items() if place is not None}
    other = {name: table.header[place] for name, place in there.items() if table.names[place] != column_key(name)}
    return there, [f"{name} from {header!r}" for name, header in other.items()]


_FILES = ("file", "files", "filename", "filenames", "filepath", "filepaths", "path", "paths", "fname")
_ENDINGS = ("s", "name", *_FILES)
"""Of the common names of columns of files, without the `_` between their words: `image_path`, `AudioFile`."""
_LOOKED_AT = 100
"""Cells of a column that say what its files are."""


def _place_of(table: Table, names: Iterable[str]) -> int | None:
    """Where the one column with one of these names is, written with or without `_` between words."""
    return table.place(*{name for name in table.names if name.replace("_", "") in names})


def _open_manifest(path: Path) -> Table:
    """The table, if it has the columns that training needs."""
    if path.suffix.lower() not in SUFFIXES:
        raise broken(path, f"a manifest must be one of {', '.join(SUFFIXES)}", path.suffix or "no ending")
    table = open_table(path)
    if table.label_place() is None or not file_columns(table, _kinds_of_files())[0]:
        raise broken(path, f"must have the columns {', '.join(_kinds_of_files())} and label", shown(table.header))
    return table


def _rows(table: Table) -> list[Row]:
    """The rows, by the names of the columns that are used; "" where a column is missing."""
    files, _ = file_columns(table, _kinds_of_files())
    places = {**files, "label": table.label_place(), **{name: table.place(name) for name in _OPTIONAL}}
    used = {name: place for name, place in places.items() if place is not None}
    rows = [dict.fromkeys(places, "") | dict(zip(used, row, strict=True)) for row in table.rows(list(used.values()))]
    if not rows:
        raise broken(table.path, "must have a header and at least one row", "no rows")
    for row in rows:
        row.update({name: "" for name in files if row[name].casefold() in NOTHING})
    return rows


def _items(path: Path, rows: list[Row], name: str, plain: dict[str, str]) -> tuple[Item, ...]:
    """The files of one column."""
    items, label_of = [], {}
    for number, row in enumerate(rows):
        if not row[name]:
            items.append(Item(ABSENT, plain[row["label"]], row["group"], row["speaker"]))
            continue
        file, label = named_file(path.parent, row[name]), plain[row["label"]]
        same = os.path.normpath(file)
        if same not in label_of and not file.is_file():
            raise broken(path, f"each {name} must be a file", f"no file {row[name]!r} in row {number}")
        if (other := label_of.setdefault(same, label)) != label:
            found = f"{row[name]!r} with {other!r} and {label!r} (row {number})"
            raise broken(path, "each file must have one label", found)
        items.append(Item(file, label, row["group"], row["speaker"]))
    return tuple(items)
