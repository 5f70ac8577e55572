"""HTTP/1.1 connections that cannot be held open by sending headers slowly, or filled by sending them without end."""

from asyncio import TimerHandle
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kfusion.rules import UserError
from kfusion.serving.answers import error_body
from kfusion.serving.gate import SECURITY
from kfusion.serving.limits import Limits

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
REASONS = {
    **{400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"},
    503: b"Service Unavailable",
}


class ConnectionConfig(uvicorn.Config):
    """uvicorn's settings, and the limits that each `Connection` keeps."""

    def __init__(self, app: Any, limits: Limits, **settings: Any) -> None:
        super().__init__(app, http=Connection, **settings)
        self.limits = limits


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits on the head of a request, in bytes, in headers and in seconds."""

    config: ConnectionConfig
    _head_bytes = 0
    _reading_head = True
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        most = self.config.limits.max_connections
        if len(self.connections) > most:
            self._refuse(503, f"{most} connections are open, as many as may be; come back later")
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """Whoever has sent a whole request and then closes their half still gets the answer."""
        waits = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if waits:
            self.cycle.keep_alive = False
        return waits

    def data_received(self, data: bytes) -> None:
        if self._reading_head:
            if self._head_timer is None:
                self._expect_head()
            self._head_bytes += min(len(data), MAX_HEAD_BYTES + 1)
        super().data_received(data)
        # A body may have come with its head, so what counts is whether the head is complete now.
        if self._reading_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the request's head must be at most {MAX_HEAD_BYTES // 1024} KiB")

    def on_message_begin(self) -> None:
        self._reading_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._reading_head, self._head_bytes = False, 0
        if len(self.headers) > MAX_HEADERS:
            raise UserError("too many headers")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._reading_head = True

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.config.limits.timeout_s, self._late)

    def _late(self) -> None:
        self._head_timer = None
        if self._reading_head and not self.transport.is_closing():
            self._refuse(408, f"the request's head must arrive within {self.config.limits.timeout_s:g} s")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers in the form of all other errors, and hangs up."""
        body = error_body(sentence)
        head = [b"HTTP/1.1 %d %s" % (status, REASONS[status])]
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        head += [name + b": " + value for name, value in (*fields, *SECURITY)]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()
