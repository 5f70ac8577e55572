"""Which picture and sound files there are, their classes, and which belong together: from a folder or a manifest.

A folder has one subfolder for each class, named like it; pictures and sounds may lie at any depth in there:

    digits/three/0001.png                digits/three/images/a.png
    digits/three/0001.wav                digits/three/sounds/b.wav

Where each picture has a sound of the same path up to the ending, as on the left, they are pairs. Where none has, as on
the right, any picture of a class may meet any of its sounds. A manifest is a table with the columns image, audio and
label, and group and speaker if need be; its paths count from its own folder (`media_manifest.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfusion.data.checks import broken, list_folder
from kfusion.data.limit import first_of_each_class

PICTURES, SOUNDS = (".png", ".jpg", ".jpeg"), (".wav",)


@dataclass(frozen=True)
class Item:
    """One file, and what is said of it."""

    path: Path
    label: str
    group: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class Listing:
    """All files of a data set.

    Args:
        where: the folder or the manifest.
        layout: what this kind is called in messages and in the run folder.
        images, sounds: in a fixed order; those of one place are a pair if `aligned`.
        aligned: whether pictures and sounds are pairs already.
        num_ignored: files that are neither.
    """

    where: Path
    layout: str
    images: tuple[Item, ...]
    sounds: tuple[Item, ...]
    aligned: bool
    num_ignored: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Numbers in their order, else names in theirs."""
        names = {item.label for item in (*self.images, *self.sounds)}
        numbers = all(name.isdecimal() for name in names)
        return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))

    def limited(self, limit: int) -> "Listing":
        """At most so many pictures and so many sounds, evenly over the classes; 0: all."""
        images, sounds = (
            tuple(
                items[row]
                for row in first_of_each_class(np.unique([i.label for i in items], return_inverse=True)[1], limit)
            )
            for items in (self.images, self.sounds)
        )
        return Listing(self.where, self.layout, images, sounds, self.aligned, self.num_ignored)


def is_media_folder(names: Sequence[str], folder: Path) -> bool:
    """Whether some subfolder holds a picture or a sound."""
    return any(_of_kind(path) for name in names if not name.startswith(".") for path in _files(folder / name))


def list_media(folder: Path) -> Listing:
    """The files of a folder with a subfolder for each class.

    Raises:
        UserError: fewer than two classes, a class without pictures or sounds, or only some that belong together.
    """
    images, sounds, num_ignored = [], [], 0
    for name in list_folder(folder):
        if name.startswith("."):
            continue
        found = _files(folder / name)
        images += [Item(path, name) for path in found if _of_kind(path) == "image"]
        sounds += [Item(path, name) for path in found if _of_kind(path) == "sound"]
        num_ignored += sum(not _of_kind(path) for path in found)
    images, sounds, aligned = _paired(images, sounds)
    return checked(Listing(folder, "media folder", tuple(images), tuple(sounds), aligned, num_ignored))


def checked(listing: Listing) -> Listing:
    """The listing, if each class can be trained on.

    Raises:
        UserError: it cannot.
    """
    if len(listing.class_names) < 2:
        raise broken(listing.where, "must have at least two classes", f"only {', '.join(listing.class_names)!r}")
    for kind, items in (("picture (.png, .jpg)", listing.images), ("sound (.wav)", listing.sounds)):
        missing = [name for name in listing.class_names if name not in {item.label for item in items}]
        if missing:
            raise broken(listing.where, f"each class must have a {kind}", f"none of class {missing[0]!r}")
    return listing


def _paired(images: list[Item], sounds: list[Item]) -> tuple[list[Item], list[Item], bool]:
    """Pictures and sounds of the same stem in the same order, and true; or as they came, and false."""
    image_of, sound_of = _by_stem(images), _by_stem(sounds)
    both = sorted(image_of.keys() & sound_of.keys())
    if not both:
        return images, sounds, False
    rule = "where pictures and sounds are pairs by their names, each must have one partner; keep others in subfolders"
    for of_stem, other, kind in ((image_of, sound_of, "sound"), (sound_of, image_of, "picture")):
        for stem, items in of_stem.items():
            if len(items) > 1:
                raise broken(items[0].path, rule, f"also {items[1].path.name}")
            if stem not in other:
                raise broken(items[0].path, rule, f"no {kind} of this name")
    return [image_of[stem][0] for stem in both], [sound_of[stem][0] for stem in both], True


def _by_stem(items: list[Item]) -> dict[Path, list[Item]]:
    found: dict[Path, list[Item]] = {}
    for item in items:
        found.setdefault(item.path.with_suffix(""), []).append(item)
    return found


def _files(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones aside, sorted."""
    if not folder.is_dir():
        return []
    below = sorted(folder.rglob("*"))
    return [
        path for path in below if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]


def _of_kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "image" if suffix in PICTURES else "sound" if suffix in SOUNDS else ""
