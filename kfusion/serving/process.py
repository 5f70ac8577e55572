"""The server as a process: its socket, its threads, its signals, from start to the last answer."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
import uvloop

from kfusion.rules import UserError
from kfusion.serving import log
from kfusion.serving.api import Api
from kfusion.serving.app import App
from kfusion.serving.batching import Batcher
from kfusion.serving.connection import ConnectionConfig
from kfusion.serving.gate import allowed_hosts
from kfusion.serving.limits import Limits
from kfusion.serving.models import Models
from kfusion.serving.monitoring import Monitoring

KEEP_ALIVE_S = 75
GC_THRESHOLDS = (20_000, 10, 10)
DRAIN_S = 5.0
"""Time for what is in flight at the end, beyond the limit that each request has anyway."""


@dataclass(frozen=True)
class Service:
    """What is served, and how.

    Args:
        name: the model's name in the paths.
        folder: holds a sub-folder per version.
        hosts: further host names to answer to.
        labels: {label: version}.
        num_versions: how many of the latest versions are served.
        poll_s: seconds between two looks at the folder.
        threads: runs of models at a time.
        log_requests: whether each request is a line of the log.
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
    """uvicorn that tells when it listens, and ends with status 0 when a signal ended it in order."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, before anything slow begins.

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
    """Serves until SIGTERM or Ctrl-C, then answers what is in flight.

    Args:
        started: is called once the server listens; by then the first version answers, or has failed to load.
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
