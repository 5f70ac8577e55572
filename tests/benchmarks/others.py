"""Whether a measurement had the machine to itself: the processor time that other programs took meanwhile.

Threads that wait for each other suffer far more from a neighbour than their share of the processor says: PyTorch falls
to a tenth where TensorFlow falls to a half. A ratio taken on a busy machine is worth nothing.
"""

import os
import time
from pathlib import Path

from tests.benchmarks.answering import cpu_seconds

LIMIT = 0.05
"""Cores' worth of other programs, above which the figures are said to be void."""


class Others:
    """Watches from its making on."""

    def __init__(self) -> None:
        self.began, self.before = time.perf_counter(), self._seconds()

    def _seconds(self) -> float:
        """Processor time of all programs but this one and its descendants, since the machine's start."""
        # user, nice, system, idle, iowait, irq, softirq, steal: idle ones are not work.
        ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = sum(ticks) - ticks[3] - ticks[4]
        return busy / os.sysconf("SC_CLK_TCK") - cpu_seconds(os.getpid())

    def share(self) -> float:
        """Cores' worth of processor time, on average, that others took."""
        return max(0.0, (self._seconds() - self.before) / (time.perf_counter() - self.began))

    @staticmethod
    def verdict(share: float) -> str:
        """One line on what the figures are worth."""
        if share <= LIMIT:
            return f"Other programs used {share:.2f} cores meanwhile."
        return f"VOID: other programs used {share:.2f} cores meanwhile (at most {LIMIT:g}). Measure on an idle machine."
