"""The processes of a search on this machine: started, watched, started again, stopped.

Watches a search: shows its trials, keeps its processes alive, ends it, and always leaves a report.
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
from tuning.report import board, line, show, write_report
from tuning.space import Plan
from tuning.trials import RETIRED, TRIALS, Trial, completed, read_trials
from tuning.worker import CHIEF, CORES, reachable

LOGS = "logs"
BAD_INPUT = 2
MAX_DEATHS = 4
"""Deaths in a row, per worker, without any trial ending between them, after which the search gives up."""
LOOPBACK = "127.0.0.1"


class CrewError(Exception):
    """The processes cannot go on. `status` is what the program should exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Member:
    """One process and what it has written."""

    name: str
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    begun_at: int = 0
    deaths: int = 0

    def start(self, folder: Path) -> None:
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
        """At once: whatever it was writing appears whole or not at all."""
        if self.process:
            self.process.kill()
            self.process.wait()
            if self.process.stdin:
                self.process.stdin.close()

    def last_words(self) -> str:
        """The last line it has written since it was started."""
        with self.log.open("rb") as log:
            log.seek(self.begun_at)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].removeprefix("kfusion: ") if lines else "no message"


@dataclass
class Crew:
    """The chief, if there is one here, and the workers.

    Args:
        folder: of the search.
        workers: names; each worker is one process.
        chief: where the chief listens; None: a single worker asks no one.
        runs_chief: it is one of these processes.
        waits_for_chief: other machines may have workers: the search is over when the chief says so.
    """

    folder: Path
    workers: list[str]
    chief: tuple[str, int] | None = None
    runs_chief: bool = False
    waits_for_chief: bool = False
    members: list[Member] = field(default_factory=list)
    num_ended: int = 0

    @property
    def helps(self) -> bool:
        """Another machine has the chief, and reports."""
        return self.chief is not None and not self.runs_chief

    def start(self) -> None:
        (self.folder / LOGS).mkdir(exist_ok=True)
        shares = core_shares(len(self.workers))
        if self.runs_chief:
            self.members.append(self._member(CHIEF, {}))
        for name, cores in zip(self.workers, shares, strict=True):
            self.members.append(self._member(name, {CORES: cores} if len(self.workers) > 1 else {}))
        for member in self.members:
            member.start(self.folder)

    def tend(self, num_ended: int) -> bool:
        """Starts again what has died; to be called every second or so.

        Args:
            num_ended: trials that have ended so far: while that number grows, deaths are forgiven.

        Returns:
            Whether the search is over.

        Raises:
            CrewError: a process refused its input, or dies each time.
        """
        if num_ended > self.num_ended:
            self.num_ended = num_ended
            for member in self.members:
                member.deaths = 0
        # A chief ends when nothing runs and nothing is left; a worker that asks later would wait for ever.
        if any(member.name == CHIEF and member.status() == 0 for member in self.members):
            return True
        for member in self.members:
            if member.status() not in (None, 0):
                self._revive(member)
        return not self.waits_for_chief and all(member.status() == 0 for member in self._workers())

    def stop(self) -> None:
        for member in reversed(self.members):
            member.stop()

    def _workers(self) -> list[Member]:
        return [member for member in self.members if member.name != CHIEF]

    def _member(self, name: str, share: dict[str, str]) -> Member:
        asks = {"KERASTUNER_TUNER_ID": name}
        if self.chief:
            asks |= {"KERASTUNER_ORACLE_IP": self.chief[0], "KERASTUNER_ORACLE_PORT": str(self.chief[1])}
            asks["no_grpc_proxy"] = self.chief[0]  # gRPC would ask a web proxy even for this machine.
        return Member(name, self.folder / LOGS / f"{name}.log", asks | share)

    def _revive(self, member: Member) -> None:
        """A worker that asks under its old name is given its old trial, which goes on from its last epoch."""
        status, words = member.status(), member.last_words()
        if status == RETIRED:
            member.stop()
            member.start(self.folder)
            return
        if status == BAD_INPUT:
            raise CrewError(words, BAD_INPUT)
        member.deaths += 1
        if member.deaths > MAX_DEATHS:
            raise CrewError(f"{member.name} died {member.deaths} times in a row; {member.log} ends with: {words}", 1)
        # Its memory of who runs what is gone with a chief: all begin anew from the files.
        for other in self.members if member.name == CHIEF else [member]:
            other.stop()
            other.start(self.folder)


def core_shares(num_workers: int) -> list[str]:
    """The cores of this machine, dealt to the workers; a core is used twice only where there are too few."""
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
            found = f"Found: {error.strerror}"
            raise UserError(f"{where[0]}:{where[1]}: the chief must be able to listen there. {found}") from error


POLL_SECONDS = 0.5
HOPELESS = 3
"""Trials that may fail before any is completed; then the search stops."""
LOST_SECONDS = 30.0
"""How long a helper works on without a chief that answers."""


@dataclass
class Watch:
    """What is known of a running search.

    Args:
        crew, plan: of the search.
        deadline_seconds: 0: none.
        console: where the trials are shown.
    """

    crew: Crew
    plan: Plan
    deadline_seconds: float
    console: Console
    earlier_seconds: float = 0.0
    """Of sessions before this one that left a report."""
    ended_before: int = 0
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    busy: float = field(default_factory=time.monotonic)
    told: set[int] = field(default_factory=set)
    complete: bool = False

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def trials(self) -> list[Trial]:
        names = tuple(domain.name for domain in self.plan.domains)
        return read_trials(self.crew.folder, names, self.plan.config.training.epochs)

    def run(self) -> None:
        """Until the search is over, or its time.

        Raises:
            CrewError: it cannot go on.
        """
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            # What had ended before is not told again.
            self.told = {trial.number for trial in self.trials() if trial.status != "running"}
            self.ended_before = len(self.told)
            while not self.step(live):
                time.sleep(POLL_SECONDS)

    def step(self, live: Live) -> bool:
        """One look at everything; whether it was the last."""
        self.complete = self.crew.tend(len(self.told))  # Before the look: it then sees all that was written.
        trials = self.trials()
        ended = [trial for trial in trials if trial.status != "running"]
        new = [trial for trial in ended if trial.number not in self.told]
        self.told |= {trial.number for trial in new}
        if self.console.is_terminal:
            live.update(board(trials, self.plan, self.elapsed, len(self.crew.workers)), refresh=True)
        else:
            for trial in new:
                self.console.print(line(trial, self.plan), soft_wrap=True)
        failed = [trial for trial in ended if trial.status == "failed"]
        if len(ended) - self.ended_before >= HOPELESS and len(failed) == len(ended):
            raise CrewError(f"the first {len(ended)} trials failed, the first with: {failed[0].reason}", 1)
        if self.crew.helps and self.crew.chief:
            self._listen(self.crew.chief)
        self.complete = self.complete or self._nothing_left(trials)
        late = 0 < self.deadline_seconds < self.elapsed
        if late and not self.complete:
            self.console.print("the deadline is reached; --resume goes on", soft_wrap=True)
        return self.complete or late

    def _nothing_left(self, trials: list[Trial]) -> bool:
        """A chief waits for ever for a helper that went away without a word between two trials."""
        total = self.plan.num_trials
        if not self.crew.waits_for_chief or total is None or sum(t.status != "running" for t in trials) < total:
            self.busy = time.monotonic()
        return time.monotonic() - self.busy > LOST_SECONDS

    def _listen(self, chief: tuple[str, int]) -> None:
        if self.complete or reachable(chief, 0.0):
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > LOST_SECONDS:
            raise CrewError(f"{chief[0]}:{chief[1]}: the chief has not answered for {LOST_SECONDS:g} s", 2)


def supervise(crew: Crew, plan: Plan, *, is_new: bool, deadline_seconds: float, console: Console) -> None:
    """Runs a search to its end and reports it.

    Args:
        crew: its processes on this machine, not yet started.
        plan: what to search.
        is_new: the folder was made for it just now, and goes again if the input is refused.
        deadline_seconds: 0: none.
        console: where the trials are shown.

    Raises:
        CrewError: no trial was completed, or the processes cannot go on; what there is has been reported.
    """
    watch = Watch(crew, plan, deadline_seconds, console, 0.0 if is_new else _seconds_before(crew))
    if not crew.helps:
        _forget_attempts(crew)
    try:
        crew.start()
        watch.run()
    except CrewError as error:
        if is_new and not crew.helps and error.status == BAD_INPUT and not watch.trials():
            crew.stop()
            _remove(crew)
        raise
    finally:
        crew.stop()
        if not crew.helps and (crew.folder / "search.json").exists():
            _report(watch)
    trials = watch.trials()
    if not crew.helps and not completed(trials):
        failed = [trial for trial in trials if trial.status == "failed"]
        reason = f"; the first failed with: {failed[0].reason}" if failed else ""
        raise CrewError(f"no trial was completed{reason}", 1)


def _report(watch: Watch) -> None:
    trials, console = watch.trials(), watch.console
    if console.is_terminal:
        console.print(board(trials, watch.plan, watch.elapsed, len(watch.crew.workers), rows=len(trials)))
    seconds = watch.earlier_seconds + watch.elapsed
    report = write_report(watch.crew.folder, watch.plan, trials, seconds=seconds, complete=watch.complete)
    show(report, console)


def _forget_attempts(crew: Crew) -> None:
    """Attempts that an earlier session was stopped in are not held against a trial."""
    for path in (crew.folder / TRIALS).glob("trial_*/attempts.json"):
        if read_json(path.parent / "trial.json")["status"] == "RUNNING":
            write_json(path, read_json(path) | {"attempts": 0})


def _seconds_before(crew: Crew) -> float:
    """What the last report says that all sessions until then took."""
    path = crew.folder / "trials.json"
    return float(read_json(path)["seconds"]) if path.exists() else 0.0


def _remove(crew: Crew) -> None:
    """Takes away the folder of a search that never began, or what is ours of it."""
    for name in (TRIALS, LOGS):
        shutil.rmtree(crew.folder / name, ignore_errors=True)
    for name in ("search.json", LOCK):
        (crew.folder / name).unlink(missing_ok=True)
    if not any(crew.folder.iterdir()):
        crew.folder.rmdir()
