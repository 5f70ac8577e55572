"""Search settings with keras-tuner: a plan in, a table of trials and the best config out.

Run: python -m tuning.search [--tuner random|bayesian|hyperband|grid] [--trials N] [--tune NAME[=VALUES] ...]
     [--repeats N] [--workers N] [--recipe paper|robust] [--out tuning_runs/NAME] [--any-setting VALUE]

On several machines, keras-tuner's environment variables say which part this process plays: with KERASTUNER_TUNER_ID
`chief` it hands out the trials at KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, with another name it works for it.
"""

import os
import shutil
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live

from kfusion import run_dir
from kfusion.cli import Starting, console, fail, parse, run_main, starting_settings
from kfusion.config import Config
from kfusion.io import read_json, write_json
from kfusion.run_dir import LOCK
from kfusion.validation import UserError, require
from tuning.process_pool import (
    BAD_INPUT,
    CHIEF,
    LOGS,
    LOOPBACK,
    PATIENCE_SECONDS,
    PoolError,
    ProcessPool,
    address,
    check_port,
    free_port,
    reachable,
)
from tuning.report import line, live_table, rows_for, show, write_report
from tuning.space import Plan, Settings, check_same, read_plan
from tuning.trials import TRIALS, Trial, completed, read_trials

PROG = "python -m tuning.search"
ROOT = Path("tuning_runs")
MAX_WORKERS = 256
POLL_SECONDS = 0.5
HOPELESS = 3
"""Trials that may fail before any is completed; then the search stops."""
LOST_SECONDS = 30.0
"""How long a helper works on without a chief that answers."""


@dataclass(frozen=True)
class Command(Starting):
    """Search settings of a training run; every trial is a real run, judged on its validation part."""

    out: Path | None = None
    """The search's folder; default: tuning_runs/RECIPE-NUMBER."""
    resume: bool = False
    """Go on where the same command was broken off; more --trials may be asked for."""
    workers: int = 0
    """Processes that train side by side, each on its share of the processor; 0: one, or none beside a lone chief."""
    deadline: float = 0.0
    """Stop after this many minutes and report what there is; 0: never."""
    search: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def read_command(args: list[str] | None = None) -> Command:
    """The command line; `--recipe` or `--config` first decides what the other flags change."""
    name, settings = starting_settings(args)
    command = parse(tyro.conf.OmitArgPrefixes[Command], PROG, args, Command(recipe=name, settings=settings))
    require(0 <= command.workers <= MAX_WORKERS, "workers", f"in [0, {MAX_WORKERS}]", command.workers)
    require(command.deadline >= 0, "deadline", "≥ 0 minutes", command.deadline)
    return command


def plan_of(command: Command) -> Plan:
    """What is to be searched. All trials share one split: the seeds of their repeats decide all else."""
    config = command.settings
    return Plan(command.search, replace(config, data=replace(config.data, split_seed=config.split_seed)))


def folder_of(command: Command) -> Path:
    """The folder that the command means."""
    if command.out is not None:
        return command.out
    begun = [path.parent for path in ROOT.glob(f"{command.name}-*/search.json")]
    if command.resume and begun:
        return max(begun, key=lambda path: path.stat().st_mtime)
    return run_dir.default_folder(command.name, ROOT)


def pool_of(command: Command, folder: Path) -> ProcessPool:
    """The processes of this machine.

    Args:
        command: how many workers it wants.
        folder: of the search.

    Raises:
        UserError: the chief's port is in use, or no chief listens there.
    """
    where, count = address(), command.workers
    if where is None:
        names = [f"worker-{number}" for number in range(max(1, count))]
        return ProcessPool(folder, names, (LOOPBACK, free_port()) if count > 1 else None, runs_chief=count > 1)
    name = os.environ["KERASTUNER_TUNER_ID"]
    if CHIEF in name:
        check_port(where)
        names = [f"{name}-worker-{number}".replace(CHIEF, "main") for number in range(count)]
        return ProcessPool(folder, names, where, runs_chief=True, waits_for_chief=True)
    if not reachable(where, PATIENCE_SECONDS):
        raise UserError(f"{where[0]}:{where[1]}: a chief must listen there. Found: none in {PATIENCE_SECONDS:g} s")
    return ProcessPool(folder, [f"{name}-{number}" for number in range(count)] if count > 1 else [name], where)


def check_folder(folder: Path, plan: Plan, may_exist: bool) -> bool:
    """The search's folder must be free, or hold this very search; nothing is written.

    Args:
        folder: of the search.
        plan: of the search.
        may_exist: it may hold this search already.

    Returns:
        Whether it is free.

    Raises:
        UserError: it holds another search, or something else.
    """
    if (folder / "search.json").exists():
        if not may_exist:
            raise UserError(f"{folder}: an existing search is kept; choose another --out, or --resume it")
        check_same(read_plan(folder), plan, folder)
        return False
    foreign = [path.name for path in folder.iterdir() if path.name != run_dir.LOCK] if folder.is_dir() else []
    if foreign:
        raise UserError(f"{folder}: a search needs a folder of its own. Found: {', '.join(sorted(foreign)[:3])}")
    return True


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


def main() -> None:
    """Searches, or goes on with a search."""
    command = read_command()
    plan, folder = plan_of(command), folder_of(command)
    pool = pool_of(command, folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends as Ctrl-C does: with a report.
    if pool.helps and not (folder / "search.json").exists():
        raise UserError(f"{folder}: must be the chief's folder, on a disk that all share. Found: no search.json")
    is_new = check_folder(folder, plan, may_exist=command.resume or pool.helps)
    lock = None if pool.helps else run_dir.lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not pool.helps:
            plan.write(folder)  # An old search may be wanted to go on for more trials.
        supervise(pool, plan, is_new=is_new, deadline_seconds=60 * command.deadline, console=console)
    except PoolError as error:
        fail(str(error), error.status)
    except KeyboardInterrupt:
        fail(f"stopped; run the same command with --resume --out {folder} to go on", 130)
    finally:
        if lock:
            lock.close()


if __name__ == "__main__":
    run_main(main)
