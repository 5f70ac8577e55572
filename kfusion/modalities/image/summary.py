"""Pictures in a few hundred numbers, by which a linear model tells them apart: what a network has to beat."""

import numpy as np
from numpy.typing import NDArray

from kfusion.modalities.base import means_of_parts

NUM_DIRECTIONS, EDGE_CELLS, COLOUR_CELLS = 9, 4, 8
"""Directions of an edge, in half a turn; and how many cells a side has for edges and for colours."""
BRIGHTNESS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
FAINT = 0.02
"""What is added to the length of a cell's edges before they are divided by it: a plain cell has none."""


def summarize(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Histograms of edges by direction in 4 × 4 cells, mean colours in 8 × 8, and quantiles of each colour.

    An edge counts for the two directions between which it lies. The histogram of a cell is divided by its length, so
    that contrast does not matter.

    Args:
        pixels: (n, height, width, channels), in [0, 1].

    Returns:
        (n, k), k = 144 + 71 channels for pictures of 8 × 8 pixels and more.

    Reference: Dalal and Triggs 2005, without their overlapping blocks.
    """
    grey = pixels.mean(axis=-1)
    down, right = (np.gradient(grey, axis=axis) if grey.shape[axis] > 1 else np.zeros_like(grey) for axis in (1, 2))
    strength, direction = np.hypot(down, right), np.arctan2(down, right) / np.pi * NUM_DIRECTIONS
    shares = []
    for each in range(NUM_DIRECTIONS):
        apart = np.abs((direction - each + NUM_DIRECTIONS / 2) % NUM_DIRECTIONS - NUM_DIRECTIONS / 2)
        shares.append(strength * np.maximum(0, 1 - apart))
    edges = _cells(np.stack(shares, axis=-1), EDGE_CELLS)
    edges /= np.linalg.norm(edges, axis=-1, keepdims=True) + FAINT
    bright = np.moveaxis(np.quantile(pixels, BRIGHTNESS, axis=(1, 2)), 0, 1)
    parts = [edges, _cells(pixels, COLOUR_CELLS), bright]
    return np.concatenate([part.reshape(len(pixels), -1) for part in parts], axis=1, dtype=np.float32)


def _cells(values: NDArray, num_cells: int) -> NDArray:
    """The mean of each of `num_cells` × `num_cells` cells."""
    return means_of_parts(means_of_parts(values, 1, num_cells), 2, num_cells)
