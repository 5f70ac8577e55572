"""Random numbers that are a pure function of (seed, epoch, sample, use), computed for a whole batch at once.

Nothing is drawn from a stream, so a sample's numbers depend on no batch order, worker, device or restart. The key of a
sample is computed with NumPy where its row is read; the numbers are computed with TensorFlow where they are used, on
the processor or an accelerator, with the same result: integer arithmetic below 2^63.
"""

from typing import Any

import numpy as np
import tensorflow as tf

MASK = 0xFFFFFFFF
# Mixers of 32 bits, two rounds of multiply and xor-shift, each constant below 2^31 so that products fit an int64.
# Reference: C. Wellons, "Prospecting for hash functions", the constants of bias 0.107.
FIRST, SECOND = 0x21F0AAAD, 0x735A2D97
GOLDEN = 0x9E3779B9


def _mix(x: Any, shift: Any) -> Any:
    x = ((x ^ shift(x, 16)) * FIRST) & MASK
    x = ((x ^ shift(x, 15)) * SECOND) & MASK
    return x ^ shift(x, 15)


def sample_keys(seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """One key per sample: int64 (n,), in [0, 2^32).

    Args:
        seed, epoch: integers ≥ 0.
        rows: int64 (n,), the samples' places in their part, whatever order they are read in.
    """
    base = np.zeros(1, np.int64)
    for value in (seed, epoch):
        base = _mix((base + value + GOLDEN) & MASK, np.right_shift)
    return _mix((_mix(rows.astype(np.int64) & MASK, np.right_shift) + base) & MASK, np.right_shift)


def uniform(keys: tf.Tensor, use: int, num: int) -> tf.Tensor:
    """Numbers in [0, 1): float32 (batch, num).

    Args:
        keys: int64 (batch,), from `sample_keys`.
        use: what the numbers are for; two uses of one sample get independent numbers.
        num: how many per sample, at most 4096.
    """
    counters = _mix((np.arange(num, dtype=np.int64) + 4096 * use) * GOLDEN & MASK, np.right_shift)
    mixed = _mix((keys[:, None] + tf.constant(counters)[None]) & MASK, tf.bitwise.right_shift)
    # The upper 24 bits: as many as a float32 between 0 and 1 holds exactly.
    return tf.cast(tf.bitwise.right_shift(mixed, 8), tf.float32) * 2.0**-24
