"""What a client says to a model server over REST; `grpc_transport` does over gRPC. Neither needs TensorFlow.

Pictures and sounds, as files or arrays, become the inputs of the signature that fits; named arrays come back.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from kfusion.spec import MAX_CHANNELS, are_channels_first, without_channel
from kfusion.validation import UserError

File = str | os.PathLike[str] | bytes


def read_inputs(image: Any, audio: Any) -> tuple[str, dict[str, np.ndarray]]:
    """The signature that fits what is given, and its inputs."""
    given = {name: value for name, value in (("image", image), ("audio", audio)) if value is not None}
    if not given:
        raise UserError("'image' or 'audio' must be given. Received: neither")
    kinds = {name: _is_files(value) for name, value in given.items()}
    if all(kinds.values()):
        contents = {name: _contents(name, value) for name, value in given.items()}
        size = max(map(len, contents.values()))
        inputs = {f"{name}_bytes": contents.get(name, _object([b""] * size)) for name in ("image", "audio")}
        signature = "raw_bytes"
    elif any(kinds.values()):
        raise UserError("'image' and 'audio' must both be files or both be arrays. Received: one of each")
    else:
        inputs = {name: _pixels(value) if name == "image" else _features(value) for name, value in given.items()}
        signature = "serving_default" if len(given) == 2 else f"{next(iter(given))}_only"
    sizes = {name: len(values) for name, values in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"all inputs must have the same number of rows. Received: {sizes}")
    return signature, inputs


def _is_files(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(part, str | os.PathLike | bytes) for part in value)
    return isinstance(value, str | os.PathLike | bytes)


def _contents(name: str, value: Any) -> np.ndarray:
    """The files' contents; b"" in a list is a file that is not there, as None is."""
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
    return content


def _object(contents: list[bytes]) -> np.ndarray:
    out = np.empty(len(contents), object)
    out[:] = contents
    return out


def _pixels(value: Any) -> np.ndarray:
    """float32 (batch, height, width, channels) in [0, 1]; channels that can only come first are moved to the end."""
    array = np.asarray(value)
    scale = 255 if array.dtype == np.uint8 else 1
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] > MAX_CHANNELS):
        array = array[..., np.newaxis]
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4:
        raise UserError(f"'image' must have 2, 3 or 4 axes. Received: shape {array.shape}")
    height, width, channels = array.shape[1:]
    if are_channels_first((height, width, channels)):
        array = np.moveaxis(array, 1, -1)
    return array.astype(np.float32) / np.float32(scale)


def _features(value: Any) -> np.ndarray:
    """float32 (batch, num_audio); frames of coefficients one after the other."""
    array = np.atleast_2d(np.asarray(value, np.float32))
    if array.ndim == 2:
        return array
    if len(without_channel(array.shape[1:])) != 2:
        raise UserError(f"'audio' must have 1 to 3 axes. Received: shape {array.shape}")
    return array.reshape(len(array), -1)


T = TypeVar("T")
BACKOFF_S, MIN_S = 0.1, 0.001
CHUNK = 1 << 16
REST_PORT, GRPC_PORT = 8501, 8500


class ClientError(Exception):
    """A prediction that was asked for and not got."""


class Unreachable(ClientError):
    """No connection to the server, after all retries; or one that was lost before the whole answer was there."""


class TooLate(ClientError):
    """The server did not answer in time."""


class Rejected(ClientError):
    """The server answered with an error: `status`, an HTTP status or the name of a gRPC status, and `sentence`."""

    def __init__(self, status: int | str, sentence: str) -> None:
        super().__init__(f"the server answered {status}: {sentence}")
        self.status, self.sentence = status, sentence


class ConnectionFailed(Exception):
    """No connection: the only failure after which a request is sent again.

    Either none could be made, and nothing was sent; or the server had closed one that was kept open from an earlier
    request, which shows only when a request is sent: no byte of an answer comes. Had the server begun with it after
    all, a prediction made twice changes nothing.
    """


@dataclass(frozen=True)
class Model:
    """Which model of a server, and which of its versions; neither version nor label: the latest."""

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
    """Sends, again after a `ConnectionFailed` and after nothing else, until the time is over.

    Args:
        send: gets the seconds that are left.

    Raises:
        Unreachable, TooLate, Rejected: it did not work out.
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
        """The outputs of a signature, as JSON has them."""
        document = {"signature_name": signature, "inputs": {name: _plain(array) for name, array in inputs.items()}}
        return self.ask("POST", f"{model.path}:predict", json.dumps(document).encode(), seconds)["outputs"]

    def ask(self, method: str, path: str, body: bytes | None, seconds: float) -> Any:
        """One request and its JSON answer.

        Raises:
            ConnectionFailed, Unreachable, TooLate, Rejected: there is none.
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
                found = str(error) or type(error).__name__
                raise Unreachable(f"{self.where}: the connection was lost before the answer. Found: {found}") from error
        try:
            answer = json.loads(text)
        except ValueError:
            raise Rejected(status, f"no JSON: {text[:200].decode('utf-8', 'replace')!r}") from None
        if status != 200:
            raise Rejected(
                status, answer["error"] if isinstance(answer, dict) and "error" in answer else str(answer)[:200]
            )
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes]:
        """Status and body of the answer to one request."""
        kept = self._connection is not None
        connection = self._connection or self._connect(deadline)
        open_socket = connection.sock
        open_socket.settimeout(_left(deadline))
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
        except (ConnectionError, ssl.SSLEOFError) as error:
            if kept:
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
