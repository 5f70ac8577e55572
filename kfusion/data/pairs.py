"""Images and sounds, and how they are paired: what every data source becomes, and what training reads.

A `Source` is everything that a folder or package holds; a `Pairs` is one part of it (training, validation or test).
Both keep rows into the arrays, never copies of them.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Union

import numpy as np

from kfusion.data.rows import read_rows
from kfusion.rules import UserError
from kfusion.spec import Spec


@dataclass(frozen=True, eq=False)
class Source:
    """All labelled images and sounds of one data set.

    Args:
        images: (N, 784), (N, H, W) or (N, H, W, C), any real dtype, in [0, spec.pixel_max]; an array or a memory map.
        audio: (M, num_audio) or (M, frames, coefficients), any real dtype; an array or a memory map.
        image_label: int64 (n,), in [0, num_classes), for each row in `image_row`.
        audio_label: int64 (m,), for each row in `audio_row`.
        aligned: row i of the images and of the sounds is a pair; then N = M and n = m.
        image_group: int64 (n,); images with the same id must stay in one part, since they show the same.
        audio_group: int64 (m,); the same of the sounds.
        spec: the shapes and the class names.
        info: what a run notes of its data, ready for JSON: name, files, front_end, image_range, audio_range, licence.
        audio_speaker: int64 (m,), index into `speaker_names`; None where it is not known.
        speaker_names: who speaks.
        official_test: the data's own labelled test files; its group ids are comparable with this source's.
        official_val: the data's own validation files, likewise.
        notes: what should be said of the data before training, a line each.
        image_row: int64 (n,), the rows of `images` in use; all of them if left out.
        audio_row: int64 (m,), the rows of `audio` in use; all of them if left out.
    """

    images: np.ndarray
    audio: np.ndarray
    image_label: np.ndarray
    audio_label: np.ndarray
    aligned: bool
    image_group: np.ndarray
    audio_group: np.ndarray
    spec: Spec
    info: dict[str, Any] = field(default_factory=dict)
    audio_speaker: np.ndarray | None = None
    speaker_names: tuple[str, ...] = ()
    official_test: Union["Source", None] = None
    official_val: Union["Source", None] = None
    notes: tuple[str, ...] = ()
    image_row: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    audio_row: np.ndarray = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if self.image_row is None:
            object.__setattr__(self, "image_row", np.arange(len(self.images)))
        if self.audio_row is None:
            object.__setattr__(self, "audio_row", np.arange(len(self.audio)))

    def pairs(self, image_position: np.ndarray, audio_position: np.ndarray) -> "Pairs":
        """The pairs of these images with these sounds.

        Args:
            image_position: int (k,), in [0, n).
            audio_position: int (k,), in [0, m).
        """
        return Pairs(
            images=self.images,
            audio=self.audio,
            image_row=self.image_row[image_position],
            audio_row=self.audio_row[audio_position],
            label=self.image_label[image_position],
            spec=self.spec,
            image_position=np.asarray(image_position, np.int64),
            audio_position=np.asarray(audio_position, np.int64),
        )


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of an image and a sound of the same class, as rows of two arrays.

    Args:
        images: see `Source`.
        audio: see `Source`.
        image_row: int64 (n,), each pair's row of `images`.
        audio_row: int64 (n,), each pair's row of `audio`.
        label: int64 (n,), the image's class, in [0, num_classes).
        spec: the shapes and the class names.
        audio_label: int64 (n,), the sound's class; it differs from `label` only in conflicting pairs.
        image_position: int64 (n,), each image's place in the source's `image_row`, and so in its labels and groups; a
            row does not tell, since a source may use a row several times and in any order. The row if left out.
        audio_position: int64 (n,), the same of the sounds.
    """

    images: np.ndarray
    audio: np.ndarray
    image_row: np.ndarray
    audio_row: np.ndarray
    label: np.ndarray
    spec: Spec
    audio_label: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    image_position: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    audio_position: np.ndarray = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        for name, default in (
            ("audio_label", "label"),
            ("image_position", "image_row"),
            ("audio_position", "audio_row"),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self, default))

    def __len__(self) -> int:
        return len(self.label)

    def take(self, positions: np.ndarray) -> "Pairs":
        """Some of the pairs, in the order of `positions`, int (k,), each in [0, len(self))."""
        return replace(self, **{name: getattr(self, name)[positions] for name in PER_PAIR})

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The contents of some pairs, in the data's own units.

        Args:
            positions: int (n,), in [0, len(self)).

        Returns:
            images float32 (n, height, width, channels) in [0, spec.pixel_max], and audio float32 (n, num_audio).
        """
        images = read_rows(self.images, self.image_row[positions]).astype(np.float32, copy=False)
        audio = read_rows(self.audio, self.audio_row[positions]).astype(np.float32, copy=False)
        return images.reshape(-1, *self.spec.image_shape), audio.reshape(-1, self.spec.num_audio)

    def repaired(self, rng: np.random.Generator, conflict: float = 0.0) -> "Pairs":
        """The same images, each with another sound of its class from among this part's sounds.

        Given its class, an image tells nothing about who speaks how: any sound of the class is as good a partner, and
        new partners keep a network from learning the pairs by heart.

        Args:
            rng: decides the pairing.
            conflict: probability, in [0, 1], that an image gets a sound of another class instead.

        Returns:
            Pairs of the same length, order and `label`.
        """
        if not 0 <= conflict <= 1:
            raise ValueError(f"'conflict' must be in [0, 1]. Received: {conflict}")
        # A row that a source uses under several labels is a sound of each of these classes.
        _, first = np.unique(self.audio_row * self.spec.num_classes + self.audio_label, return_index=True)
        pool_label = self.audio_label[first]
        wanted = self.label
        if conflict > 0:
            wanted = np.where(rng.random(len(self)) < conflict, _other_labels(self.label, pool_label, rng), wanted)
        chosen = first[pair_by_label(wanted, pool_label, rng)]
        return replace(
            self,
            audio_row=self.audio_row[chosen],
            audio_position=self.audio_position[chosen],
            audio_label=wanted,
        )


PER_PAIR = ("image_row", "audio_row", "label", "audio_label", "image_position", "audio_position")
"""The fields of `Pairs` that hold one value for each pair."""


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


def _other_labels(label: np.ndarray, pool_label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each label another one that the pool has."""
    classes = np.unique(pool_label)
    if len(classes) < 2:
        raise ValueError(f"'conflict' must be 0 where all sounds are of one class. Received: class {classes.tolist()}")
    shift = rng.integers(1, len(classes), len(label))
    return classes[(np.searchsorted(classes, label) + shift) % len(classes)]
