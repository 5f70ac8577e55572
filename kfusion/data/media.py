"""Picture and sound files -> a `Source`: decoded once, kept as arrays, scanned as any other data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.data.front_ends import file_reader, fingerprints
from kfusion.data.media_cache import FrontEnd, features
from kfusion.data.media_files import TEST, TRAINING, VALIDATION, Item, Listing, list_media
from kfusion.data.media_manifest import read_manifest
from kfusion.data.pairs import Source
from kfusion.data.parts import joined
from kfusion.data.pictures import image_front_end
from kfusion.data.scan import blank_lines, group_ids, scan
from kfusion.data.sounds import SOUND_FRONT_END
from kfusion.data.speakers import hold_out
from kfusion.spec import Spec


def load_media(config: DataConfig, console: Console | None = None) -> Source:
    """Reads a folder of picture and sound files, or a manifest of them.

    Args:
        config: `data`, `image_shape` and `limit` are used.
        console: where progress is shown; None: nowhere.

    Returns:
        A source, aligned if the files are pairs; its spec's pixels are in [0, 255]. Where the data have parts of their
        own, it is the training part, with the validation and the test part beside it.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    where = Path(config.data)
    listing = (list_media(where) if where.is_dir() else read_manifest(where)).limited(config.limit)
    hold_out(_speakers(listing)[1] or None, config, str(where))  # Refuses people before minutes of decoding.
    shape = config.image_shape
    spec = Spec((shape[0], shape[1], shape[2]), class_names=listing.class_names)
    made_by = fingerprints()
    pictures = FrontEnd(image_front_end(spec), made_by["images"], file_reader("image", spec), shape, np.uint8)
    sounds = FrontEnd(SOUND_FRONT_END, made_by["sounds"], file_reader("audio", spec), (spec.num_audio,), np.float32)
    images, image_row, image_key = _arrays(listing.images, pictures, console)
    audio, audio_row, audio_key = _arrays(listing.sounds, sounds, console)
    image_scan, audio_scan = scan(images, image_row), scan(audio, audio_row)
    image_content, audio_content = group_ids(image_scan.fingerprint)[0], group_ids(audio_scan.fingerprint)[0]
    speaker, speaker_names = _speakers(listing)
    grouped = any(item.group for item in listing.images + listing.sounds)
    whole = Source(
        images=images,
        audio=audio,
        image_label=_labels(listing.images, spec),
        audio_label=_labels(listing.sounds, spec),
        aligned=listing.aligned,
        image_group=_groups(image_content, listing.images, grouped),
        audio_group=_groups(audio_content, listing.sounds, grouped),
        spec=spec,
        info={
            "name": str(where),
            "layout": listing.layout,
            "files": {"images": len(images), "sounds": len(audio)},
            "keys": {"images": image_key, "sounds": audio_key},
            "front_end": sounds.name,
            "image_front_end": pictures.name,
            "fingerprints": made_by,
            "image_range": [image_scan.low, image_scan.high],
            "audio_range": [audio_scan.low, audio_scan.high],
            "num_ignored": listing.num_ignored,
            "licence": None,
            **({"grouped_by": "group"} if grouped else {}),
            **({"parts": listing.parts} if listing.parts != ("",) else {}),
        },
        audio_speaker=speaker,
        speaker_names=speaker_names,
        image_row=image_row,
        audio_row=audio_row,
        notes=(
            *listing.notes,
            *_two_labels("pictures", listing.images, image_content),
            *_two_labels("sounds", listing.sounds, audio_content),
            *blank_lines(image_scan, "pictures"),
        ),
    )
    return _in_parts(whole, listing)


def _in_parts(whole: Source, listing: Listing) -> Source:
    """The training files' source with the data's own validation and test files beside it, where there are such."""
    if listing.parts == ("",):
        return whole
    found = {}
    for part in listing.parts:
        images, sounds = (
            np.flatnonzero([item.part == part for item in items]) for items in (listing.images, listing.sounds)
        )
        found[part] = replace(
            whole,
            image_label=whole.image_label[images],
            audio_label=whole.audio_label[sounds],
            image_group=whole.image_group[images],
            audio_group=whole.audio_group[sounds],
            image_row=whole.image_row[images],
            audio_row=whole.audio_row[sounds],
            audio_speaker=None if whole.audio_speaker is None else whole.audio_speaker[sounds],
        )
    return replace(found[TRAINING], official_val=found.get(VALIDATION), official_test=found.get(TEST))


def _two_labels(what: str, items: tuple[Item, ...], content: np.ndarray) -> list[str]:
    """A line where files of the same content are in several classes: of one class at most they can be."""
    labels, first, found = [item.label for item in items], {}, []
    for place, key in enumerate(content.tolist()):
        before = first.setdefault(key, place)
        if labels[before] != labels[place]:
            found.append((items[before], items[place]))
    if not found:
        return []
    one, other = found[0]
    such = f"{one.path} ({one.label!r}) and {other.path} ({other.label!r})"
    return [f"{what} of the same content in two classes: {len(found):,}, such as {such}"]


def _arrays(
    items: tuple[Item, ...], front_end: FrontEnd, console: Console | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Features of the different files, each item's row in them, and what they are kept under."""
    rows: dict[Path, int] = {}
    for item in items:
        rows.setdefault(item.path, len(rows))
    array, key = features(list(rows), front_end, console)
    return array, np.array([rows[item.path] for item in items], np.int64), key


def _labels(items: tuple[Item, ...], spec: Spec) -> np.ndarray:
    number = {name: label for label, name in enumerate(spec.class_names)}
    return np.array([number[item.label] for item in items], np.int64)


def _groups(contents: np.ndarray, items: tuple[Item, ...], grouped: bool) -> np.ndarray:
    """Equal contents belong together, and so do items of one named group."""
    if not grouped:
        return contents
    # Items of no group are groups of their own.
    names = [item.group or f"\0{place}" for place, item in enumerate(items)]
    return joined(contents, np.unique(names, return_inverse=True)[1].astype(np.int64))


def _speakers(listing: Listing) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Who speaks each sound, where all are known."""
    names = [item.speaker for item in listing.sounds]
    if not all(names):
        return None, ()
    unique, place = np.unique(names, return_inverse=True)
    return place.astype(np.int64), tuple(unique.tolist())
