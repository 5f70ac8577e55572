"""On which scale an input's values are: pixels are brought to the model's, sounds must be on it already."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from kfusion.data.checks import broken
from kfusion.data.scale import Range, largest, require_scale
from kfusion.prediction.arrays import ArrayRows
from kfusion.prediction.models import Model

OUTLIERS = 0.01
"""Share of the sampled rows at either end, one at least, that may be broken without deciding the scale."""


def on_scale(rows: ArrayRows, model: Model, force: bool) -> tuple[ArrayRows, list[str]]:
    """The rows with the scale of their pixels, told by some rows evenly over the input.

    Args:
        rows: the input.
        model: what will answer it.
        force: take sounds on another scale too.

    Returns:
        The rows, and what should be said of them.

    Raises:
        UserError: pixels are on no known scale; or the sounds are on another than the training data's, and nobody
            forces it.
    """
    images, audio = rows.paths
    found, said = rows.ranges(), list(rows.notes)
    sizes = math.prod(rows.spec.image_shape), rows.spec.num_audio
    for path, size, (low, high) in zip(rows.paths, sizes, found, strict=True):
        num = int((low == high).sum())
        if path and size > 1 and num:
            said.append(f"{path.name}: {num:,} of {len(low):,} rows looked at are blank, all their values alike")
    if model.audio_range is not None:
        rows = replace(rows, audio_limit=largest(model.audio_range))
    if images is not None:
        rows = replace(rows, pixel_max=_pixel_max(images, bounds(*found[0])))
    if audio is not None and not force:
        if model.audio_range is None:
            said.append("sounds: their scale is not checked; this version does not tell its own")
        else:
            require_scale(Path(audio), "audio features", bounds(*found[1]), model.audio_range)
    return rows, said


def _pixel_max(path: Path, found: Range) -> int:
    """The brightest value that a pixel may have.

    Raises:
        UserError: no scale that pixels have.
    """
    if found[0] < 0 or found[1] > 255 or 1 < found[1] < 2:
        raise broken(path, "pixels must be in 0-1 or in 0-255", f"{found[0]:.6g} to {found[1]:.6g}")
    return 1 if found[1] <= 1 else 255


def bounds(low: np.ndarray, high: np.ndarray) -> Range:
    """Lowest and highest value of some rows, a few at either end left out; rows that are not finite do not count.

    Args:
        low, high: of each row, (n,).
    """
    good = np.isfinite(low) & np.isfinite(high)
    num = int(good.sum())
    if not num:
        return 0.0, 0.0
    left_out = min(int(np.ceil(OUTLIERS * num)), (num - 1) // 2)
    return float(np.sort(low[good])[left_out]), float(np.sort(high[good])[num - 1 - left_out])
