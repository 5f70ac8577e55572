"""Random numbers of the evaluation, keyed by seed, sample and use: two runs agree, whatever is computed when."""

import numpy as np
import tensorflow as tf

from kfusion.data.keyed import sample_keys, uniform

CONFLICT = 1
"""The use that setting samples against each other has; the corruptions' uses follow it."""
PER_USE = 4096
"""Numbers that `keyed.uniform` gives to one use."""
USES = 1024
"""Uses that are set aside for each purpose here: images of up to four million values."""


def draw(seed: int, rows: np.ndarray, purpose: int, num: int) -> np.ndarray:
    """Numbers in [0, 1): float32 (n, num).

    Args:
        seed: ≥ 0.
        rows: int (n,), the samples' places in their part.
        purpose: what they are for.
        num: how many per sample, at most `PER_USE` · `USES`.
    """
    keys = tf.constant(sample_keys(seed, 0, rows))
    starts = range(0, num, PER_USE)
    blocks = [uniform(keys, purpose * USES + at, min(PER_USE, num - start)) for at, start in enumerate(starts)]
    return tf.concat(blocks, axis=1).numpy()
