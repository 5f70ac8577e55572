"""What every request passes and every response carries: origin check, security headers, limited bodies, errors; and the
server's log and metrics.

An error is starlette's `HTTPException`, whose detail is a sentence that says what to change; a client gets it in
TensorFlow Serving's form, {"error": sentence}. The log is one JSON object a line on standard error, never with the
content of a request or a response. The metrics are for Prometheus, under TensorFlow Serving's own names where it has
them.
"""

import asyncio
import json
import logging
import time
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import prometheus_client as prometheus
from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import UntypedMetricFamily
from starlette.exceptions import HTTPException
from starlette.responses import Response

from kfusion.serving.limits import Limits

JSON = "application/json"
GRPC_TO_HTTP = {
    **dict.fromkeys((3, 9, 11), 400),  # INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
    **{4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 10: 409, 12: 501, 14: 503, 16: 401},
}
"""TensorFlow's status codes as TensorFlow Serving's HTTP server gives them on; any other is 500."""


class JsonResponse(Response):
    """A response with a JSON body that is already text.

    Args:
        body: the text.
        status: the HTTP status.
        headers: further headers.
        log_fields: what the log says of the request: rows, version, signature.
    """

    media_type = JSON

    def __init__(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, **log_fields: Any
    ) -> None:
        super().__init__(body, status, headers)
        self.log_fields = log_fields


EXTRA_HEADERS = {413: {"connection": "close"}, 408: {"connection": "close"}, 503: {"retry-after": "1"}}
"""A request that was not read to its end ends its connection; a busy server says when to come back."""


def error_response(error: HTTPException) -> JsonResponse:
    """An error as TensorFlow Serving's clients get it."""
    return JsonResponse(error_body(error.detail), error.status_code, EXTRA_HEADERS.get(error.status_code))


def error_body(sentence: str) -> bytes:
    """TensorFlow Serving's form of an error."""
    return json.dumps({"error": sentence}, ensure_ascii=False).encode("utf-8", "replace")


LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        *("script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", "media-src 'self' data: blob:"),
        *("connect-src 'self'", "worker-src 'self' blob:", "font-src 'self'", "manifest-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)
"""Content security policy of the page: its own files only, and what it records and draws itself."""
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (b"x-frame-options", b"DENY"),
]


def allowed_hosts(host: str, more: tuple[str, ...]) -> frozenset[str] | None:
    """The host names that requests may be sent to.

    Args:
        host: the address that the server listens on.
        more: further names.

    Returns:
        The names in lower case; None: any, where the server listens beyond this machine and no name is listed.
    """
    own = host if ":" not in host else f"[{host}]"
    if not more and own not in LOCAL_NAMES:
        return None
    return frozenset(name.lower() for name in (*LOCAL_NAMES, own, *more))


def check_sender(headers: Mapping[bytes, bytes], hosts: frozenset[str] | None) -> None:
    """Refuses a browser that sends a request on behalf of another site.

    A site could otherwise reach a loopback server through its visitors' browsers: by a request across origins, or by
    giving its own name the address 127.0.0.1 (DNS rebinding).

    Args:
        headers: the request's, names in lower case.
        hosts: from `allowed_hosts`.

    Raises:
        HTTPException: 421 for another host name, 403 for another origin.
    """
    host = (headers.get(b"host") or b"").decode("latin-1").lower()
    if hosts is not None and host and _without_port(host) not in hosts:
        raise HTTPException(421, "this server answers to the names it was started with only; see --allow-host")
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host:
        raise HTTPException(403, "requests from other sites are not answered (CORS is closed)")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


GZIP = 31
"""zlib's `wbits` for gzip with its header."""
READ_ON = 8
"""Up to how many times the largest body is read before the connection is closed on its sender."""


async def read_body(headers: Mapping[bytes, bytes], receive: Any, limits: Limits) -> bytes:
    """The whole body, decompressed.

    Args:
        headers: the request's, names in lower case.
        receive: ASGI's, which gives the parts of the body.
        limits: the server's.

    Raises:
        HTTPException: 413 too large, 408 too slow, 415 compressed in another way than gzip, 400 damaged.
    """
    encoding = (headers.get(b"content-encoding") or b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip", b"x-gzip"):
        raise HTTPException(415, "'Content-Encoding' must be gzip or absent")
    length = headers.get(b"content-length")
    waits = headers.get(b"expect") is not None
    if waits and length is not None and length.isdigit() and int(length[:20]) > limits.max_body_bytes:
        raise too_large(limits)  # The sender waits for a 100 before it sends the body.
    try:
        async with asyncio.timeout(limits.timeout_s):
            body = await _receive(receive, limits)
    except TimeoutError:
        raise HTTPException(408, f"the request must arrive within {limits.timeout_s:g} s") from None
    return body if encoding == b"identity" else decompress(body, limits)


async def _receive(receive: Any, limits: Limits) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body") and len(body) <= limits.max_body_bytes:
        return body
    parts, size = [body], len(body)
    # What is too large is read on and thrown away, within reason: most clients see no answer before they have sent all.
    while message.get("more_body") and size <= READ_ON * limits.max_body_bytes:
        message = await receive()
        size += len(message.get("body", b""))
        if size > limits.max_body_bytes:
            parts.clear()
        else:
            parts.append(message.get("body", b""))
    if size > limits.max_body_bytes:
        raise too_large(limits)
    return b"".join(parts)


def decompress(body: bytes, limits: Limits) -> bytes:
    """A gzip body's content.

    Args:
        body: as it was received.
        limits: the server's.

    Raises:
        HTTPException: 413 it becomes too large, 400 it is damaged.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        content = unpacker.decompress(body, limits.max_body_bytes + 1)
    except zlib.error as error:
        raise HTTPException(400, "the body must be gzip, as 'Content-Encoding' says") from error
    if len(content) > limits.max_body_bytes:
        raise too_large(limits)
    if not unpacker.eof:
        raise HTTPException(400, "the body must be gzip, as 'Content-Encoding' says; it is cut off")
    return content


def too_large(limits: Limits) -> HTTPException:
    """The error for a body over the limit."""
    return HTTPException(413, f"the body must be at most {limits.max_body_mib:g} MiB; send fewer rows at a time")


FLUSH_S = 0.2
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A log record as one JSON object: time, level, event, and the record's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        line = {"time": _now(record.created), "level": record.levelname.lower(), "event": record.getMessage(), **extra}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = f"{record.exc_info[0].__name__} at {_place(record)}"
        return json.dumps(line, ensure_ascii=False, default=str)


def _place(record: logging.LogRecord) -> str:
    """File and line where an exception arose; its message might hold a payload."""
    trace = record.exc_info[2] if record.exc_info else None
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "?"


def _now(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def set_up() -> None:
    """Sends the records of kfusion.serve and of uvicorn to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, level in (("kfusion.serve", logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class RequestLog:
    """A line for each request, written a few times a second: one write a request would cost as much as parsing it.

    Args:
        stream: where the lines are written; None leaves requests out.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    def add(self, **fields: Any) -> None:
        """Adds the line of a request."""
        if self._stream is None:
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._lines.append(orjson.dumps({"time": _now(time.time()), "level": "info", "event": "request", **fields}))

    def flush(self) -> None:
        """Writes the lines since the last flush."""
        if self._lines and self._stream is not None:
            text = b"\n".join(self._lines).decode("utf-8", "replace") + "\n"
            self._lines.clear()
            self._stream.write(text)
            self._stream.flush()


LATENCY_US = tuple(float(f"{10 * 1.8**step:.6g}") for step in range(32))
"""TensorFlow Serving's buckets of its latencies, microseconds."""
SECONDS = prometheus.Histogram.DEFAULT_BUCKETS
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CODES = {200: "OK", 400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
"""TensorFlow's names of the statuses, as TensorFlow Serving counts them."""
REQUESTS = ":tensorflow:serving:request_count"


class Monitoring:
    """The metrics of one server.

    Args:
        model: the model's name, a label of TensorFlow Serving's metrics.
    """

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._counts: dict[str, int] = {}
        latency = prometheus.Histogram(
            ":tensorflow:serving:request_latency",
            "Wall time of a request in microseconds.",
            ("model_name", "API", "entrypoint"),
            buckets=LATENCY_US,
            registry=self.registry,
        )
        self._latency = latency.labels(model, "predict", "REST")
        self._rows = self._histogram("batch_rows", "Rows in one run of the model.", ROWS)
        self._jobs = self._histogram("batch_requests", "Requests answered by one run of the model.", ROWS)
        self._seconds = self._histogram(
            "run_seconds", "Time of one run of the model.", prometheus.Histogram.DEFAULT_BUCKETS
        )
        self.in_work = prometheus.Gauge(
            "kfusion_serving_requests_in_work", "Requests being answered.", registry=self.registry
        )
        prometheus.ProcessCollector(registry=self.registry)
        self.registry.register(self)  # type: ignore[arg-type]  # For the counts, see `collect`.

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> prometheus.Histogram:
        return prometheus.Histogram(f"kfusion_serving_{name}", text, buckets=buckets, registry=self.registry)

    def collect(self) -> list[UntypedMetricFamily]:
        """The requests by status. prometheus_client's own counters end in `_total`, TensorFlow Serving's do not."""
        family = UntypedMetricFamily(REQUESTS, "Predict requests by status.", labels=("model_name", "status"))
        for status, count in sorted(self._counts.items()):
            family.add_metric((self._model, status), count)
        return [family]

    def predicted(self, status: int, seconds: float) -> None:
        """Counts a predict request.

        Args:
            status: the response's HTTP status.
            seconds: wall time until the response.
        """
        name = CODES.get(status, f"HTTP_{status}")
        self._counts[name] = self._counts.get(name, 0) + 1
        self._latency.observe(seconds * 1e6)

    def ran(self, num_rows: int, num_jobs: int, seconds: float) -> None:
        """Counts a run of the model.

        Args:
            num_rows: rows of the run.
            num_jobs: requests that shared it.
            seconds: its wall time.
        """
        self._rows.observe(num_rows)
        self._jobs.observe(num_jobs)
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus.generate_latest(self.registry)
