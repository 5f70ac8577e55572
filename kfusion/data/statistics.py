"""What is measured on the training part alone: the scaling of the audio, the ranges, the classes' shares.

Whether values are on the scale that a network was trained on, told by their ranges alone.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from kfusion.data.dataset import Pairs
from kfusion.validation import UserError

Range = tuple[float, float]

FACTOR = 4.0
"""How many times wider or narrower the values may spread: far more than other voices differ, far less than units do."""

ABSURD = 1000.0
"""How many times larger than any training value a sound's may be: far more than a change of units would make it."""
MAX_MAGNITUDE = 1e18
"""Of any value: a network computes with squares, which must be within float32."""


def as_range(found: Any, path: Path) -> Range:
    """The range of the training sounds, as a file notes it.

    Args:
        found: what JSON gave.
        path: the file.

    Raises:
        UserError: it is no range.
    """
    if isinstance(found, list) and len(found) == 2 and all(type(value) in (int, float) for value in found):
        low, high = found
        if -sys.float_info.max <= low <= high <= sys.float_info.max:
            return float(low), float(high)
    raise UserError(f"{path}: 'audio_range' must be two numbers, the lower one first. Found: {found!r}")


def largest(trained: Range) -> float:
    """How far from zero a value may be, given those of training, in two digits; values below 1 count as 1."""
    return min(float(f"{ABSURD * max(1.0, *map(abs, trained)):.2g}"), MAX_MAGNITUDE)


def require_within(path: str | Path, what: str, found: Range, trained: Range) -> None:
    """Refuses values that no change of units explains.

    Args:
        path, what, found, trained: as `require_scale`.

    Raises:
        UserError: one is too far from zero.
    """
    limit = largest(trained)
    if max(map(abs, found)) > limit:
        rule = f"{what} must be within {-limit:g} and {limit:g}, {ABSURD:g} times the training data's"
        raise UserError(f"{path}: {rule}. Found: {found[0]:g} to {found[1]:g}")


def same_scale(found: Range, trained: Range) -> bool:
    """Whether two ranges are about as wide and lie over each other for half the narrower one at least.

    Args:
        found, trained: lowest and highest value.
    """
    spans = found[1] - found[0], trained[1] - trained[0]
    narrow, wide = min(spans), max(spans)
    common = min(found[1], trained[1]) - max(found[0], trained[0])
    return wide <= FACTOR * narrow and common >= narrow / 2


def require_scale(path: str | Path, what: str, found: Range, trained: Range) -> None:
    """Refuses values on another scale.

    Args:
        path: where they come from.
        what: such as "audio features".

    Raises:
        UserError: the ranges disagree; one line with both.
    """
    if not same_scale(found, trained):
        rule = f"{what} must be on the scale of the training data ({trained[0]:g} to {trained[1]:g}), or --force given"
        raise UserError(f"{path}: {rule}. Found: {found[0]:g} to {found[1]:g}")


CHUNK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Statistics:
    """Figures of one part.

    Args:
        mean, variance: of each audio feature over the pairs, float64 (num_audio,), in the data's own units.
        prepared_mean, prepared_variance: the same after the network's own normalisation of each sound.
        prior: share of each class, float64 (num_classes,).
        image_range, audio_range: lowest and highest value.
    """

    mean: np.ndarray
    variance: np.ndarray
    prepared_mean: np.ndarray
    prepared_variance: np.ndarray
    prior: np.ndarray
    image_range: tuple[float, float]
    audio_range: tuple[float, float]


def measure(pairs: Pairs, prepare: Callable[[np.ndarray], Any] | None = None) -> Statistics:
    """One pass over a part, in chunks, so that memory stays flat.

    Args:
        pairs: the training part alone: statistics of the others would leak.
        prepare: what the network does to sounds before it standardises them, (n, num_audio) to the same.
    """
    scaler, prepared_scaler = StandardScaler(), StandardScaler()
    image_bounds, audio_bounds = [np.inf, -np.inf], [np.inf, -np.inf]
    for start in range(0, len(pairs), CHUNK_ROWS):
        image, audio = pairs.read(np.arange(start, min(start + CHUNK_ROWS, len(pairs))))
        scaler.partial_fit(audio.astype(np.float64))
        if prepare:
            prepared_scaler.partial_fit(np.asarray(prepare(audio), np.float64))
        for bounds, values in ((image_bounds, image), (audio_bounds, audio)):
            bounds[0], bounds[1] = min(bounds[0], values.min()), max(bounds[1], values.max())
    variance = np.asarray(prepared_scaler.var_ if prepare else scaler.var_)
    counts = np.bincount(pairs.label, minlength=pairs.spec.num_classes)
    return Statistics(
        mean=np.asarray(scaler.mean_),
        variance=np.asarray(scaler.var_),
        prepared_mean=np.asarray(prepared_scaler.mean_ if prepare else scaler.mean_),
        # A feature that never changed in training must not blow up the first time it does.
        prepared_variance=np.where(variance > 0, variance, 1.0),
        prior=counts / counts.sum(),
        image_range=(float(image_bounds[0]), float(image_bounds[1])),
        audio_range=(float(audio_bounds[0]), float(audio_bounds[1])),
    )
