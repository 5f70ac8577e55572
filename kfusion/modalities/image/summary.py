"""Pictures in a few hundred numbers, by which a linear model tells them apart: what a network has to beat."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kfusion.modalities.encoders import averaging, interpolating

NUM_DIRECTIONS, EDGE_CELLS, COLOUR_CELLS = 9, 4, 8
"""Directions of an edge, in half a turn; and how many cells a side has for edges and for colours."""
BRIGHTNESS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
BRIGHTEST = 255
"""Steps of brightness that are told apart."""
FAINT = 0.02
"""What is added to the length of a cell's edges before they are divided by it: a plain cell has none."""


@keras.saving.register_keras_serializable("kfusion")
class PictureSummary(layers.Layer):
    """Histograms of edges by direction in 4 × 4 cells, mean colours in 8 × 8, and quantiles of each colour.

    Pixels (batch, height, width, channels) -> (batch, k), k = 144 + 71 channels for pictures of 8 × 8 pixels and more.
    An edge counts for the two directions between which it lies. The histogram of a cell is divided by its length, so
    that contrast does not matter.

    Args:
        scale: the brightest value a pixel may have.

    Reference: Dalal and Triggs 2005, without their overlapping blocks.
    """

    def __init__(self, scale: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scale = scale

    def call(self, pixels: Any) -> Any:
        """See the class."""
        # An absent picture may hold NaN, which no sorting puts in order. Whole numbers are added up without rounding:
        # every runtime finds the same edges in a plain cell.
        pixels = ops.round(ops.where(ops.equal(pixels, pixels), pixels, 0.0) * (BRIGHTEST / self.scale))
        height, width, channels = pixels.shape[1:]
        colours = ops.transpose(pixels, (0, 3, 1, 2))
        grey = ops.sum(colours, axis=1)
        down = ops.matmul(_slopes(height), grey)
        right = ops.matmul(grey, _slopes(width).T)
        strength = ops.sqrt(down * down + right * right) / (BRIGHTEST * channels)
        colours = colours / BRIGHTEST
        direction = ops.arctan2(down, right) * (NUM_DIRECTIONS / np.pi)
        shares = []
        for each in range(NUM_DIRECTIONS):
            apart = ops.abs(ops.mod(direction - each + NUM_DIRECTIONS / 2, NUM_DIRECTIONS) - NUM_DIRECTIONS / 2)
            shares.append(strength * ops.relu(1 - apart))
        edges = _cells(ops.stack(shares, axis=1), EDGE_CELLS)
        edges = edges / (ops.sqrt(ops.sum(edges * edges, axis=1, keepdims=True)) + FAINT)
        flat = ops.reshape(colours, (-1, channels, height * width))
        bright = ops.matmul(ops.sort(flat), interpolating(height * width, BRIGHTNESS))
        parts = [edges, _cells(colours, COLOUR_CELLS), bright]
        return ops.concatenate([ops.reshape(part, (-1, int(np.prod(part.shape[1:])))) for part in parts], axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer, for saving."""
        return {**super().get_config(), "scale": self.scale}


def _slopes(size: int) -> np.ndarray:
    """The matrix that takes differences along an axis: of both neighbours, halved; at the ends of one."""
    return np.asarray(np.gradient(np.eye(size, dtype=np.float32), axis=0)) if size > 1 else np.zeros((1, 1), np.float32)


def _cells(values: Any, num_cells: int) -> Any:
    """(batch, channels, height, width) -> the mean of each of `num_cells` × `num_cells` cells."""
    height, width = values.shape[2:]
    return ops.matmul(ops.matmul(averaging(height, num_cells).T, values), averaging(width, num_cells))
