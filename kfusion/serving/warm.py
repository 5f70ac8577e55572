"""The warm-up requests that come with a version, read without TensorFlow: a model's first runs are its slowest.

Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kfusion.rules import UserError
from kfusion.runtime.protos import message
from kfusion.runtime.saved_model import ASSETS
from kfusion.runtime.wire import read_array

FILE = Path(ASSETS, "tf_serving_warmup_requests")
MAX_REQUESTS = 1000
"""As many as TensorFlow Serving reads."""


def warmup_requests(folder: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Signature and inputs of each warm-up request of a version; none where it brings none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return
    content = path.read_bytes()
    start = number = 0
    while start < len(content) and number < MAX_REQUESTS:
        try:
            # TFRecord: the length, its checksum, the record, its checksum.
            (length,) = struct.unpack_from("<Q", content, start)
            record = content[start + 12 : start + 12 + length]
            asked = message("PredictionLog").FromString(record).predict_log.request
        except Exception as error:  # protobuf's own error has no public base class
            raise UserError(f"{path}: must be a TFRecord of PredictionLog. Found: {error}") from error
        yield asked.model_spec.signature_name, {name: read_array(tensor) for name, tensor in asked.inputs.items()}
        start, number = start + 16 + length, number + 1
