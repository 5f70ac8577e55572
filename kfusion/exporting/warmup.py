"""Requests that a server answers by itself while it loads a model, so that no client has to wait for what is slow once.

TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`.
Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.exporting.prove import Request
from kfusion.runtime.capi import DTYPES, NUMBERS, STRING
from kfusion.runtime.protos import message

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
                _fill(asked.inputs[alias], values)
            log = message("PredictionLog")(predict_log={"request": asked})
            writer.write(log.SerializeToString(deterministic=True))


def read_warmup(folder: Path) -> list[Request]:
    """The requests in a SavedModel's folder; their checksums are compared."""
    requests = []
    for record in tf.data.TFRecordDataset(str(folder / FILE)).as_numpy_iterator():
        asked = message("PredictionLog").FromString(record).predict_log.request
        inputs = {alias: _array(asked.inputs[alias]) for alias in sorted(asked.inputs)}
        requests.append(Request(asked.model_spec.signature_name, inputs))
    return requests


def _fill(tensor: Any, values: np.ndarray) -> None:
    """An array into a TensorProto."""
    is_text = values.dtype == object
    tensor.dtype = STRING if is_text else NUMBERS[values.dtype]
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    if is_text:
        tensor.string_val.extend(values.ravel().tolist())
    else:
        tensor.tensor_content = np.ascontiguousarray(values).tobytes()


def _array(tensor: Any) -> np.ndarray:
    """A TensorProto's array."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != STRING:
        return np.frombuffer(tensor.tensor_content, DTYPES[tensor.dtype]).reshape(shape)
    out = np.empty(len(tensor.string_val), object)
    out[:] = list(tensor.string_val)
    return out.reshape(shape)
