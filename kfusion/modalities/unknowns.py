"""What no class looks like, made from samples of the classes: a network is shown it to know what it does not know.

Each function takes samples (n, *shape) and gives as many; a modality's `unknowns` says which suit its kind. Some stay
of their class, as a 0 that stands on its head: whoever uses them asks the network first.
"""

import numpy as np
from numpy.typing import NDArray

FARTHEST = 5.0
"""How many times as far from the mean as a sample an unknown one is."""


def of_numbers(values: NDArray, rng: np.random.Generator) -> dict[str, NDArray]:
    """For rows of numbers: each number from a row of its own; and rows that are farther from the mean than any.

    Args:
        values: (n, *shape), where NaN stands for what is missing.
        rng: what is random.
    """
    mean = np.nan_to_num(np.ma.masked_invalid(values).mean(axis=0).filled(0))
    factor = rng.uniform(2, FARTHEST, (len(values), *[1] * (values.ndim - 1)))
    return {"shuffled": rng.permuted(values, axis=0), "far": (mean + factor * (values - mean)).astype(np.float32)}


def others(label: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each sample the place of one of another class, where there is another: int (n,).

    Args:
        label: classes, int (n,).
        rng: what is random.
    """
    differs = label[:, None] != label[None]
    return np.where(differs, rng.random(differs.shape), -1).argmax(axis=1)


def spliced(values: NDArray, other: NDArray, axis: int, rng: np.random.Generator) -> NDArray:
    """The beginning of a sample along an axis, and from some place in the middle on, the rest of another.

    Args:
        values: (n, …).
        other: likewise.
        axis: 1 or more.
        rng: what is random.
    """
    size = values.shape[axis]
    first = np.arange(size)[None] < size * rng.uniform(0.3, 0.7, (len(values), 1))
    shape = [1] * values.ndim
    shape[0], shape[axis] = first.shape
    return np.where(first.reshape(shape), values, other)


def in_blocks(values: NDArray, num: int, axis: int, rng: np.random.Generator) -> NDArray:
    """Samples cut into some blocks along an axis, in another order, the same for all.

    Args:
        values: (n, …).
        num: of blocks, 2 or more.
        axis: 1 or more.
        rng: what is random.
    """
    order = rng.permutation(num)
    order = np.roll(order, 1) if np.array_equal(order, np.arange(num)) else order
    blocks = np.array_split(np.arange(values.shape[axis]), num)
    return np.take(values, np.concatenate([blocks[each] for each in order]), axis=axis)
