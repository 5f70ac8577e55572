"""One way to ask a model about one pair, in a process of its own, for `latency`.

Run by the benchmark: `python -m tests.benchmarks.latency_ways`, which answers; or, followed by WAY RUN FOLDER, which
gives one answer and ends, to see how long a cold start takes.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.answering import answer

LEAST = 5
"""Questions that are asked however long they take."""
Ask = Callable[[], np.ndarray]


def portable(file: str) -> Callable[[Path, Path, int], Ask]:
    def make(_: Path, work: Path, threads: int) -> Ask:
        from kfusion.exporting.runtimes import open_portable

        model, pair = open_portable(work / file, threads), _pair(work)
        both = np.ones((1, 2), bool)
        return lambda: model.ask(pair["image"], pair["audio"], both)["probabilities"]

    return make


def saved_model(_: Path, work: Path, threads: int) -> Ask:
    """As a server holds it: TensorFlow's C API, all outputs."""
    _tensorflow_threads(threads)
    from kfusion.runtime.c_api import ServedModel

    model, pair = ServedModel(work / "savedmodel" / "1"), _pair(work)
    inputs = {"image": pair["image"], "audio": pair["audio"]}
    return lambda: model.ask("serving_default", inputs)["probabilities"]


def keras_predict(run: Path, work: Path, threads: int) -> Ask:
    network, inputs = _network(run, work, threads)
    return lambda: network.predict(inputs, verbose=0)


def keras_call(run: Path, work: Path, threads: int) -> Ask:
    network, inputs = _network(run, work, threads)
    return lambda: np.asarray(network(inputs, training=False))


def tf_function(run: Path, work: Path, threads: int) -> Ask:
    network, inputs = _network(run, work, threads)
    import tensorflow as tf

    traced = tf.function(lambda batch: network(batch, training=False))
    tensors = {name: tf.constant(values) for name, values in inputs.items()}
    return lambda: traced(tensors).numpy()


WAYS: dict[str, Callable[[Path, Path, int], Ask]] = {
    "LiteRT": portable("float32.tflite"),
    "LiteRT int8": portable("int8.tflite"),
    "ONNX Runtime": portable("model.onnx"),
    "SavedModel, C API": saved_model,
    "tf.function": tf_function,
    "Keras call": keras_call,
    "Keras predict()": keras_predict,
}


def _pair(work: Path) -> dict[str, np.ndarray]:
    with np.load(work / "pair.npz") as pair:
        return dict(pair)


def _network(run: Path, work: Path, threads: int) -> tuple[Any, dict[str, np.ndarray]]:
    _tensorflow_threads(threads)
    from kfusion.inference import load_network
    from kfusion.run_dir import open_run

    pair = _pair(work)
    inputs = {"image": pair["pixels"], "audio": pair["audio"], "present": np.ones((1, 2), bool)}
    return load_network(open_run(run)), inputs


def _tensorflow_threads(threads: int) -> None:
    """Before TensorFlow is there: it reads this once."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)


class Way:
    """Args: way, one of `WAYS`; run; work, the folder of `latency_files`; threads."""

    def __init__(self, way: str, run: str, work: str, threads: int) -> None:
        self.ask_once = WAYS[way](Path(run), Path(work), threads)
        self.ask_once()

    def ask(self, seconds: float) -> list[float]:
        """Questions for so long; how long each took, in seconds."""
        return timed(self.ask_once, seconds)


def timed(ask: Callable[[], object], seconds: float) -> list[float]:
    """Calls for so long; how long each took, in seconds."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < LEAST or time.perf_counter() < end:
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return took


if __name__ == "__main__":
    if len(sys.argv) > 1:
        way, run, work = sys.argv[1:]
        print(WAYS[way](Path(run), Path(work), 1)().shape, flush=True)
        os._exit(0)
    answer(Way)
