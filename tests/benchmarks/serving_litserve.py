"""LitServe around the same SavedModel, for the load benchmark; runs in an environment of its own.

PYTHON tests/benchmarks/serving_litserve.py VERSION_FOLDER PORT BATCH_SIZE
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import litserve
import numpy as np
from serving_files import read_image, read_sound


class Fusion(litserve.LitAPI):
    """TensorFlow Serving's row form in, of numbers or of files, its row form out."""

    def setup(self, device):
        import tensorflow as tf

        self.model = tf.saved_model.load(sys.argv[1])
        self.answer = self.model.signatures["serving_default"]
        self.constant = tf.constant

    def decode_request(self, request):
        row = request["instances"][0]
        if "image_bytes" in row:
            files = {name: row[f"{name}_bytes"]["b64"] for name in ("image", "audio")}
            return {"image": read_image(files["image"]), "audio": read_sound(files["audio"])}
        return {name: np.asarray(values, np.float32) for name, values in row.items()}

    def batch(self, inputs):
        return {name: np.stack([each[name] for each in inputs]) for name in inputs[0]}

    def predict(self, batch):
        single = batch["image"].ndim == 3
        given = {name: self.constant(values[np.newaxis] if single else values) for name, values in batch.items()}
        answer = {name: values.numpy() for name, values in self.answer(**given).items()}
        return {name: values[0] for name, values in answer.items()} if single else answer

    def unbatch(self, output):
        return [{name: values[row] for name, values in output.items()} for row in range(len(output["label"]))]

    def encode_response(self, output):
        text = {
            name: values.decode() if isinstance(values, bytes) else values.tolist() for name, values in output.items()
        }
        return {"predictions": [text]}


if __name__ == "__main__":
    size = int(sys.argv[3])
    options = {"max_batch_size": size, "batch_timeout": 0.002} if size > 1 else {}
    server = litserve.LitServer(Fusion(**options), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
