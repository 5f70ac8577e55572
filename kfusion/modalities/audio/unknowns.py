"""Sounds that are no class's, made from some of the classes on their grid of frames × coefficients."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from kfusion.modalities.unknowns import in_blocks, others, spliced

SMOOTH = (0.5, 1.5, 3.0, 6.0)
"""Frames over which a random course of the coefficients is smoothed."""


def of_sounds(grid: NDArray, label: NDArray, rng: np.random.Generator) -> dict[str, NDArray]:
    """Unknown sounds by how they were made.

    Args:
        grid: (n, frames, coefficients).
        label: classes, int (n,).
        rng: what is random.
    """
    num, frames, width = grid.shape
    mean, deviation = grid.mean(axis=(0, 1)), grid.std(axis=(0, 1))
    other, third = grid[others(label, rng)], grid[others(label, rng)]
    course = gaussian_filter1d(rng.standard_normal(grid.shape), rng.choice(SMOOTH), axis=1)
    course *= rng.uniform(0.3, 1.3, (num, 1, 1)) / (course.std(axis=(1, 2), keepdims=True) + 1e-6)
    hum = rng.standard_normal((num, 1, width)) * rng.uniform(0.2, 1.5, (num, 1, 1))
    upper = np.arange(width)[None] >= rng.integers(1, max(2, width), num)[:, None]
    weight = rng.uniform(0.3, 0.7, (num, 1, 1))
    speed = np.exp(rng.choice([-1, 1]) * rng.uniform(0.6, 1.1))
    place = np.clip((np.arange(frames) - frames / 2) * speed + frames / 2, 0, frames - 1).round().astype(int)
    made = {
        "backwards": grid[:, ::-1],
        "spliced": spliced(grid, other, 1, rng),
        "spliced twice": spliced(spliced(grid, other, 1, rng), third, 1, rng),
        "halves": in_blocks(grid, 2, 1, rng),
        "quarters": in_blocks(grid, min(4, frames), 1, rng) if frames > 1 else other,
        "sixths": in_blocks(grid, min(6, frames), 1, rng) if frames > 1 else other,
        "other coefficients": np.where(upper[:, None], other, grid),
        "two at once": weight * grid + (1 - weight) * other,
        "other signs": mean + (grid - mean) * np.where(np.arange(width) % 2, -1, 1),
        "too fast or slow": grid[:, place],
        "any course": mean + deviation * course,
        "hum": mean + deviation * (hum + 0.15 * rng.standard_normal(grid.shape)),
    }
    return {name: np.asarray(each, np.float32) for name, each in made.items()}
