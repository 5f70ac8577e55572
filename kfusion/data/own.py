"""Data that a program gives, kept by the run that is trained on them, so that every later stage finds them.

Arrays are written in kfusion's own layout; files stay where they are and are named in a manifest:

    training_data/images.npy, audio.npy, labels.npy, kfusion_classes.json, and groups.npy if there are groups
    training_data/manifest.csv, kfusion_classes.json
"""

import csv
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.contents import CLASSES, OWN_DATA
from kfusion.data.classes import Classes, encode, read_classes, write_classes
from kfusion.data.pairs import Source
from kfusion.data.samples import Samples, column
from kfusion.data.sources import load
from kfusion.rules import UserError
from kfusion.system.files import PARTIAL, write_atomically

MANIFEST = "manifest.csv"


@dataclass(frozen=True, eq=False)
class OwnData:
    """Data written beside a run, checked, and ready to be put into it.

    Args:
        folder: where they lie now.
        data: what the config calls them, in the run.
        source: the data.
    """

    folder: Path
    data: str
    source: Source

    def place(self, run_folder: Path) -> None:
        """Moves the files into the run folder; there whole or not at all."""
        # Not at once into its place: the move to another disk is a copy.
        partial, place = run_folder / f"{PARTIAL}{OWN_DATA}", run_folder / OWN_DATA
        shutil.move(self.folder, partial)
        partial.rename(place)
        for array in (self.source.images, self.source.audio):
            if isinstance(array, np.memmap) and array.filename and Path(array.filename).parent == self.folder:
                # Rows are read by the file's name, which has just changed.
                array.filename = str(place / Path(array.filename).name)


@contextmanager
def own_data(
    samples: Samples, label: Any, groups: Any, folder: Path, config: DataConfig, console: Console | None = None
) -> Iterator[OwnData]:
    """Within the block, a program's data as files beside a run folder to be; what was not placed is removed after it.

    Args:
        samples: the pairs.
        label: (n,), of any values.
        groups: (n,), rows that belong together have the same; None: there are none.
        folder: the run folder to be.
        config: how they are read; its `data` is left aside.
        console: where progress is shown; None: nowhere.

    Raises:
        UserError: the data break a rule.
    """
    parent = next(path for path in (folder.parent, *folder.parent.parents) if path.is_dir())
    staging = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=parent)).resolve()
    try:
        # Named as it will be, so that messages tell it from the user's files.
        place = staging / OWN_DATA
        written = write_samples(place, samples, label, groups)
        name = str(folder / OWN_DATA / MANIFEST if samples.are_files else folder / OWN_DATA)
        try:
            source = load(replace(config, data=str(written)), console)
        except UserError as error:
            raise UserError(in_terms_of_x(str(error), place)) from None
        given, found = read_classes(place / CLASSES).names, source.spec.class_names
        if set(given) != set(found):
            rule = "labels of files must be told apart by a table too, where 1.0 and 01 are the number 1"
            raise UserError(f"'y': {rule}. Found: {min(set(given) - set(found))!r}")
        yield OwnData(place, name, replace(source, info={**source.info, "name": name}))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def in_terms_of_x(message: str, place: Path) -> str:
    """A message about files that a program's data were written to, in the program's own words."""
    words = {"images.npy": "X['image']", "audio.npy": "X['audio']", "labels.npy": "'y'", "groups.npy": "'groups'"}
    for name, word in {**words, MANIFEST: "'X'"}.items():
        message = message.replace(str(place / name), word)
    return message.replace(str(place), "'X'")


def write_samples(place: Path, samples: Samples, label: Any, groups: Any, known: Classes | None = None) -> Path:
    """Writes labelled pairs into a new folder.

    Args:
        place: the folder to be.
        samples: the pairs; each must have both modalities, or, where they are files, none both.
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
        missing = np.argwhere(~samples.present)
        if len(missing):
            row, which = missing[0]
            found = f"no {('image', 'sound')[which]} in row {row}"
            raise UserError(f"'X': each row must have an image and a sound. Found: {found}")
        place.mkdir(parents=True)
        _write_array(place / "images.npy", np.asarray(samples.image))
        _write_array(place / "audio.npy", np.asarray(samples.audio))
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

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "audio", "label", "group", "speaker"])
            for files, code, *rest in zip(samples.names(), codes, group, speaker, strict=True):
                whole = [str(Path(name).absolute()) if name else "" for name in files]
                table.writerow([*whole, names[code], *rest])

    write_atomically(path, write)
