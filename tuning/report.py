"""The end of a search: its trials as tables and figures, its best setting as a config, all in the search's folder.

trials.csv     one row per trial
trials.json    everything: the plan, each trial with its repeats, the spread of the repeats
best.json      the whole config of the best trial, for `python -m kfusion.train --config`
figures/       as PNG and SVG
report.txt     what `show` prints
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from kfusion.system.files import write_atomically, write_json, write_text
from tuning import figures
from tuning.plan import Plan
from tuning.space import apply
from tuning.statistics import Spread, best_of, completed, sample_deviation, spread
from tuning.summary import BEST, FIGURES, summary
from tuning.trials import Trial

__all__ = ["Report", "best_of", "show", "summary", "write_report"]

DRAWN = {
    "score_by_parameter": figures.score_by_parameter,
    "parallel_coordinates": figures.parallel_coordinates,
    "paper_claim": figures.paper_claim,
    "progress": figures.progress,
}


@dataclass(frozen=True)
class Report:
    """What is told of a search."""

    folder: Path
    plan: Plan
    trials: tuple[Trial, ...]
    """By number."""
    seconds: float
    """From the beginning of the search to its end, on the wall clock."""
    complete: bool
    """Every trial of the plan has ended."""
    best: Trial | None
    spread: Spread | None
    """None without repeats."""


def write_report(folder: Path, plan: Plan, trials: Sequence[Trial], *, seconds: float, complete: bool) -> Report:
    """Writes all of the report's files, each whole or not at all; older ones are replaced.

    Args:
        folder: the search's; it must be there.
        plan: the search.
        trials: all that were begun.
        seconds: since the search was begun.
        complete: every trial of the plan has ended.
    """
    ordered = tuple(sorted(trials, key=lambda trial: trial.number))
    report = Report(folder, plan, ordered, seconds, complete, best_of(ordered, plan), spread(ordered))
    write_atomically(folder / "trials.csv", partial(trials_table(ordered, plan).to_csv, index=False))
    write_json(folder / "trials.json", as_json(report))
    if report.best is None:
        # That of an earlier report is no longer the best of anything.
        (folder / BEST).unlink(missing_ok=True)
    else:
        write_json(folder / BEST, apply(report.best.values, plan.config).to_json())
    text = io.StringIO()
    show(report, Console(file=text, width=80, highlight=False, markup=False, emoji=False, color_system=None))
    write_text(folder / "report.txt", "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))
    _draw(report)
    return report


def show(report: Report, console: Console) -> None:
    """Prints the summary; paths and commands are not broken into lines."""
    for part in summary(report):
        console.print(part, soft_wrap=True)


def trials_table(trials: Sequence[Trial], plan: Plan) -> pd.DataFrame:
    """One row per trial; what is not known of a trial is left empty."""
    names = [domain.name for domain in plan.domains]
    rows = []
    for trial in trials:
        scores = [repeat.score for repeat in trial.repeats]
        row: dict[str, Any] = {"number": trial.number, "status": trial.status}
        row |= {name: trial.values.get(name) for name in names}
        row |= {"score": trial.score, "score_sd": sample_deviation(scores), "best_epoch": trial.best_epoch}
        # Where the epochs are tuned, this is the same column, and the same number.
        row |= {"epochs": trial.epochs, "seconds": trial.seconds}
        row |= {"weights": trial.repeats[0].weights if trial.repeats else None, "attempts": trial.attempts}
        row |= {"worker": trial.worker, "reason": trial.reason}
        rows.append(row)
    columns = ["number", "status", *names, "score", "score_sd", "best_epoch", "epochs", "seconds", "weights"]
    columns += ["attempts", "worker", "reason"]
    # As objects: pandas would turn whole numbers beside empty cells into floats.
    return pd.DataFrame(rows, columns=list(dict.fromkeys(columns)), dtype=object)


def as_json(report: Report) -> dict[str, Any]:
    """All of the report, ready for JSON."""
    trials, ended = report.trials, [trial for trial in report.trials if trial.status != "running"]
    return {
        "complete": report.complete,
        "seconds": report.seconds,
        "completed": len(completed(trials)),
        "failed": sum(trial.status == "failed" for trial in trials),
        "unfinished": len(trials) - len(ended),
        "best": None if report.best is None else report.best.number,
        "spread": None if report.spread is None else asdict(report.spread),
        "settings": asdict(report.plan.settings),
        "config": report.plan.config.to_json(),
        "trials": [asdict(trial) | {"seconds": trial.seconds, "best_epoch": trial.best_epoch} for trial in trials],
    }


def _draw(report: Report) -> None:
    """The figures; those that have no meaning here are removed."""
    folder = report.folder / FIGURES
    if report.best is not None:
        folder.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        figure = None if report.best is None else draw(report.trials, report.plan)
        if figure is not None:
            figures.save(figure, folder, name)
        else:
            for kind in ("png", "svg"):
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
