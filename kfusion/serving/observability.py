"""The server's log and metrics.

The log is one JSON object a line on standard error, never with the content of a request or a response. The metrics are
for Prometheus, under TensorFlow Serving's own names where it has them.
"""

import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import prometheus_client as prometheus
from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import UntypedMetricFamily

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


def set_up(stream: TextIO | None = None) -> None:
    """Sends the records of kfusion.serve and of uvicorn to the stream; standard error where none is given."""
    handler = logging.StreamHandler(stream or sys.stderr)
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
