"""What is measured on the training part alone: the scaling of the audio, the ranges, the classes' shares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from kfusion.data.pairs import Pairs

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
