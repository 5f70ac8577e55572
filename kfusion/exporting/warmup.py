"""Requests that a server answers by itself while it loads a model, so that no client has to wait for what is slow once.

TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`.
Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from kfusion.exporting.prove import Request
from kfusion.runtime.protos import message
from kfusion.runtime.wire import fill_tensor, read_array

FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 8)


def write_warmup(folder: Path, name: str, requests: Sequence[Request]) -> None:
    """Writes the requests into a SavedModel's folder.

    Args:
        folder: a SavedModel.
        name: the model's, as the server knows it.
        requests: at most 1000, which is all that a server reads.
    """
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            asked = message("PredictRequest")(model_spec={"name": name, "signature_name": request.signature})
            for alias, values in request.inputs.items():
                fill_tensor(asked.inputs[alias], values)
            log = message("PredictionLog")(predict_log={"request": asked})
            writer.write(log.SerializeToString(deterministic=True))


def read_warmup(folder: Path) -> list[Request]:
    """The requests in a SavedModel's folder; their checksums are compared."""
    requests = []
    for record in tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator():
        asked = message("PredictionLog").FromString(record).predict_log.request
        inputs = {alias: read_array(asked.inputs[alias]) for alias in sorted(asked.inputs)}
        requests.append(Request(asked.model_spec.signature_name, inputs))
    return requests
