"""kfusion in `predicting`: the job that `python -m kfusion.predict` runs, and the bare model beside it.

Run by the benchmark: `python -m tests.benchmarks.kfusion_predict`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.inference import load_network
from kfusion.prediction.job import Job, run_job
from kfusion.prediction.models import load_model
from kfusion.run_dir import open_run
from tests.benchmarks.answering import answer

BATCH_ROWS = 1024


class Predicting:
    """Args: run_folder; out, where predictions go; arrays, a folder in kfusion's layout; files, one of PNG and WAV."""

    def __init__(self, run_folder: str, out: str, arrays: str, files: str) -> None:
        self.run, self.out, self.sources = Path(run_folder), Path(out), {"arrays": arrays, "files": files}
        self.model = load_model(self.run, False)
        network = load_network(open_run(self.run))
        signature = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in network.input.items()}
        self.bare = tf.function(lambda batch: network(batch, training=False), input_signature=[signature])
        self.images = np.load(Path(arrays) / "images.npy").astype(np.float32)[..., None]
        self.audio = np.load(Path(arrays) / "audio.npy")

    def predict(self, source: str) -> int:
        """From the input to the file of predictions; the model is loaded already."""
        job = Job(self.run, Path(self.sources[source]), self.out, overwrite=True)
        return run_job(job, self.model).num_rows

    def bare_model(self) -> int:
        """The network alone, on arrays in memory."""
        label = []
        for start in range(0, len(self.images), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            present = np.ones((len(self.images[rows]), 2), bool)
            batch = {"image": self.images[rows], "audio": self.audio[rows], "present": present}
            label.append(self.bare(batch).numpy().argmax(axis=1))
        return len(np.concatenate(label))

    def versions(self) -> dict[str, Any]:
        return {"tensorflow": tf.__version__}


if __name__ == "__main__":
    answer(Predicting)
