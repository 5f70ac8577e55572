"""A client's transport, over REST or gRPC: files and arrays -> the inputs of an endpoint, a request, named outputs.

Nothing here needs TensorFlow, nor REST protobuf. gRPC is one method of TensorFlow Serving, with messages of our own
(extra `grpc`).
"""

import base64
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from kfusion.modalities import kinds, modality
from kfusion.modalities.base import Modality
from kfusion.spec import Spec
from kfusion.validation import UserError

File = str | os.PathLike[str] | bytes
USUAL = Spec().names
"""The modalities of the usual model."""
T = TypeVar("T")
BACKOFF_S, MIN_S = 0.1, 0.001
CHUNK = 1 << 16
REST_PORT, GRPC_PORT = 8501, 8500


@dataclass(frozen=True)
class ModelInputs:
    """What a model's endpoints take.

    Args:
        names: of all its modalities.
        numbers: of the modalities that `raw_bytes` takes as arrays, since they have no files: the shape of one sample.
    """

    names: tuple[str, ...] = USUAL
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def from_metadata(cls, signatures: Mapping[str, Any]) -> "ModelInputs":
        """Those of a model whose signatures the server describes in its metadata."""
        names = list(signatures["serving_default"]["inputs"])
        raw = signatures.get("raw_bytes", {"inputs": {}})["inputs"]
        sizes = {name: [int(dim["size"]) for dim in raw[name]["tensor_shape"]["dim"]] for name in names if name in raw}
        usual = [name for name in USUAL if name in names]
        numbers = {name: tuple(shape[1:]) for name, shape in sizes.items()}
        return cls((*usual, *(name for name in names if name not in usual)), numbers)


PAIR = ModelInputs()


def read_inputs(values: Mapping[str, Any], model: ModelInputs = PAIR) -> tuple[str, dict[str, np.ndarray]]:
    """The endpoint for some samples, and its inputs.

    Args:
        values: files or arrays of some modalities, by name; None stands for a modality that is left out.
        model: what the model takes.

    Returns:
        The signature's name, and its inputs: object arrays of bytes for files, float32 arrays for arrays.

    Raises:
        UserError: there are no values, or no endpoint takes them, or a file cannot be read.
    """
    values, names = {name: value for name, value in values.items() if value is not None}, model.names
    unknown = values.keys() - set(names)
    if unknown:
        raise UserError(f"a modality must be one of {', '.join(names)}. Received: {', '.join(sorted(unknown))}")
    if not values:
        nothing = "neither" if len(names) == 2 else "none"
        raise UserError(f"{' or '.join(map(repr, names))} must be given. Received: {nothing}")
    files = [name for name, value in values.items() if _are_files(value)]
    if not files and len(values) in (1, len(names)):
        inputs = {name: _kind(name).request(name, value) for name, value in values.items()}
        signature = f"{next(iter(values))}_only" if len(values) == 1 else "serving_default"
    else:
        _check_raw(values, files, model)
        inputs, signature = _raw_inputs(values, model), "raw_bytes"
    sizes = {name: len(array) for name, array in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"all inputs must have the same number of rows. Received: {sizes}")
    return signature, inputs


def _check_raw(values: Mapping[str, Any], files: list[str], model: ModelInputs) -> None:
    """Files where the model reads files, and arrays where it has none.

    Raises:
        UserError: it is otherwise.
    """
    arrays = [name for name in values if name not in files and name not in model.numbers]
    wrong = [name for name in files if name in model.numbers]
    if wrong:
        raise UserError(f"{wrong[0]!r} must be numbers. Received: a file")
    if arrays and files:
        *first, last = (repr(name) for name in values if name not in model.numbers)
        all_of, received = ("both", "one of each") if len(first) == 1 else ("all", f"files for {', '.join(files)}")
        rule = f"{', '.join(first)} and {last} must {all_of} be files or {all_of} be arrays"
        raise UserError(f"{rule}. Received: {received}")
    if arrays:
        rule = f"arrays must be of one modality or of all of {', '.join(model.names)}"
        raise UserError(f"{rule}. Received: {' and '.join(values)}")


def _raw_inputs(values: Mapping[str, Any], model: ModelInputs) -> dict[str, np.ndarray]:
    """The inputs of `raw_bytes`: an absent modality is an empty file, or a row of NaN."""
    contents = {
        name: _kind(name).request(name, value) if name in model.numbers else _contents(name, value)
        for name, value in values.items()
    }
    size = max(map(len, contents.values()))
    inputs = {}
    for name in model.names:
        if name in model.numbers:
            inputs[name] = contents.get(name, np.full((size, *model.numbers[name]), np.nan, np.float32))
        else:
            inputs[f"{name}_bytes"] = contents.get(name, _object([b""] * size))
    return inputs


def _kind(name: str) -> Modality:
    """The kind of that name; rows of numbers where there is none."""
    return modality(name) if name in kinds() else Modality()


def _are_files(value: Any) -> bool:
    """Whether a sample is a file or a list of files, each a path, its bytes, or None; else it is an array."""
    if isinstance(value, list | tuple):
        return any(isinstance(part, str | os.PathLike | bytes) for part in value)
    return isinstance(value, str | os.PathLike | bytes)


def _contents(name: str, value: Any) -> np.ndarray:
    """The files' contents; in a list b"" stands for an absent file, as None does."""
    if isinstance(value, list | tuple):
        return _object([b"" if file is None or file == b"" else _content(name, file) for file in value])
    return _object([_content(name, value)])


def _content(name: str, file: File) -> bytes:
    if isinstance(file, str) and not file:
        raise UserError(f"'{name}' must name a file; leave it out where there is none. Received: ''")
    if isinstance(file, bytes):
        where, content = f"'{name}'", file
    else:
        try:
            where, content = str(file), Path(file).read_bytes()
        except OSError as error:
            raise UserError(f"{file}: the {name} file must be readable. Found: {error.strerror}") from error
    if not content:
        raise UserError(f"{where}: the {name} file must not be empty. Found: 0 bytes")
    try:
        return _kind(name).standard_file(content)
    except UserError as error:
        if "no package" in str(error):  # An extra is missing here, and the server cannot help.
            raise UserError(f"{where}: {error}") from None
        return content  # The server says what its model reads.


def _object(contents: list[bytes]) -> np.ndarray:
    out = np.empty(len(contents), object)
    out[:] = contents
    return out


class ClientError(Exception):
    """No prediction came of a request."""


class Unreachable(ClientError):
    """No connection to the server after all retries, or one that was lost before the whole response."""


class TooLate(ClientError):
    """The server did not answer in time."""


class Rejected(ClientError):
    """The server's error.

    Args:
        status: an HTTP status, or the name of a gRPC status.
        sentence: the server's.
    """

    def __init__(self, status: int | str, sentence: str) -> None:
        super().__init__(f"the server answered {status}: {sentence}")
        self.status, self.sentence = status, sentence


class ConnectionFailed(Exception):
    """No connection: the only failure after which a request is sent again.

    Either none could be made, and nothing was sent; or the server had closed one that was kept open from an earlier
    request, which shows only when a request is sent: no byte of a response comes. Even if the server had received it, a
    prediction made twice changes nothing.
    """


@dataclass(frozen=True)
class Model:
    """Which model of a server, and which of its versions.

    Args:
        name: the model's.
        version, label: of a version; neither: the latest.
    """

    name: str
    version: int | None = None
    label: str | None = None

    @property
    def path(self) -> str:
        """Its path in the REST interface."""
        path = f"/v1/models/{quote(self.name, safe='')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{quote(self.label, safe='')}"


def with_retries(send: Callable[[float], T], where: str, timeout_s: float, retries: int) -> T:
    """Sends a request, and again after a `ConnectionFailed` and after nothing else, until the time is over.

    Args:
        send: one attempt; its argument is the seconds that are left.
        where: the server's address, for errors.
        timeout_s: seconds for all attempts together.
        retries: how many attempts may follow the first.

    Raises:
        Unreachable, TooLate, Rejected: no attempt brought a response.
    """
    deadline = time.monotonic() + timeout_s
    attempt = 0
    while True:
        try:
            return send(max(deadline - time.monotonic(), MIN_S))
        except ConnectionFailed as error:
            pause = BACKOFF_S * 2**attempt
            attempt += 1
            if attempt > retries or time.monotonic() + pause >= deadline:
                raise Unreachable(f"{where}: no connection in {attempt} attempts. Found: {error}") from error
            time.sleep(pause)


class Rest:
    """TensorFlow Serving's REST interface, over one connection that is kept open.

    Args:
        url: http:// or https://, host, port (default 8501), and a path in front of /v1 if there is a proxy.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"'url' must begin with http:// or https:// and a host. Received: {url!r}")
        self.where = f"{parts.hostname}:{parts.port or REST_PORT}"
        self._host, self._port, self._prefix = parts.hostname, parts.port or REST_PORT, parts.path.rstrip("/")
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def predict(self, model: Model, signature: str, inputs: Mapping[str, np.ndarray], seconds: float) -> dict[str, Any]:
        """The outputs of an endpoint as parsed JSON.

        Args:
            model: which model.
            signature: the endpoint.
            inputs: its arrays.
            seconds: longest time.

        Raises:
            ConnectionFailed, Unreachable, TooLate, Rejected: see `request`.
        """
        document = {"signature_name": signature, "inputs": {name: _plain(array) for name, array in inputs.items()}}
        return self.request("POST", f"{model.path}:predict", json.dumps(document).encode(), seconds)["outputs"]

    def request(self, method: str, path: str, body: bytes | None, seconds: float) -> Any:
        """One request and its parsed JSON response.

        Args:
            method: GET or POST.
            path: below the address.
            body: JSON text; None: none.
            seconds: longest time.

        Raises:
            ConnectionFailed, Unreachable, TooLate, Rejected: there is no response, or it is an error.
        """
        deadline = time.monotonic() + seconds
        with self._lock:
            try:
                status, text = self._exchange(method, self._prefix + path, body, deadline)
            except TimeoutError as error:
                self.close()
                raise TooLate(f"{self.where}: no answer within {seconds:.3g} s") from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                reason = str(error) or type(error).__name__
                raise Unreachable(
                    f"{self.where}: the connection was lost before the answer. Found: {reason}"
                ) from error
        try:
            document = json.loads(text)
        except ValueError:
            raise Rejected(status, f"no JSON: {text[:200].decode('utf-8', 'replace')!r}") from None
        if status != 200:
            known = isinstance(document, dict) and "error" in document
            raise Rejected(status, document["error"] if known else str(document)[:200])
        return document

    def _exchange(self, method: str, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
        """Status and body of the response to one request."""
        reused = self._connection is not None
        connection = self._connection or self._connect(deadline)
        open_socket = connection.sock
        open_socket.settimeout(_left(deadline))
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
        except (ConnectionError, ssl.SSLEOFError) as error:
            if reused:
                self.close()
                raise ConnectionFailed(str(error) or type(error).__name__) from error
            raise
        parts: list[bytes] = []
        while part := response.read1(CHUNK):
            parts.append(part)
            open_socket.settimeout(_left(deadline))
        if response.length:  # Which `read1` does not mind.
            raise http.client.IncompleteRead(b"".join(parts), response.length)
        if response.will_close:
            self.close()
        response.close()  # Until then the connection would not take another request.
        return response.status, b"".join(parts)

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        left = deadline - time.monotonic()
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=left, context=self._context)
            if self._context
            else http.client.HTTPConnection(self._host, self._port, timeout=left)
        )
        try:
            connection.connect()
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionFailed(str(error) or type(error).__name__) from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        return connection

    def close(self) -> None:
        """Closes the connection; the next request makes a new one."""
        if self._connection:
            self._connection.close()
            self._connection = None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _plain(array: np.ndarray) -> Any:
    """Nested lists, bytes as base64; float32 in as few digits as tell it apart."""
    if array.dtype == object:
        return [{"b64": base64.b64encode(content).decode("ascii")} for content in array.tolist()]
    if array.dtype == np.float32:
        array = array.astype("U").astype(np.float64)
    return array.tolist()


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
    from kfusion.runtime.protos import fill_tensor, message

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
        from kfusion.runtime.protos import message, read_array

        self._grpc: Any = grpc
        self._read: Any = read_array
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
        return {name: self._read(tensor) for name, tensor in sorted(response.outputs.items())}

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
