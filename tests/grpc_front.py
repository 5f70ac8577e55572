"""A gRPC server process around an exported model, with the classes that TensorFlow Serving's own package brings.

    python -m tests.grpc_front MODEL_FOLDER SECONDS_TO_WAIT

It prints its port. Values are answered as lists, as TensorFlow Serving does, not as raw bytes. A request for the model
`slow` waits that long first.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from kfusion.runtime.c_api import Refused, ServedModel


def listed(values: np.ndarray) -> Any:
    """A TensorProto with its values in the list of their type; what repeats at the end is left out."""
    tensor = tf.make_tensor_proto(values[..., :0] if values.ndim else values, dtype=tf.as_dtype(values.dtype))
    for size, dim in zip(values.shape, tensor.tensor_shape.dim, strict=True):
        dim.size = size
    flat = values.ravel().tolist()
    while len(flat) > 1 and flat[-1] == flat[-2]:
        flat.pop()
    field = {"f": tensor.float_val, "i": tensor.int64_val, "b": tensor.bool_val, "O": tensor.string_val}
    field[values.dtype.kind].extend(flat)
    return tensor


class Front(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, folder: Path, seconds: float) -> None:
        self.model, self.seconds = ServedModel(folder), seconds

    def Predict(self, request: Any, context: Any) -> Any:
        spec = request.model_spec
        if spec.name == "slow":
            time.sleep(self.seconds)
        elif spec.name != "kfusion" or spec.version.value not in (0, 1) or spec.version_label not in ("", "stable"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        try:
            outputs = self.model.ask(spec.signature_name or "serving_default", inputs)
        except Refused as error:
            context.abort(getattr(grpc.StatusCode, error.code), str(error))
        answer = predict_pb2.PredictResponse(model_spec=spec)
        for name, values in outputs.items():
            answer.outputs[name].CopyFrom(listed(values))
        return answer


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    front = Front(Path(sys.argv[1]), float(sys.argv[2]))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(front, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
