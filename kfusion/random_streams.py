"""Random numbers that are a pure function of (seed, epoch, sample, stream), computed for a whole batch at once.

No generator has a state, so a sample's numbers depend on no batch order, worker, device or restart. The key of a
sample is computed with NumPy where its row is read; the numbers are computed with TensorFlow where they are used, on
the processor or an accelerator, with the same result: integer arithmetic below 2^63.

`Stream` lists every purpose that random numbers have in training and evaluation.
"""

from enum import Enum, unique
from typing import Any

import numpy as np
import tensorflow as tf

MASK = 0xFFFFFFFF
# Mixers of 32 bits, two rounds of multiply and xor-shift, each constant below 2^31 so that products fit an int64.
# Reference: C. Wellons, "Prospecting for hash functions", the constants of bias 0.107.
FIRST, SECOND = 0x21F0AAAD, 0x735A2D97
GOLDEN = 0x9E3779B9
MAX_NUMBERS = 4096
"""Numbers that one use has for each sample."""
USES_PER_EVALUATION = 1024
"""Uses that each stream of an evaluation has: enough for images of up to four million values."""


@unique
class Stream(Enum):
    """Every purpose of random numbers. Two streams of one family are independent; no number may occur twice in one.

    - "sample": `uniform`, keyed by a training sample; numbers below `USES_PER_EVALUATION`.
    - "evaluation": `uniform`, keyed by an evaluated sample, `USES_PER_EVALUATION` uses from `first_use` on.
    - "epoch": `epoch_generator`, keyed by the epoch.
    """

    MODALITY_DROPOUT = "sample", 0
    IMAGE_WARP = "sample", 1
    TIME_WARP = "sample", 2
    MASKS = "sample", 3
    BACKGROUND = "sample", 4
    IMAGE_DAMAGE = "sample", 5
    FREQUENCY_WARP = "sample", 6
    LEVEL = "sample", 8
    IMAGE_JITTER = "sample", 9
    CONFLICT = "evaluation", 1
    CORRUPTIONS = "evaluation", 2
    """Of the first corruption; each further one has the next number."""
    ORDER = "epoch", 1
    PAIRING = "epoch", 2

    @property
    def number(self) -> int:
        """Its number within the family."""
        return self.value[1]

    @property
    def first_use(self) -> int:
        """The first use that the stream has in `uniform`."""
        return self.number * (USES_PER_EVALUATION if self.value[0] == "evaluation" else 1)


def _mix(x: Any, shift: Any) -> Any:
    x = ((x ^ shift(x, 16)) * FIRST) & MASK
    x = ((x ^ shift(x, 15)) * SECOND) & MASK
    return x ^ shift(x, 15)


def sample_keys(seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """One key per sample: int64 (n,), in [0, 2^32).

    Args:
        seed: ≥ 0.
        epoch: ≥ 0.
        rows: int64 (n,), the samples' places in their part, whatever order they are read in.
    """
    base = np.zeros(1, np.int64)
    for value in (seed, epoch):
        base = _mix((base + value + GOLDEN) & MASK, np.right_shift)
    return _mix((_mix(rows.astype(np.int64) & MASK, np.right_shift) + base) & MASK, np.right_shift)


def epoch_generator(seed: int, epoch: int, stream: Stream) -> np.random.Generator:
    """NumPy's generator for what concerns a whole epoch.

    Args:
        seed: ≥ 0.
        epoch: ≥ 0.
        stream: of the family "epoch".
    """
    return np.random.default_rng([seed, epoch, stream.number])


def uniform(keys: tf.Tensor, use: Stream | int, num: int) -> tf.Tensor:
    """Numbers in [0, 1): float32 (batch, num).

    Args:
        keys: int64 (batch,), from `sample_keys`.
        use: what the numbers are for, a stream or a number; two uses of one sample get independent numbers.
        num: how many per sample, at most `MAX_NUMBERS`.
    """
    use = use.first_use if isinstance(use, Stream) else use
    counters = _mix((np.arange(num, dtype=np.int64) + MAX_NUMBERS * use) * GOLDEN & MASK, np.right_shift)
    mixed = _mix((keys[:, None] + tf.constant(counters)[None]) & MASK, tf.bitwise.right_shift)
    # The upper 24 bits: as many as a float32 between 0 and 1 holds exactly.
    return tf.cast(tf.bitwise.right_shift(mixed, 8), tf.float32) * 2.0**-24
