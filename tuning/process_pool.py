"""The processes of a search on this machine: `ProcessPool` starts them, starts again what has died, and stops them.

A process is keras-tuner's chief, or a worker that runs trials; which of the two, keras-tuner reads from the
environment. It is started as `python -m tuning.process_pool FOLDER`, and its standard input is kept open: when that
closes, the search has died, and so does the process.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfusion.cli import fail, quiet, run_main
from kfusion.validation import UserError
from tuning.space import read_plan
from tuning.trials import RETIRED

CHIEF = "chief"
CORES = "KFUSION_CORES"
"""Environment variable: the processor cores of this process, as `0,1`."""
PATIENCE_SECONDS = 20.0
"""How long a worker waits for its chief to answer."""


def die_with_parent() -> None:
    """Ends the process when its standard input closes."""

    def watch() -> None:
        os.read(0, 1)  # Not through Python's own stream, whose lock would be in the way at the end.
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def address() -> tuple[str, int] | None:
    """Where keras-tuner's environment variables say that the chief is; None where neither address nor port is set.

    Raises:
        UserError: they are incomplete, or the port is no number.
    """
    names = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
    values = {name: os.environ.get(name, "") for name in names}
    if not any(name in os.environ for name in names[:2]):
        return None
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise UserError(f"{', '.join(names)} must be set together. Missing: {', '.join(missing)}")
    port = values[names[1]]
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"'{names[1]}' must be in [1, 65535]. Received: {port!r}")
    return values[names[0]], int(port)


def reachable(where: tuple[str, int], seconds: float) -> bool:
    """Whether something listens at an address, or begins to in time.

    Args:
        where: host and port.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(where, timeout=2.0).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)


def use_cores() -> None:
    """Keeps to the cores that the search gave this process, where the system can do that."""
    cores = {int(core) for core in os.environ.get(CORES, "").split(",") if core}
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def work(folder: Path) -> None:
    """Runs trials, or hands them out as the chief, until the oracle has nothing left.

    Raises:
        UserError: the data or the settings break a rule, or the chief is not there.
    """
    plan, chief = read_plan(folder), address()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # It complains that each trial is a new network.
    is_chief = chief is not None and CHIEF in os.environ["KERASTUNER_TUNER_ID"]
    with quiet():
        import grpc
        from keras_tuner.errors import FatalError

        from kfusion.environment import apply_precision, resolve_precision
        from kfusion.prepared_data import gather
        from tuning.tuner import SearchTuner
    if is_chief:
        SearchTuner(plan, folder).search()
        return
    if chief and not reachable(chief, PATIENCE_SECONDS):
        raise UserError(f"{chief[0]}:{chief[1]}: a chief must listen there. Found: none in {PATIENCE_SECONDS:g} s")
    arithmetic = resolve_precision(plan.config.training.precision)
    prepared = gather(plan.config)
    try:
        SearchTuner(plan, folder, prepared, apply_precision(arithmetic)).search()
    except FatalError as error:
        fail(str(error))
    except grpc.RpcError as error:
        details = getattr(error, "details", None)
        fail(f"the chief: {details() if details else error}", status=1)


LOGS = "logs"
BAD_INPUT = 2
MAX_DEATHS = 4
"""Deaths in a row, per worker, without any trial ending between them, after which the search gives up."""
LOOPBACK = "127.0.0.1"


class PoolError(Exception):
    """The processes cannot go on.

    Args:
        message: why.
        status: what the program should exit with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class PoolProcess:
    """One process and what it has written.

    Args:
        name: to keras-tuner.
        log: where its output goes.
        environment: variables that it gets besides those of this process.
        process: the running one.
        begun_at: bytes of the log when it was started last.
        deaths: in a row, without a trial ending between them.
    """

    name: str
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    begun_at: int = 0
    deaths: int = 0

    def start(self, folder: Path) -> None:
        """Starts it, or starts it again."""
        self.begun_at = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tuning.process_pool", str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C is for the search, which stops its processes itself.
            )

    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.process.poll() if self.process else None

    def stop(self) -> None:
        """Kills it: whatever it was writing appears whole or not at all."""
        if self.process:
            self.process.kill()
            self.process.wait()
            if self.process.stdin:
                self.process.stdin.close()

    def last_line(self) -> str:
        """The last line that it has written since it was started."""
        with self.log.open("rb") as log:
            log.seek(self.begun_at)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].removeprefix("kfusion: ") if lines else "no message"


@dataclass
class ProcessPool:
    """The chief, if there is one here, and the workers.

    Args:
        folder: of the search.
        workers: names; each worker is one process.
        chief: where the chief listens; None: a single worker needs none.
        runs_chief: it is one of these processes.
        waits_for_chief: other machines may have workers: the search is over when the chief ends.
        processes: those that were started.
        num_ended: trials that had ended at the last check.
    """

    folder: Path
    workers: list[str]
    chief: tuple[str, int] | None = None
    runs_chief: bool = False
    waits_for_chief: bool = False
    processes: list[PoolProcess] = field(default_factory=list)
    num_ended: int = 0

    @property
    def helps(self) -> bool:
        """Whether another machine has the chief, and reports."""
        return self.chief is not None and not self.runs_chief

    def start(self) -> None:
        """Starts the chief, if it is one of them, and the workers."""
        (self.folder / LOGS).mkdir(exist_ok=True)
        shares = core_shares(len(self.workers))
        if self.runs_chief:
            self.processes.append(self._process(CHIEF, {}))
        for name, cores in zip(self.workers, shares, strict=True):
            self.processes.append(self._process(name, {CORES: cores} if len(self.workers) > 1 else {}))
        for process in self.processes:
            process.start(self.folder)

    def check(self, num_ended: int) -> bool:
        """Starts again what has died; to be called every second or so.

        Args:
            num_ended: trials that have ended so far: while that number grows, deaths are forgiven.

        Returns:
            Whether the search is over.

        Raises:
            PoolError: a process refused its input, or dies each time.
        """
        if num_ended > self.num_ended:
            self.num_ended = num_ended
            for process in self.processes:
                process.deaths = 0
        # A chief ends when nothing runs and nothing is left; a worker that is late would wait for ever.
        if any(process.name == CHIEF and process.status() == 0 for process in self.processes):
            return True
        for process in self.processes:
            if process.status() not in (None, 0):
                self._revive(process)
        return not self.waits_for_chief and all(process.status() == 0 for process in self._workers())

    def stop(self) -> None:
        """Kills all of them."""
        for process in reversed(self.processes):
            process.stop()

    def _workers(self) -> list[PoolProcess]:
        return [process for process in self.processes if process.name != CHIEF]

    def _process(self, name: str, share: dict[str, str]) -> PoolProcess:
        asks = {"KERASTUNER_TUNER_ID": name}
        if self.chief:
            asks |= {"KERASTUNER_ORACLE_IP": self.chief[0], "KERASTUNER_ORACLE_PORT": str(self.chief[1])}
            asks["no_grpc_proxy"] = self.chief[0]  # gRPC would ask a web proxy even for this machine.
        return PoolProcess(name, self.folder / LOGS / f"{name}.log", asks | share)

    def _revive(self, process: PoolProcess) -> None:
        """Starts a process again; a worker of the same name gets its old trial, which goes on from its last epoch."""
        status, words = process.status(), process.last_line()
        if status == RETIRED:
            process.stop()
            process.start(self.folder)
            return
        if status == BAD_INPUT:
            raise PoolError(words, BAD_INPUT)
        process.deaths += 1
        if process.deaths > MAX_DEATHS:
            raise PoolError(f"{process.name} died {process.deaths} times in a row; {process.log} ends with: {words}", 1)
        # Its memory of who runs what is gone with a chief: all begin anew from the files.
        for other in self.processes if process.name == CHIEF else [process]:
            other.stop()
            other.start(self.folder)


def core_shares(num_workers: int) -> list[str]:
    """The cores of each worker, as `0,2`; two workers share a core only where there are too few."""
    available = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    cores = [str(core) for core in sorted(available)]
    if num_workers >= len(cores):
        return [cores[number % len(cores)] for number in range(num_workers)]
    return [",".join(cores[number::num_workers]) for number in range(num_workers)]


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def check_port(where: tuple[str, int]) -> None:
    """The chief must be able to listen there; gRPC itself would share the port with whatever has it.

    Raises:
        UserError: it cannot.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # A port that was closed a minute ago is free.
        try:
            probe.bind(where)
        except OSError as error:
            raise UserError(
                f"{where[0]}:{where[1]}: the chief must be able to listen there. Found: {error.strerror}"
            ) from error


def main() -> None:
    """Runs one process of a search."""
    die_with_parent()
    use_cores()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    run_main(main)
