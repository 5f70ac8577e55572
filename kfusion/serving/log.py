"""The server's log: one JSON object a line, on standard error, never with what a request or an answer held."""

import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

FLUSH_S = 0.2
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A log record as one JSON object: time, level, event, and the record's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
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
    """A line for each request, gathered and written a few times a second: a write each would cost as much as parsing.

    Args:
        stream: where to; None leaves requests out.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    def add(self, **facts: Any) -> None:
        """Notes a request."""
        if self._stream is None:
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._lines.append(orjson.dumps({"time": _now(time.time()), "level": "info", "event": "request", **facts}))

    def flush(self) -> None:
        """Writes what has been gathered."""
        if self._lines and self._stream is not None:
            text = b"\n".join(self._lines).decode("utf-8", "replace") + "\n"
            self._lines.clear()
            self._stream.write(text)
            self._stream.flush()
