"""Picture and sound files -> a `Source`: decoded once, kept as arrays, scanned as any other data."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.data.media_cache import features
from kfusion.data.media_files import Item, Listing, list_media
from kfusion.data.media_manifest import read_manifest
from kfusion.data.pairs import Source
from kfusion.data.parts import joined
from kfusion.data.pictures import image_front_end, read_images
from kfusion.data.scan import group_ids, scan
from kfusion.data.sounds import SOUND_FRONT_END, read_sounds
from kfusion.data.speakers import hold_out
from kfusion.spec import Spec


def load_media(config: DataConfig, console: Console | None = None) -> Source:
    """Reads a folder of picture and sound files, or a manifest of them.

    Args:
        config: `data`, `image_shape` and `limit` are used.
        console: where progress is shown; None: nowhere.

    Returns:
        A source, aligned if the files are pairs; its spec's pixels are in [0, 255].

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    where = Path(config.data)
    listing = (list_media(where) if where.is_dir() else read_manifest(where)).limited(config.limit)
    hold_out(_speakers(listing)[1] or None, config, str(where))  # Refuses people before minutes of decoding.
    shape = config.image_shape
    spec = Spec((shape[0], shape[1], shape[2]), class_names=listing.class_names)
    front_end = image_front_end(spec)
    images, image_row, image_key = _arrays(listing.images, "image", spec, console)
    audio, audio_row, audio_key = _arrays(listing.sounds, "audio", spec, console)
    image_scan, audio_scan = scan(images, image_row), scan(audio, audio_row)
    speaker, speaker_names = _speakers(listing)
    grouped = any(item.group for item in listing.images + listing.sounds)
    return Source(
        images=images,
        audio=audio,
        image_label=_labels(listing.images, spec),
        audio_label=_labels(listing.sounds, spec),
        aligned=listing.aligned,
        image_group=_groups(group_ids(image_scan.fingerprint)[0], listing.images, grouped),
        audio_group=_groups(group_ids(audio_scan.fingerprint)[0], listing.sounds, grouped),
        spec=spec,
        info={
            "name": str(where),
            "layout": listing.layout,
            "files": {"images": len(images), "sounds": len(audio)},
            "keys": {"images": image_key, "sounds": audio_key},
            "front_end": SOUND_FRONT_END,
            "image_front_end": front_end,
            "image_range": [image_scan.low, image_scan.high],
            "audio_range": [audio_scan.low, audio_scan.high],
            "num_ignored": listing.num_ignored,
            "licence": None,
            **({"grouped_by": "group"} if grouped else {}),
        },
        audio_speaker=speaker,
        speaker_names=speaker_names,
        image_row=image_row,
        audio_row=audio_row,
    )


def _arrays(
    items: tuple[Item, ...], kind: str, spec: Spec, console: Console | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Features of the different files, each item's row in them, and what they are kept under."""
    rows: dict[Path, int] = {}
    for item in items:
        rows.setdefault(item.path, len(rows))
    if kind == "image":
        made = image_front_end(spec), _reader(kind, spec.image_shape), spec.image_shape, np.uint8
    else:
        made = SOUND_FRONT_END, _reader(kind, spec.image_shape), (spec.num_audio,), np.float32
    array, key = features(list(rows), *made, console)
    return array, np.array([rows[item.path] for item in items], np.int64), key


@functools.cache
def _reader(kind: str, image_shape: tuple[int, int, int]) -> Any:
    """The front end as a graph, traced once: string (batch,) -> features and reasons."""
    spec = Spec(image_shape)
    read = read_images if kind == "image" else read_sounds
    return tf.function(lambda contents: read(contents, spec), input_signature=[tf.TensorSpec([None], tf.string)])


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
