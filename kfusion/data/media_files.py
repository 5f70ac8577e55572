"""Which picture and sound files there are, their classes, and which belong together: from a folder or a manifest.

A folder has one subfolder for each class, named like it; pictures and sounds may lie at any depth in there:

    digits/three/0001.png                digits/three/images/a.png
    digits/three/0001.wav                digits/three/sounds/b.wav

Where each picture has a sound of the same path up to the ending, as on the left, they are pairs. Where none has, as on
the right, any picture of a class may meet any of its sounds. Subfolders called train, val and test (`PART_NAMES`), each
with the classes' folders, are the parts of a split that somebody has made. A manifest is a table with the columns
image, audio and label, and group and speaker if need be; its paths count from its own folder.

A manifest -> the files that it names: a CSV or Parquet table with the columns image, audio and label.

A row with both files is a pair. A table whose rows have one file each, the other left empty, has pictures and sounds
apart, which meet by label. The columns `group` (rows that belong together, and so to one part of a split) and `speaker`
are optional. Names of columns count in any case, and `class`, `target` and the like are labels too (`tables.LABELS`).
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kfusion.data.array_files import first_of_each_class, list_folder
from kfusion.data.tables import MISSING, SUFFIXES, Table, open_table, plain_numbers, shown
from kfusion.modalities import kind_of_file, kind_that_reads, kinds, modality
from kfusion.validation import broken

PARTS = TRAINING, VALIDATION, TEST = "training", "validation", "test"
PART_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What folders of a split are called, in any case, and the part that each is."""


@dataclass(frozen=True)
class Item:
    """One file, and what is said of it; `part` is empty where the data have no split of their own."""

    path: Path
    label: str
    group: str = ""
    speaker: str = ""
    part: str = ""


@dataclass(frozen=True)
class Listing:
    """All files of a data set.

    Args:
        where: the folder or the manifest.
        layout: what this kind is called in messages and in the run folder.
        items: the files of each modality, in a fixed order; those of one place belong together if `aligned`.
        aligned: whether the modalities' files belong together already.
        num_ignored: files in the classes' folders that are neither.
        notes: what should be said of the files before training, a line each.
    """

    where: Path
    layout: str
    items: dict[str, tuple[Item, ...]]
    aligned: bool
    num_ignored: int = 0
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Numbers in their order, else names in theirs."""
        names = {item.label for item in self.everything}
        numbers = all(name.isdecimal() for name in names)
        return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the data's own split, training first; ("",) where they have none."""
        found = {item.part for item in self.everything}
        return tuple(part for part in ("", *PARTS) if part in found)

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
    """Whether some subfolder holds a picture or a sound, of whatever format."""
    shown = (name for name in names if not name.startswith("."))
    return any(kind_of_file(path.name) for name in shown for path in files_below(folder / name))


def list_media(folder: Path) -> Listing:
    """The files of a folder with a subfolder for each class, or with such subfolders for each part of a split.

    Raises:
        UserError: fewer than two classes, a class without pictures or sounds, only some that belong together, or
            subfolders that are no classes.
    """
    names = [name for name in list_folder(folder) if not name.startswith(".")]
    found = {name: files_below(folder / name) for name in names}
    parts, notes = parts_of(folder, found)
    items, outside = [], []
    for name, paths in found.items():
        for path in paths:
            inside = path.relative_to(folder / name).parts
            if not parts:
                items.append(Item(path, name))
            elif name in parts and len(inside) > 1:
                items.append(Item(path, inside[0], part=parts[name]))
            else:
                outside.append(path)
    outside += [folder / name for name in names if (folder / name).is_file()]
    unread = [item for item in items if not kind_that_reads(item.path.name)]
    items, said = _as_numbers([item for item in items if kind_that_reads(item.path.name)])
    if not items:
        rule = "must hold pictures that are PNG or JPEG, and sounds that are WAV, in a subfolder for each class"
        raise broken(folder, rule, endings(path.name for path in [item.path for item in unread] + outside))
    of_kind = {kind: [item for item in items if kind_that_reads(item.path.name) == kind] for kind in kinds()}
    meant = {kind: some for kind, some in of_kind.items() if some or _is_in_each_class(kind, unread, items)}
    found, aligned = _paired(meant)
    notes += said + _left_out([item.path for item in unread], outside)
    return checked(Listing(folder, "media folder", found, aligned, len(unread), tuple(notes)))


def parts_of(folder: Path, found: dict[str, list[Path]]) -> tuple[dict[str, str], list[str]]:
    """Which part of a split each subfolder is; none where they are classes.

    They are parts where all of them are called like parts and one has subfolders as classes have: with pictures and
    sounds. Folders that have such subfolders of the same names, and are called otherwise, might be anything.

    Args:
        folder: of the data.
        found: the files below each of its subfolders.

    Returns:
        {subfolder: part}, and what should be said.

    Raises:
        UserError: subfolders might be classes or something else, or are parts without one to train on.
    """
    inner = {name: _inner_classes(folder / name, paths) for name, paths in found.items()}
    used = [name for name, paths in found.items() if any(kind_that_reads(path.name) for path in paths)]
    if not any(len(names) > 1 for names in inner.values()):
        return {}, []
    if not all(name.casefold() in PART_NAMES for name in used):
        _require_classes(folder, inner)
        return {}, []
    parts = {name: PART_NAMES[name.casefold()] for name in used if inner[name]}
    if TRAINING not in parts.values() or len(set(parts.values())) < len(parts):
        rule = "where subfolders are the parts of a split, one must be called train, and each part must be there once"
        raise broken(folder, rule, " and ".join(map(repr, parts)))
    said = ", ".join(f"{part} from {name!r}" for part in PARTS for name in parts if parts[name] == part)
    missing = [part for part in PARTS if part not in parts.values()]
    also = f"; split off training: {' and '.join(missing)}" if missing else ""
    return parts, [f"the data's own parts are used: {said}{also}"]


def _inner_classes(folder: Path, paths: list[Path]) -> set[str]:
    """The subfolders of a folder that hold files of every kind that there is among them, as classes do."""
    num_kinds = max(len({kind for path in paths if (kind := kind_that_reads(path.name))}), 2)
    found: dict[str, set[str]] = {}
    for path in paths:
        inside = path.relative_to(folder).parts
        if len(inside) > 1 and (kind := kind_that_reads(path.name)):
            found.setdefault(inside[0], set()).add(kind)
    return {name for name, some in found.items() if len(some) == num_kinds}


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
    said = [f"folders of one number are one class: {', '.join(map(repr, changed[:8]))}"] if changed else []
    return [replace(item, label=plain[item.label]) for item in items], said


def _is_in_each_class(kind: str, unread: list[Item], items: list[Item]) -> bool:
    """Whether each class has files of a kind in formats that are not read: then the kind is meant to be there."""
    plain = plain_numbers(item.label for item in unread)
    return {item.label for item in items} <= {plain[i.label] for i in unread if kind_of_file(i.path.name) == kind}


def _left_out(ignored: list[Path], outside: list[Path]) -> list[str]:
    """What is said of files that are not used: their number and their endings."""
    said = []
    if ignored:
        read = [modality(kind) for kind in kinds() if modality(kind).suffixes]
        rule = ", ".join(f"{each.file_noun}s {'must be ' * (each is read[0])}{each.formats}" for each in read)
        said.append(f"{_files(len(ignored))} left out: {endings(path.name for path in ignored)} ({rule})")
    strays = [path for path in outside if kind_of_file(path.name)]
    if strays:
        said.append(f"{_files(len(strays))} left out, in no class's folder: {endings(path.name for path in strays)}")
    return said


def _files(num: int) -> str:
    return f"{num:,} file{' is' if num == 1 else 's are'}"


def endings(names: Iterable[str]) -> str:
    """The endings of some files and how often each occurs, the most frequent first."""
    counts = Counter(Path(name).suffix.lower() or "no ending" for name in names)
    shown = [f"{ending} ({num:,})" for ending, num in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more endings" if len(shown) > 8 else "")


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
        there = {item.label for item in items if item.part == part}
        missing = [name for name in listing.class_names if name not in there]
        if missing:
            known = modality(kind)
            rule = f"each class must have a {known.file_noun} ({', '.join(known.suffixes[:2])})"
            raise broken(listing.where, rule, f"none {where}of class {missing[0]!r}")
    return listing


def _paired(found: dict[str, list[Item]]) -> tuple[dict[str, tuple[Item, ...]], bool]:
    """Files of the same stem in the same order, and true; or as they came, and false."""
    by_stem = {kind: _by_stem(items) for kind, items in found.items()}
    shared = sorted(set.intersection(*map(set, by_stem.values())))
    if not shared or len(found) == 1:
        return {kind: tuple(items) for kind, items in found.items()}, len(found) == 1
    rule = "where pictures and sounds are pairs by their names, each must have one partner; keep others in subfolders"
    for kind, of_stem in by_stem.items():
        for other in (name for name in by_stem if name != kind):
            for stem, items in of_stem.items():
                if len(items) > 1:
                    raise broken(items[0].path, rule, f"also {items[1].path.name}")
                if stem not in by_stem[other]:
                    raise broken(items[0].path, rule, f"no {modality(other).file_noun} of this name{_unread(stem)}")
    return {kind: tuple(of_stem[stem][0] for stem in shared) for kind, of_stem in by_stem.items()}, True


def _unread(stem: Path) -> str:
    """The files of this stem that are no PNG, JPEG or WAV, in words."""
    found = sorted(
        path.name for path in stem.parent.iterdir() if path.stem == stem.name and not kind_that_reads(path.name)
    )
    return f" but {found[0]}, which is not read" if found else ""


def _by_stem(items: list[Item]) -> dict[Path, list[Item]]:
    found: dict[Path, list[Item]] = {}
    for item in items:
        found.setdefault(item.path.with_suffix(""), []).append(item)
    return found


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones aside, sorted."""
    if not folder.is_dir():
        return []
    below = sorted(folder.rglob("*"))
    return [
        path for path in below if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]


_SPLITS = ("split", "part", "subset", "fold")
_OPTIONAL = ("group", "speaker")
Row = dict[str, str]


def read_manifest(path: Path) -> Listing:
    """The files that a manifest names.

    Raises:
        UserError: a column is missing or there twice, a row has no label or no file, only some rows are pairs, or a
            file is missing or has two labels.
    """
    rows, names, notes = _rows(path)
    num_files = {_num_files(row, names) for row in rows}
    for number, row in enumerate(rows):
        if row["label"] in MISSING or not _num_files(row, names):
            found = repr(row["label"]) if row["label"] in MISSING - {""} else "none of one"
            raise broken(path, "each row must have a label and a file", f"{found} in row {number}")
        if len(num_files) > 1 and _num_files(row, names) < max(num_files):
            raise broken(path, "either all rows or none must have both files", f"one file only in row {number}")
    plain = plain_numbers(row["label"] for row in rows)
    items = {name: found for name in names if (found := _items(path, rows, name, plain))}
    if any(row["speaker"] for row in rows) and not all(item.speaker for item in list(items.values())[-1]):
        notes.append("the column speaker is not used: it is empty in some rows")
    return checked(Listing(path, "manifest", items, num_files == {len(items)}, notes=tuple(notes)))


def _num_files(row: Row, names: tuple[str, ...]) -> int:
    return sum(bool(row[name]) for name in names)


def _rows(path: Path) -> tuple[list[Row], tuple[str, ...], list[str]]:
    """The rows, by the names of the columns that are used; the modalities; and what should be said of others."""
    if path.suffix.lower() not in SUFFIXES:
        raise broken(path, f"a manifest must be one of {', '.join(SUFFIXES)}", path.suffix or "no ending")
    table = open_table(path)
    places = _places(table)
    there = {name: place for name, place in places.items() if place is not None}
    missing = dict.fromkeys(places, "")
    rows = [missing | dict(zip(there, row, strict=True)) for row in table.rows(list(there.values()))]
    if not rows:
        raise broken(path, "must have a header and at least one row", "no rows")
    unused = [name for name, plain in zip(table.header, table.names, strict=True) if plain in _SPLITS]
    names = tuple(name for name in there if name in kinds())
    return rows, names, [f"the column {name} is not used: the parts are dealt anew" for name in unused]


def _places(table: Table) -> dict[str, int | None]:
    """Where each column is that is used; None for those that may be missing."""
    files = [kind for kind in kinds() if modality(kind).suffixes]
    places = {name: table.place(name) for name in (*files, *_OPTIONAL)} | {"label": table.label_place()}
    if places["label"] is None or all(places[name] is None for name in files):
        raise broken(table.path, f"must have the columns {', '.join(files)} and label", shown(table.header))
    return places


def _items(path: Path, rows: list[Row], name: str, plain: dict[str, str]) -> tuple[Item, ...]:
    """The files of one column."""
    items, label_of = [], {}
    for number, row in enumerate(rows):
        if not row[name]:
            continue
        file, label = path.parent / row[name], plain[row["label"]]
        same = os.path.normpath(file)
        if same not in label_of and not file.is_file():
            raise broken(path, f"each {name} must be a file", f"no file {row[name]!r} in row {number}")
        if (other := label_of.setdefault(same, label)) != label:
            found = f"{row[name]!r} with {other!r} and {label!r} (row {number})"
            raise broken(path, "each file must have one label", found)
        items.append(Item(file, label, row["group"], row["speaker"]))
    return tuple(items)
