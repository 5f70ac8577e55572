"""Sounds of any length -> a fixed number of frames.

A network of dense layers needs sounds of one size. Stretching keeps the whole sound and its order: the first frame
stays first and the last one last, however fast somebody speaks. Padding instead would leave most of the grid empty
for short clips (half of the built-in ones have 17 of 39 frames or fewer), and cutting would lose the end of long ones.
Measured on the built-in clips, mean of two random 80/20 splits, stretched against zero-padded: logistic regression
0.959 against 0.937, a network with 256 hidden units 0.977 against 0.960.
"""

from typing import Any

import numpy as np

from kfusion.modalities.audio.recipe import SPOKEN_DIGITS


def to_frames(sequence: np.ndarray, num_frames: int = SPOKEN_DIGITS.num_frames) -> np.ndarray:
    """Stretches or shrinks one sequence linearly in time.

    Frame k of the result lies at position p = k · (n - 1) / (num_frames - 1) of the sequence, as
    `linspace(0, n - 1, num_frames)` has it, and is the linear interpolation of its two neighbours:

        low + (p - floor(p)) · (high - low)

    Args:
        sequence: (n, coefficients), n ≥ 1, one row per frame.
        num_frames: frames of the result, ≥ 1; with 1, it is the first frame.

    Returns:
        float32 (num_frames, coefficients).

    Raises:
        ValueError: an empty sequence, another number of axes, or `num_frames` below 1.
    """
    sequence = np.asarray(sequence)
    if sequence.ndim != 2:
        raise ValueError(f"'sequence' must be (frames, coefficients). Received: shape {sequence.shape}")
    return ragged_to_frames(sequence, np.array([len(sequence)]), num_frames)[0]


def ragged_to_frames(frames: np.ndarray, lengths: np.ndarray, num_frames: int = SPOKEN_DIGITS.num_frames) -> np.ndarray:
    """`to_frames` for many sequences that lie one after another in one array.

    Args:
        frames: (sum of lengths, coefficients).
        lengths: int (n,), frames of each sequence, each ≥ 1.
        num_frames: frames of each result, ≥ 1.

    Returns:
        float32 (n, num_frames, coefficients).

    Raises:
        ValueError: an empty sequence, lengths that do not add up, or `num_frames` below 1.
    """
    lengths = np.asarray(lengths, np.int64)
    if num_frames < 1:
        raise ValueError(f"'num_frames' must be ≥ 1. Received: {num_frames}")
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"'lengths' must be ≥ 1 frame. Received: {lengths.min()} in row {lengths.argmin()}")
    if lengths.sum() != len(frames):
        raise ValueError(f"'lengths' must add up to the {len(frames)} frames. Received: {lengths.sum()}")
    low, high, rest = neighbours(np.arange(num_frames), lengths[:, None], num_frames)
    weight = (rest.astype(np.float32) / np.float32(max(num_frames - 1, 1)))[..., None]
    first = (np.cumsum(lengths) - lengths)[:, None]
    frames = np.asarray(frames, np.float32)
    return frames[first + low] + weight * (frames[first + high] - frames[first + low])


def neighbours(place: Any, length: Any, num_frames: int) -> tuple[Any, Any, Any]:
    """Between which frames of a sequence the frames of its stretched version lie: for arrays and for tensors.

    In whole numbers: quotient and remainder are exact, so that every implementation meets the same neighbours.

    Args:
        place: integers, in [0, num_frames), frames of the result.
        length: integers that broadcast against them, the sequence's frames, ≥ 1.
        num_frames: frames of the result.

    Returns:
        The frame before, the frame after (the same one, where the place is exactly on a frame), and the second one's
        weight times max(num_frames - 1, 1).
    """
    steps = max(num_frames - 1, 1)
    scaled = place * (length - 1)
    low, high = scaled // steps, (scaled + steps - 1) // steps
    return low, high, scaled - low * steps
