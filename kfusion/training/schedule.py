"""The learning rate over a run: linear warmup, then cosine decay."""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kfusion")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup to a peak, then half a cosine down to the end.

    With n = step + 1 the number of the update (Keras counts steps from 0), W warmup steps and T total steps:

        n ≤ W:      lr(n) = start + (peak - start) · (n - 1) / (W - 1)
        W < n ≤ T:  lr(n) = final + (peak - final) · ½ (1 + cos(π (n - W) / (T - W)))
        n > T:      lr(n) = final

    So update W runs at the peak and update T at the final rate: both ends are included. By default start = peak / W,
    which is the line through the origin, and no update is wasted on a learning rate of zero at the start.
    Reference: Loshchilov and Hutter 2017, equation 5, without restarts; Goyal et al. 2017, section 2.2, the warmup.

    Args:
        peak_learning_rate: the highest rate, > 0.
        warmup_steps: W, in [0, total_steps]; 0: start at the peak's side of the cosine.
        total_steps: T, ≥ 1.
        start_learning_rate: the rate of the first update, ≥ 0; None: peak / W.
        final_learning_rate: the rate of the last update, ≥ 0.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        total_steps: int,
        start_learning_rate: float | None = None,
        final_learning_rate: float = 0.0,
    ) -> None:
        _check("peak_learning_rate", peak_learning_rate, peak_learning_rate > 0, "> 0")
        _check("total_steps", total_steps, total_steps >= 1, "≥ 1")
        _check("warmup_steps", warmup_steps, 0 <= warmup_steps <= total_steps, f"in [0, {total_steps}]")
        _check("start_learning_rate", start_learning_rate, (start_learning_rate or 0) >= 0, "≥ 0 or None")
        _check("final_learning_rate", final_learning_rate, final_learning_rate >= 0, "≥ 0")
        self.peak_learning_rate = peak_learning_rate
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.start_learning_rate = start_learning_rate
        self.final_learning_rate = final_learning_rate

    def __call__(self, step: Any) -> Any:
        update = ops.cast(step, "float32") + 1.0
        peak, final, warmup = self.peak_learning_rate, self.final_learning_rate, float(self.warmup_steps)
        start = peak / max(warmup, 1.0) if self.start_learning_rate is None else self.start_learning_rate
        rising = start + (peak - start) * (update - 1.0) / max(warmup - 1.0, 1.0)
        # A warmup of one step is its own end: the peak.
        rising = peak if self.warmup_steps == 1 else rising
        share = ops.clip((update - warmup) / max(self.total_steps - warmup, 1.0), 0.0, 1.0)
        falling = final + (peak - final) * 0.5 * (1.0 + ops.cos(math.pi * share))
        return ops.where(update <= warmup, rising, falling)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "start_learning_rate": self.start_learning_rate,
            "final_learning_rate": self.final_learning_rate,
        }


def _check(name: str, value: object, rule: bool, text: str) -> None:
    if not rule:
        raise ValueError(f"'{name}' must be {text}. Received: {value}")
