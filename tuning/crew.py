"""The processes of a search on this machine: started, watched, started again, stopped."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfusion.rules import UserError
from tuning.worker import CHIEF, CORES, RETIRED

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
