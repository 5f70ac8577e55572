"""kfusion in `scaling`: one epoch of its real training on the files of a folder, with time and memory by stage.

Run by the benchmark: `python -m tests.benchmarks.kfusion_growth`.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from kfusion.recipes import recipe
from kfusion.training.trainer import train
from tests.benchmarks.answering import answer, memory


class Stages(keras.callbacks.Callback):
    """Notes the time and the peak memory where preparing, training and testing end."""

    def __init__(self) -> None:
        super().__init__()
        self.marked = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}
        self.resident: dict[str, int] = {}

    def mark(self, stage: str) -> None:
        now, self.marked = time.perf_counter() - self.marked, time.perf_counter()
        used = memory()
        self.seconds[stage], self.peak_bytes[stage] = now, used["peak_bytes"]
        self.resident[stage] = used["resident_bytes"]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.mark("prepared")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.mark("trained")


class Growth:
    """Args: folder of the data; recipe_name; split."""

    def __init__(self, folder: str, recipe_name: str, split: str) -> None:
        config = recipe(recipe_name)
        data: Any = replace(config.data, data=folder, split=split)
        self.config = replace(config, data=data, training=replace(config.training, epochs=1))

    def train(self, run_folder: str) -> dict[str, Any]:
        """One epoch and all that follows it."""
        stages = Stages()
        train(self.config, Path(run_folder), callbacks=(stages,))
        stages.mark("finished")
        return {"seconds": stages.seconds, "peak_bytes": stages.peak_bytes, "resident_bytes": stages.resident}


if __name__ == "__main__":
    answer(Growth)
