"""Arrays to grids of pictures: samples as they are in the data, and beside them as training meets them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from kfusion.analysis.checks import require
from kfusion.analysis.style import bare, look, new_figure, plain


def sample_grid(before: ArrayLike, after: ArrayLike, titles: Sequence[str], pixel_max: float | None = None) -> Figure:
    """Each row: one image as it is in the data, then as training sees it.

    Args:
        before: (n, height, width, channels).
        after: (n, k, height, width, channels), in the same units.
        titles: one per row, such as the name of its class.
        pixel_max: the brightest value; by default 1 where no pixel is above 1, else 255.
    """
    images = _columns(before, after, titles, "height, width, channels")
    if pixel_max is None:
        pixel_max = 1 if images.max() <= 1 else 255
    images = np.clip(images / pixel_max, 0, 1)
    if images.shape[-1] != 3:
        images = images.mean(axis=-1)
    return _grid(images, titles, cell_in=(1.0, 1.0), vmin=0, vmax=1, cmap="gray")


def audio_grid(before: ArrayLike, after: ArrayLike, titles: Sequence[str]) -> Figure:
    """Each row: one sound as it is in the data, then as training hears it; time runs to the right.

    Args:
        before: (n, frames, coefficients).
        after: (n, k, frames, coefficients), in the same units.
        titles: one per row, such as the name of its class.
    """
    sounds = _columns(before, after, titles, "frames, coefficients")
    # Each coefficient on its own scale, that of the unchanged sounds: the first ones are far larger than the rest.
    original = sounds[:, 0]
    spread = original.std(axis=(0, 1))
    sounds = (sounds - original.mean(axis=(0, 1))) / np.where(spread > 0, spread, 1)
    pictures = np.swapaxes(sounds, -1, -2)[..., ::-1, :]
    frames, coefficients = sounds.shape[-2:]
    figure = _grid(pictures, titles, cell_in=(1.5, 0.8), vmin=-3, vmax=3, cmap="viridis", aspect="auto")
    figure.supxlabel(
        f"{frames} frames to the right, {coefficients} coefficients upwards, each standardised", fontsize=9
    )
    return figure


def _columns(before: ArrayLike, after: ArrayLike, titles: Sequence[str], axes: str) -> NDArray[np.float64]:
    """The originals in front of their versions: (n, 1 + k, …)."""
    originals, versions = np.asarray(before, np.float64), np.asarray(after, np.float64)
    rank = axes.count(",") + 2
    require(originals.ndim == rank and len(originals) > 0, "before", f"of shape (n ≥ 1, {axes})", originals.shape)
    fits = versions.ndim == rank + 1 and versions.shape[:1] + versions.shape[2:] == originals.shape
    require(fits, "after", f"of shape (n, k, {axes}) for 'before' {originals.shape}", versions.shape)
    require(len(titles) == len(originals), "titles", f"{len(originals)} names", len(titles))
    return np.concatenate([originals[:, None], versions], axis=1)


def _grid(pictures: NDArray, titles: Sequence[str], cell_in: tuple[float, float], **show: Any) -> Figure:
    num_rows, num_columns = pictures.shape[:2]
    names = [plain(title) for title in titles]
    with look():
        labels_in = 0.085 * max(len(name) for name in names) + 0.2
        figure = new_figure(cell_in[0] * num_columns + labels_in, cell_in[1] * num_rows + 0.35, layout="compressed")
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for row, name in enumerate(names):
            for column in range(num_columns):
                axes = grid[row, column]
                axes.imshow(pictures[row, column], **show)
                bare(axes)
            grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        grid[0, 0].set_title("original", fontsize=9, loc="center")
        for column in range(1, num_columns):
            grid[0, column].set_title(f"augmented {column}", fontsize=9, loc="center")
    return figure
