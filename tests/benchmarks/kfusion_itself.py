"""Contender (d): kfusion, through the function that `python -m kfusion.train` calls.

`kfusion.training.trainer.train` runs in a thread of its own and waits before every epoch until the benchmark lets it
go on.
Run by the benchmark: `python -m tests.benchmarks.kfusion_itself`.
"""

import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kfusion.data.pipeline import TrainingReader, evaluation_batches, training_batches
from kfusion.inference import load_network
from kfusion.io import read_json
from kfusion.prepared_data import gather
from kfusion.recipes import recipe
from kfusion.run_dir import open_run
from kfusion.training.trainer import train
from tests.benchmarks.answering import answer


class Turns(keras.callbacks.Callback):
    """Holds the training before each epoch; tells what an epoch cost."""

    def __init__(self) -> None:
        super().__init__()
        self.go: queue.Queue[None] = queue.Queue()
        self.done: queue.Queue[dict[str, float]] = queue.Queue()
        self.began = self.trained = 0.0
        self.steps = 0
        self.logs: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The one before has been validated and saved by now.
        whole = time.perf_counter() - self.began
        self.done.put({"training": self.trained, "steps": self.steps, "whole": whole, **self.logs})
        self.go.get()
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Several steps run between two calls; Keras counts the last ones as if they were as many.
        self.trained, self.steps = time.perf_counter() - self.began, min(batch + 1, self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.logs = {name: float(value) for name, value in (logs or {}).items()}


class Itself:
    """Args: folder of the data; batch_size; total_steps of the schedule; run_folder, which must not exist yet; seed."""

    def __init__(
        self, folder: str, num_rows: int, batch_size: int, total_steps: int, run_folder: str, seed: int = 0
    ) -> None:
        config = recipe("paper")
        epochs = total_steps // (num_rows // batch_size)
        self.config = replace(
            config,
            # The random split has exactly as many training rows as the other contenders; speed is the same.
            data=replace(config.data, data=folder, split="random"),
            training=replace(config.training, batch_size=batch_size, epochs=epochs, seed=seed),
        )
        self.run_folder, self.turns = Path(run_folder), Turns()
        self.training = ThreadPoolExecutor(1).submit(train, self.config, self.run_folder, callbacks=(self.turns,))
        waited_for(self.turns.done, self.training)

    def train(self, steps: int) -> dict[str, float]:
        """Train for one epoch; `training` is its seconds without validation and checkpoint, `whole` with them."""
        self.turns.go.put(None)
        epoch = waited_for(self.turns.done, self.training)
        if epoch["steps"] != steps:
            raise ValueError(f"'steps' must be the steps of one epoch, {epoch['steps']}. Received: {steps}")
        return epoch

    def evaluate(self) -> dict[str, float]:
        """Accuracy of the best weights so far on the training rows as they are, in the precision of the training."""
        if not hasattr(self, "network"):
            self.network = load_network(open_run(self.run_folder))
            self.network.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
            self.rows = gather(self.config).parts.train
        figures = self.network.evaluate(evaluation_batches(self.rows), verbose=0, return_dict=True)
        return {"rows": len(self.rows), "accuracy": float(figures["accuracy"])}

    def pipeline(self, steps: int) -> int:
        """Read and augment `steps` batches as training does, and do nothing with them; the number of rows."""
        if not hasattr(self, "batches"):
            self.batches = iter(self._batches())
        return sum(int(tf.shape(next(self.batches)[1])[0]) for _ in range(steps))

    def _batches(self) -> tf.data.Dataset:
        material, augment, training = gather(self.config), self.config.augment, self.config.training
        reader = TrainingReader(material.parts.train, training.batch_size, training.seed, augment)
        return training_batches(reader, material.augmentation(), augment.modality_dropout, 0, training.epochs)

    def versions(self) -> dict[str, Any]:
        return read_json(self.run_folder / "environment.json")


def waited_for(results: "queue.Queue[dict[str, float]]", training: "Future[Any]") -> dict[str, float]:
    """The next result; or the training's error, if it ended instead."""
    while True:
        try:
            return results.get(timeout=0.5)
        except queue.Empty:
            if training.done():
                training.result()
                raise RuntimeError("the training ended before the benchmark did") from None


if __name__ == "__main__":
    answer(Itself)
