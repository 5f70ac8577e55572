"""The server as a process: its socket, its threads, its signals, from start to the last response.

Its HTTP/1.1 connections are uvicorn's, with limits: no client can hold one open by sending headers slowly, or fill
memory by sending them without end.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from asyncio import TimerHandle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kfusion.serving import middleware as log
from kfusion.serving.app import App
from kfusion.serving.batching import Batcher
from kfusion.serving.limits import Limits
from kfusion.serving.middleware import SECURITY, Monitoring, allowed_hosts, error_body
from kfusion.serving.model_manager import Models
from kfusion.serving.rest_api import Api
from kfusion.validation import UserError

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
REASONS = {
    **{400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"},
    503: b"Service Unavailable",
}


class ConnectionConfig(uvicorn.Config):
    """uvicorn's settings, and the limits of each `Connection`.

    Args:
        app: the application.
        limits: of requests.
        settings: uvicorn's.
    """

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
        """Starts the limits; refuses a connection over their number."""
        super().connection_made(transport)
        most = self.config.limits.max_connections
        if len(self.connections) > most:
            self._reject(503, f"{most} connections are open, as many as may be; come back later")
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """A client that closes its half of the connection after a whole request still gets the response."""
        waits = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if waits:
            self.cycle.keep_alive = False
        return waits

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of the head."""
        if self._reading_head:
            if self._head_timer is None:
                self._expect_head()
            self._head_bytes += min(len(data), MAX_HEAD_BYTES + 1)
        super().data_received(data)
        # A body may have come with its head, so what counts is whether the head is complete now.
        if self._reading_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._reject(431, f"the request's head must be at most {MAX_HEAD_BYTES // 1024} KiB")

    def on_message_begin(self) -> None:
        """A request's head begins."""
        self._reading_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head has ended."""
        self._stop_timer()
        self._reading_head, self._head_bytes = False, 0
        if len(self.headers) > MAX_HEADERS:
            raise UserError("too many headers")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request has ended."""
        super().on_message_complete()
        self._reading_head = True

    def send_400_response(self, msg: str) -> None:
        """An error of the HTTP parser, in the form of all others."""
        self._reject(400, msg)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.config.limits.timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._reading_head and not self.transport.is_closing():
            self._reject(408, f"the request's head must arrive within {self.config.limits.timeout_s:g} s")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _reject(self, status: int, sentence: str) -> None:
        """Sends an error in the form of all others, and closes the connection."""
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


KEEP_ALIVE_S = 75
GC_THRESHOLDS = (20_000, 10, 10)
DRAIN_S = 5.0
"""Time for requests in flight at the end, beyond the limit that each request has anyway."""


@dataclass(frozen=True)
class Service:
    """Settings of a server.

    Args:
        name: the model's name in the paths.
        folder: holds a sub-folder per version.
        hosts: further host names to answer to.
        labels: {label: version}.
        num_versions: how many of the latest versions are served.
        poll_s: seconds between two scans of the folder.
        threads: runs of models at a time.
        log_requests: whether each request is a line of the log.
        limits: of requests.
    """

    name: str
    folder: Path
    hosts: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    num_versions: int = 1
    poll_s: float = 1.0
    threads: int = 2
    log_requests: bool = True
    limits: Limits = field(default_factory=Limits)


class Server(uvicorn.Server):
    """uvicorn that calls `started` once it listens, and ends with status 0 after a signal."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, then calls `started`."""
        await super().startup(sockets)
        self._started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the server after SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, before anything slow begins.

    Args:
        host: name or address.
        port: its number; 0: any that is free.

    Raises:
        UserError: the port is taken, or the host is not one of this machine.
    """
    with contextlib.ExitStack() as unless_bound:
        try:
            info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            bound = unless_bound.enter_context(socket.socket(info[0], info[1]))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(info[4])
        except OSError as error:
            rule = "the server must be able to listen there"
            raise UserError(f"{host}:{port}: {rule}. Found: {error.strerror}") from error
        unless_bound.pop_all()
    return bound


def run(service: Service, bound: socket.socket, started: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes the requests in flight.

    Args:
        service: the settings.
        bound: from `listen`.
        started: is called once the server listens; by then the first version is served, or has failed to load.
    """
    log.set_up()
    # A parsed request is a thousand lists, none of them part of a cycle: by default each would start a collection.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    uvloop.run(_serve(service, bound, started))


async def _serve(service: Service, bound: socket.socket, started: Callable[[], None]) -> None:
    limits, monitoring = service.limits, Monitoring(service.name)
    pool = ThreadPoolExecutor(service.threads, "model")
    batcher = Batcher(pool, limits.max_joined, monitoring.ran)
    models = Models(service.name, service.folder, service.num_versions, service.labels, batcher.forget)
    request_log = log.RequestLog(sys.stderr if service.log_requests else None)
    hosts = allowed_hosts(bound.getsockname()[0], service.hosts)
    app = App(Api(models, batcher, limits), models, limits, monitoring, request_log, hosts)
    await models.refresh()
    watching = asyncio.create_task(models.watch(service.poll_s))
    server = Server(
        ConnectionConfig(
            app,
            limits,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(limits.timeout_s + DRAIN_S),
        ),
        started,
    )
    await server.serve([bound])
    watching.cancel()
    await models.close()
    request_log.flush()
    pool.shutdown()
