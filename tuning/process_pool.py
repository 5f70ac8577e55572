"""The processes of a search on this machine, and the loop that shows its trials until it is over.

`ProcessPool` starts the processes, starts again what has died, and stops them. `supervise` runs a search to its end and
always leaves a report.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live

from kfusion.io import read_json, write_json
from kfusion.run_dir import LOCK
from kfusion.validation import UserError
from tuning.report import line, live_table, rows_for, show, write_report
from tuning.space import Plan
from tuning.trials import RETIRED, TRIALS, Trial, completed, read_trials
from tuning.worker import CHIEF, CORES, reachable

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
                [sys.executable, "-m", "tuning.worker", str(folder)],
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


POLL_SECONDS = 0.5
HOPELESS = 3
"""Trials that may fail before any is completed; then the search stops."""
LOST_SECONDS = 30.0
"""How long a helper works on without a chief that answers."""


@dataclass
class Supervisor:
    """Looks at a running search again and again: shows its trials, keeps its processes alive, notices its end.

    Args:
        pool, plan: of the search.
        deadline_seconds: 0: none.
        console: where the trials are shown.
        earlier_seconds: of sessions before this one that left a report.
        ended_before: trials that had ended before this session.
        began: when this session began, on the monotonic clock.
        chief_answered: when the chief of another machine was last known to listen.
        trials_left: when there were last trials to be done.
        reported: numbers of the trials whose end has been printed.
        complete: every trial of the plan has ended.
    """

    pool: ProcessPool
    plan: Plan
    deadline_seconds: float
    console: Console
    earlier_seconds: float = 0.0
    ended_before: int = 0
    began: float = field(default_factory=time.monotonic)
    chief_answered: float = field(default_factory=time.monotonic)
    trials_left: float = field(default_factory=time.monotonic)
    reported: set[int] = field(default_factory=set)
    complete: bool = False

    @property
    def elapsed(self) -> float:
        """Seconds of this session."""
        return time.monotonic() - self.began

    def trials(self) -> list[Trial]:
        """Every trial that was begun."""
        names = tuple(domain.name for domain in self.plan.domains)
        return read_trials(self.pool.folder, names, self.plan.config.training.epochs)

    def run(self) -> None:
        """Looks until the search is over, or its time.

        Raises:
            PoolError: it cannot go on.
        """
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            # What had ended before is not printed again.
            self.reported = {trial.number for trial in self.trials() if trial.status != "running"}
            self.ended_before = len(self.reported)
            while not self.step(live):
                time.sleep(POLL_SECONDS)

    def step(self, live: Live) -> bool:
        """One look at everything. Returns whether it was the last."""
        self.complete = self.pool.check(len(self.reported))  # Before the look: it then sees all that was written.
        trials = self.trials()
        ended = [trial for trial in trials if trial.status != "running"]
        new = [trial for trial in ended if trial.number not in self.reported]
        self.reported |= {trial.number for trial in new}
        if self.console.is_terminal:
            rows = rows_for(self.console.size.height)
            live.update(live_table(trials, self.plan, self.elapsed, len(self.pool.workers), rows), refresh=True)
        else:
            for trial in new:
                self.console.print(line(trial, self.plan), soft_wrap=True)
        failed = [trial for trial in ended if trial.status == "failed"]
        if len(ended) - self.ended_before >= HOPELESS and len(failed) == len(ended):
            raise PoolError(f"the first {len(ended)} trials failed, the first with: {failed[0].reason}", 1)
        if self.pool.helps and self.pool.chief:
            self._listen(self.pool.chief)
        self.complete = self.complete or self._nothing_left(trials)
        late = 0 < self.deadline_seconds < self.elapsed
        if late and not self.complete:
            self.console.print("the deadline is reached; --resume goes on", soft_wrap=True)
        return self.complete or late

    def report(self) -> None:
        """Writes the report and prints it."""
        trials, seconds = self.trials(), self.earlier_seconds + self.elapsed
        if self.console.is_terminal:
            self.console.print(live_table(trials, self.plan, self.elapsed, len(self.pool.workers)))
        show(write_report(self.pool.folder, self.plan, trials, seconds=seconds, complete=self.complete), self.console)

    def _nothing_left(self, trials: list[Trial]) -> bool:
        """Whether a chief waits for a helper that went away between two trials, which it would do for ever."""
        total = self.plan.num_trials
        if not self.pool.waits_for_chief or total is None or sum(t.status != "running" for t in trials) < total:
            self.trials_left = time.monotonic()
        return time.monotonic() - self.trials_left > LOST_SECONDS

    def _listen(self, chief: tuple[str, int]) -> None:
        if self.complete or reachable(chief, 0.0):
            self.chief_answered = time.monotonic()
        elif time.monotonic() - self.chief_answered > LOST_SECONDS:
            raise PoolError(f"{chief[0]}:{chief[1]}: the chief has not answered for {LOST_SECONDS:g} s", 2)


def supervise(pool: ProcessPool, plan: Plan, *, is_new: bool, deadline_seconds: float, console: Console) -> None:
    """Runs a search to its end and reports it.

    Args:
        pool: its processes on this machine, not yet started.
        plan: what to search.
        is_new: the folder was made for it just now, and goes again if the input is refused.
        deadline_seconds: 0: none.
        console: where the trials are shown.

    Raises:
        PoolError: no trial was completed, or the processes cannot go on; what was completed has been reported.
    """
    supervisor = Supervisor(pool, plan, deadline_seconds, console, 0.0 if is_new else _seconds_before(pool))
    if not pool.helps:
        _forget_attempts(pool)
    try:
        pool.start()
        supervisor.run()
    except PoolError as error:
        if is_new and not pool.helps and error.status == BAD_INPUT and not supervisor.trials():
            pool.stop()
            _remove(pool)
        raise
    finally:
        pool.stop()
        if not pool.helps and (pool.folder / "search.json").exists():
            supervisor.report()
    trials = supervisor.trials()
    if not pool.helps and not completed(trials):
        failed = [trial for trial in trials if trial.status == "failed"]
        reason = f"; the first failed with: {failed[0].reason}" if failed else ""
        raise PoolError(f"no trial was completed{reason}", 1)


def _forget_attempts(pool: ProcessPool) -> None:
    """Does not count attempts in which an earlier session was stopped."""
    for path in (pool.folder / TRIALS).glob("trial_*/attempts.json"):
        if read_json(path.parent / "trial.json")["status"] == "RUNNING":
            write_json(path, read_json(path) | {"attempts": 0})


def _seconds_before(pool: ProcessPool) -> float:
    """What the last report says that all sessions until then took."""
    path = pool.folder / "trials.json"
    return float(read_json(path)["seconds"]) if path.exists() else 0.0


def _remove(pool: ProcessPool) -> None:
    """Removes the folder of a search that never began, or what the search wrote into it."""
    for name in (TRIALS, LOGS):
        shutil.rmtree(pool.folder / name, ignore_errors=True)
    for name in ("search.json", LOCK):
        (pool.folder / name).unlink(missing_ok=True)
    if not any(pool.folder.iterdir()):
        pool.folder.rmdir()
