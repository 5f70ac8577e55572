"""TensorFlow Serving's gRPC interface: one method, with messages of our own (extra `grpc`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfusion.runtime.protos import fill_tensor, message, read_array
from kfusion.transport import GRPC_PORT, ConnectionFailed, Model, Rejected, TooLate, Unreachable
from kfusion.validation import UserError

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MAX_BYTES = 64 << 20
NEVER_SENT = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")
"""Beginnings of UNAVAILABLE's details where nothing was sent: any other one may come after the request was sent."""


def predict_request(model: Model, signature: str, inputs: Mapping[str, np.ndarray]) -> Any:
    """A PredictRequest message.

    Args:
        model: which model.
        signature: the endpoint.
        inputs: its arrays.
    """
    request = message("PredictRequest")()
    request.model_spec.name, request.model_spec.signature_name = model.name, signature
    if model.version is not None:
        request.model_spec.version.value = model.version
    elif model.label is not None:
        request.model_spec.version_label = model.label
    for name, values in inputs.items():
        fill_tensor(request.inputs[name], values)
    return request


class Grpc:
    """A channel to a server.

    Args:
        target: host:port; the port is 8500 where none is given.
        secure: over TLS.

    Raises:
        UserError: grpcio is missing.
    """

    def __init__(self, target: str, secure: bool = False) -> None:
        try:
            import grpc
        except ModuleNotFoundError:
            raise UserError(
                "gRPC needs the extra: pip install 'kfusion[grpc]' (from a checkout: pip install '.[grpc]'). "
                "Found: no package grpc"
            ) from None
        self._grpc: Any = grpc
        self.where = target if target.rpartition(":")[2].isdigit() else f"{target}:{GRPC_PORT}"
        options = [("grpc.max_send_message_length", MAX_BYTES), ("grpc.max_receive_message_length", MAX_BYTES)]
        self._channel = (
            grpc.secure_channel(self.where, grpc.ssl_channel_credentials(), options)
            if secure
            else grpc.insecure_channel(self.where, options)
        )
        self._predict = self._channel.unary_unary(
            PREDICT,
            request_serializer=message("PredictRequest").SerializeToString,
            response_deserializer=message("PredictResponse").FromString,
        )

    def predict(self, model: Model, signature: str, inputs: Mapping[str, np.ndarray], seconds: float) -> dict[str, Any]:
        """The outputs of an endpoint.

        Args:
            model: which model.
            signature: the endpoint.
            inputs: its arrays.
            seconds: longest time.

        Raises:
            ConnectionFailed, Unreachable, TooLate, Rejected: there is no response, or it is an error.
        """
        try:
            response = self._predict(predict_request(model, signature, inputs), timeout=seconds)
        except self._grpc.RpcError as error:
            code, sentence = error.code(), error.details() or ""
            if code is self._grpc.StatusCode.UNAVAILABLE:
                if sentence.startswith(NEVER_SENT):
                    raise ConnectionFailed(sentence) from error
                # The server may have received it; what it cannot have received, gRPC has sent again by itself.
                lost = f"{self.where}: the connection was lost before the answer. Found: {sentence}"
                raise Unreachable(lost) from error
            if code is self._grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TooLate(f"{self.where}: no answer within {seconds:.3g} s") from error
            raise Rejected(code.name, sentence) from error
        return {name: read_array(tensor) for name, tensor in sorted(response.outputs.items())}

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
