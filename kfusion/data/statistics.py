"""What is measured on the training part alone, and whether other values are on its scale.

Measured are the mean and variance of each value, ranges, and the classes' shares. The scale is told by ranges alone.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.dataset import Pairs
from kfusion.modalities import each_of
from kfusion.modalities.base import MAX_MAGNITUDE
from kfusion.validation import UserError

Range = tuple[float, float]

FACTOR = 4.0
"""How many times wider or narrower the values may spread: far more than other voices differ, far less than units do."""

ABSURD = 1000.0
"""How many times larger than any training value a sound's may be: far more than a change of units would make it."""


def as_range(value: Any, path: Path, name: str) -> Range:
    """The range of a modality's training values, as a file notes it.

    Args:
        value: what JSON gave.
        path: the file.
        name: of the modality.

    Raises:
        UserError: it is no range.
    """
    if isinstance(value, list) and len(value) == 2 and all(type(bound) in (int, float) for bound in value):
        low, high = value
        if -sys.float_info.max <= low <= high <= sys.float_info.max:
            return float(low), float(high)
    raise UserError(f"{path}: '{name}_range' must be two numbers, the lower one first. Found: {value!r}")


def largest(trained: Range) -> float:
    """How far from zero a value may be where training had this range, in two digits; values below 1 count as 1."""
    return min(float(f"{ABSURD * max(1.0, *map(abs, trained)):.2g}"), MAX_MAGNITUDE)


def require_within(path: str | Path, what: str, values: Range, trained: Range) -> None:
    """Refuses values that no change of units explains.

    Args:
        path: where they come from.
        what: such as "audio features".
        values: their lowest and highest.
        trained: those of training.

    Raises:
        UserError: one is too far from zero.
    """
    limit = largest(trained)
    if max(map(abs, values)) > limit:
        rule = f"{what} must be within {-limit:g} and {limit:g}, {ABSURD:g} times the training data's"
        raise UserError(f"{path}: {rule}. Found: {values[0]:g} to {values[1]:g}")


def same_scale(values: Range, trained: Range) -> bool:
    """Whether two ranges are about as wide and lie over each other for half the narrower one at least.

    Args:
        values: lowest and highest.
        trained: those of training.
    """
    spans = values[1] - values[0], trained[1] - trained[0]
    narrow, wide = min(spans), max(spans)
    common = min(values[1], trained[1]) - max(values[0], trained[0])
    return wide <= FACTOR * narrow and common >= narrow / 2


def require_scale(path: str | Path, what: str, values: Range, trained: Range) -> None:
    """Refuses values on another scale.

    Args:
        path: where they come from.
        what: such as "audio features".
        values: their lowest and highest.
        trained: those of training.

    Raises:
        UserError: the ranges disagree; one line with both.
    """
    if not same_scale(values, trained):
        rule = f"{what} must be on the scale of the training data ({trained[0]:g} to {trained[1]:g}), or --force given"
        raise UserError(f"{path}: {rule}. Found: {values[0]:g} to {values[1]:g}")


CHUNK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Statistics:
    """Figures of one part.

    Args:
        mean, variance: of each value over the samples, float64 (num_values,), in the data's own unit, for each
            standardised modality.
        prepared_mean, prepared_variance: the same after the network's own normalisation of each sample.
        prior: share of each class, float64 (num_classes,).
        ranges: lowest and highest value of each modality.
    """

    mean: dict[str, np.ndarray]
    variance: dict[str, np.ndarray]
    prepared_mean: dict[str, np.ndarray]
    prepared_variance: dict[str, np.ndarray]
    prior: np.ndarray
    ranges: dict[str, Range]


Prepare = Mapping[str, Callable[[np.ndarray], Any] | None]


def measure(pairs: Pairs, prepare: Prepare) -> Statistics:
    """One pass over a part, in chunks, so that memory stays flat.

    Args:
        pairs: the training part alone: statistics of the others would leak.
        prepare: what the network does to the samples of each modality before it standardises them, (n, *shape) to the
            same; None: nothing.
    """
    from sklearn.preprocessing import StandardScaler  # Half a second, and prediction needs nothing of it.

    scaled = [name for name, kind, _ in each_of(pairs.spec) if kind.standardised]
    plain, prepared = ({name: StandardScaler() for name in scaled} for _ in range(2))
    low, high = (dict.fromkeys(pairs.spec.names, bound) for bound in (np.inf, -np.inf))
    for start in range(0, len(pairs), CHUNK_ROWS):
        places = np.arange(start, min(start + CHUNK_ROWS, len(pairs)))
        for name, values in pairs.read(places).items():
            if pairs.present is not None:
                values = values[pairs.present[name][places]]
            if not len(values):
                continue
            # NaN is a number that is missing; `fmin` and the scaler leave it out.
            low[name] = min(low[name], np.fmin.reduce(values, axis=None))
            high[name] = max(high[name], np.fmax.reduce(values, axis=None))
            if name not in scaled:
                continue
            plain[name].partial_fit(values.reshape(len(values), -1).astype(np.float64))
            if change := prepare.get(name):
                changed = np.asarray(change(values), np.float64)
                prepared[name].partial_fit(changed.reshape(len(values), -1))
    used = {name: prepared[name] if prepare.get(name) else plain[name] for name in scaled}
    counts = np.bincount(pairs.label, minlength=pairs.spec.num_classes)
    return Statistics(
        mean={name: np.nan_to_num(plain[name].mean_) for name in scaled},
        variance={name: np.nan_to_num(plain[name].var_) for name in scaled},
        prepared_mean={name: np.nan_to_num(used[name].mean_) for name in scaled},
        prepared_variance={name: _above_zero(np.asarray(used[name].var_)) for name in scaled},
        prior=counts / counts.sum(),
        ranges={name: (float(low[name]), float(high[name])) for name in pairs.spec.names},
    )


def _above_zero(variance: np.ndarray) -> np.ndarray:
    """A value that never changed in training, or was never there, must not blow up the first time it does."""
    return np.where(variance > 0, variance, 1.0)
