"""Watches a search: shows its trials, keeps its processes alive, ends it, and always leaves a report."""

import shutil
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live

from kfusion.run import LOCK
from kfusion.system.files import read_json, write_json
from tuning.board import board, line
from tuning.crew import BAD_INPUT, LOGS, Crew, CrewError
from tuning.plan import Plan
from tuning.report import show, write_report
from tuning.statistics import completed
from tuning.trials import TRIALS, Trial, read_trials
from tuning.worker import reachable

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
