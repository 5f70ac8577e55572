"""A search's trials as people see them: a table while it runs, and at its end tables, figures and files in its folder.

trials.csv     one row per trial
trials.json    everything: the plan, each trial with its repeats, the spread of the repeats
best.json      the whole config of the best trial, for `python -m kfusion.train --config`
figures/       as PNG and SVG
report.txt     what `show` prints
"""

import io
import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kfusion.io import write_atomically, write_json, write_text
from tuning import plots
from tuning.space import Plan, apply
from tuning.trials import (
    Spread,
    Trial,
    best_of,
    clock,
    comparable,
    completed,
    counted,
    duration,
    epoch_text,
    indistinct,
    one_line,
    sample_deviation,
    score_text,
    setting_text,
    short,
    spread,
    value_text,
)

BEST, FIGURES = "best.json", "figures"
NUM_SHOWN = 5
"""Of the best trials, in the table."""
WIDTH = 80
DRAWN = {
    "score_by_parameter": plots.score_by_parameter,
    "paper_claim": plots.paper_claim,
    "progress": plots.progress,
}


@dataclass(frozen=True)
class Report:
    """What is known of a search at its end.

    Args:
        folder: of the search.
        plan: what was searched.
        trials: by number.
        seconds: from the beginning of the search to its end, on the wall clock.
        complete: every trial of the plan has ended.
        best: the best trial; None where none is completed.
        spread: how far scores scatter by chance; None without repeats.
    """

    folder: Path
    plan: Plan
    trials: tuple[Trial, ...]
    seconds: float
    complete: bool
    best: Trial | None
    spread: Spread | None


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
    """Prints the summary; paths and commands are not broken into lines.

    Args:
        report: from `write_report`.
        console: where.
    """
    for part in summary(report):
        console.print(part, soft_wrap=True)


def trials_table(trials: Sequence[Trial], plan: Plan) -> pd.DataFrame:
    """One row per trial; what is not known of a trial is left empty.

    Args:
        trials: in the order of the rows.
        plan: the search, whose parameters have a column each.
    """
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
            plots.save(figure, folder, name)
        else:
            for kind in ("png", "svg"):
                (folder / f"{name}.{kind}").unlink(missing_ok=True)


def summary(report: Report) -> list[RenderableType]:
    """The best setting, the trials next to it, what is chance, what failed, and where the files are.

    To be printed one after the other, without wrapping: `tuning.report.show` does.
    """
    parts: list[RenderableType] = [Text(line) for line in _state(report)]
    if report.best is not None:
        parts += [Text(), *(Text(line, style="bold") for line in _best(report)), Text(), _table(report), Text()]
        parts += [Text(line) for line in _chance(report)]
    parts += [Text(line) for line in [*_failures(report), *_files(report)]]
    return parts


def _state(report: Report) -> list[str]:
    """How many trials there were, and whether there are more to come."""
    num_failed = sum(trial.status == "failed" for trial in report.trials)
    num_completed = len(completed(report.trials))
    unfinished = len(report.trials) - num_completed - num_failed
    line = f"{counted(num_completed, 'trial')} completed, {num_failed} failed"
    lines = [f"{line}{f', {unfinished} unfinished' if unfinished else ''}, in {duration(report.seconds)}"]
    if not report.complete:
        total = report.plan.num_trials
        planned = f" of at most {counted(total, 'trial')}" if total else ""
        lines.append(f"The search{planned} is not complete; the same command with --resume goes on.")
    return lines


def _best(report: Report) -> list[str]:
    best, settings = report.best, report.plan.settings
    if best is None:
        return []
    lines = textwrap.wrap(f"best: {setting_text(best.values)}", WIDTH, subsequent_indent=" " * len("best: "))
    repeats = f"± sd of {len(best.repeats)} repeats; " if len(best.repeats) > 1 else ""
    trained = f" ({repeats}best epoch {epoch_text(best)})" if best.repeats else ""
    lines.append(f"{settings.objective} {score_text(best)}{trained}, trial {best.number}")
    if settings.tuner == "hyperband":
        same = counted(len(comparable(report.trials, report.plan)), "trial")
        lines.append(f"The best is that of the {same} of {counted(best.epochs, 'epoch')}, the most there are;")
        lines.append("scores of shorter trainings are not comparable to it.")
    return lines


def _table(report: Report) -> Table:
    """The best trials, one a row; one a column where their parameters are too many for the rows."""
    names = [domain.name for domain in report.plan.domains]
    rows = [["trial", *names, "score", "epoch", "time"]]
    for trial in comparable(report.trials, report.plan)[:NUM_SHOWN]:
        values = [value_text(trial.values[name]) if name in trial.values else "-" for name in names]
        rows.append([str(trial.number), *values, score_text(trial), epoch_text(trial), clock(trial.seconds)])
    if sum(max(map(cell_len, column)) + 2 for column in zip(*rows, strict=True)) > WIDTH:
        # The scatter stands in a line of its own: five columns of both would be too wide.
        scores = [row.pop(-3) for row in rows]
        parts = [[*score.split(" ± "), ""][:2] for score in scores]
        rows = [[row[0], part[0], part[1] and f"± {part[1]}", *row[1:]] for row, part in zip(rows, parts, strict=True)]
        rows = [list(column) for column in zip(*rows, strict=True) if any(column)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for at, head in enumerate(rows[0]):
        table.add_column(Text(head), justify="left" if at == 0 and rows[0][1] != names[0] else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def _chance(report: Report) -> list[str]:
    """How far apart scores must be to mean something."""
    chance, settings = report.spread, report.plan.settings
    if chance is None and settings.tuner == "hyperband":
        return ["Hyperband trains each setting once: how much of a difference is chance is not known."]
    if chance is None:
        return ["Each setting was trained once: `--repeats 3` would tell how large chance is."]
    freedom = counted(chance.degrees_of_freedom, "degree")
    others = counted(len(comparable(report.trials, report.plan)) - 1, "other setting")
    alike = len(indistinct(report.trials, report.plan))
    return [
        f"Repeats of a setting scatter by {chance.sd:.4f} (standard deviation, {freedom} of freedom).",
        f"Two settings differ, at 95 %, where their scores are more than {chance.least_difference:.4f} apart.",
        f"By that measure, {alike} of the {others} cannot be told from the best.",
        "Among many settings, some differ by more than that through chance alone.",
    ]


def _failures(report: Report) -> list[str]:
    """Each reason once."""
    reasons = Counter(one_line(trial.reason) for trial in report.trials if trial.status == "failed")
    if not reasons:
        return []
    lines = [f"  {number} × {reason}" for reason, number in reasons.most_common()]
    return ["", f"{counted(reasons.total(), 'trial')} failed:", *lines]


def _files(report: Report) -> list[str]:
    names = ["report.txt", "trials.csv", "trials.json"]
    if report.best is None:
        return ["", f"files in {report.folder}: {', '.join(names)}"]
    command = f"python -m kfusion.train --config {shlex.quote(str(report.folder / BEST))} --out runs/best"
    files = f"files in {report.folder}: {', '.join([*names, BEST])}, {FIGURES}/"
    hint = "The best was chosen by this score, which flatters it; its test score comes from a run:"
    return ["", files, hint, f"  {command}"]


OTHER_LINES = 5
"""Lines of the terminal that are not trials: the heading, its rule, two lines below, and the cursor's."""
MIN_ROWS = 3
BEST_MARK = "*"


def live_table(
    trials: Sequence[Trial], plan: Plan, elapsed_seconds: float, num_workers: int, rows: int | None = None
) -> Group:
    """What to print while the search runs.

    Args:
        trials: all that were begun, in any order.
        plan: the search.
        elapsed_seconds: since it was begun.
        num_workers: how many trials run at a time.
        rows: show at most this many trials: the best, the running, then the latest; None: all.
    """
    best = best_of(trials, plan)
    shown = chosen(trials, plan, len(trials) if rows is None else rows)
    names = [domain.name for domain in plan.domains]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("#", *map(short, names), "epoch", "score", "time"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    table.add_column("status")  # The only one that is not `no_wrap`: where the terminal is narrow, rich takes from it.
    for trial in shown:
        style = "bold" if trial is best else "red" if trial.status == "failed" else None
        cells = [Text(cell, no_wrap=True, overflow="ellipsis") for cell in _cells(trial, names, plan, trial is best)]
        table.add_row(*cells, style=style)
    lines = [_progress(trials, plan, best, elapsed_seconds, num_workers)]
    if len(shown) < len(trials):
        lines.insert(0, f"{counted(len(trials) - len(shown), 'trial')} not shown")
    return Group(table, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))


def rows_for(height: int) -> int:
    """How many trials fit into a terminal of so many lines."""
    return max(MIN_ROWS, height - OTHER_LINES)


def _progress(trials: Sequence[Trial], plan: Plan, best: Trial | None, elapsed_seconds: float, num_workers: int) -> str:
    """How far the search is; the best trial's row is marked in the table."""
    num_ended, total = sum(trial.status != "running" for trial in trials), plan.num_trials
    left = seconds_left(trials, plan, num_workers)
    done = f"{num_ended}{f'/{total}' if total else ''} done, {num_ended - len(completed(trials))} failed"
    times = f"elapsed {clock(elapsed_seconds)}, left {'-' if left is None else clock(left)}"
    return f"{done} | best {'-' if best is None else f'{best.score:.4f}'} | {times}"


def _cells(trial: Trial, names: Sequence[str], plan: Plan, is_best: bool) -> list[str]:
    """A trial's row: number, parameters, epoch, score, time, status."""
    values = [value_text(trial.values[name]) if name in trial.values else "-" for name in names]
    epoch = f"{trial.epoch}/{trial.epochs}" if trial.status == "running" else epoch_text(trial)
    status = str(trial.status)
    if trial.status == "running" and plan.settings.repeats > 1:
        status = f"running, repeat {min(len(trial.repeats) + 1, plan.settings.repeats)}/{plan.settings.repeats}"
    elif trial.status == "failed":
        status = f"failed: {one_line(trial.reason)}"
    time = clock(trial.seconds) if trial.repeats else "-"
    return [f"{BEST_MARK if is_best else ''}{trial.number}", *values, epoch, score_text(trial), time, status]


def chosen(trials: Sequence[Trial], plan: Plan, rows: int) -> list[Trial]:
    """The trials to show, by number: the best, the running ones, then the latest.

    Args:
        trials: all that were begun.
        plan: the search.
        rows: at most so many.
    """
    best = best_of(trials, plan)
    latest = sorted(trials, key=lambda trial: (trial is not best, trial.status != "running", -trial.number))
    return sorted(latest[:rows], key=lambda trial: trial.number)


def seconds_left(trials: Sequence[Trial], plan: Plan, num_workers: int) -> float | None:
    """How long the search will still take, if the trials to come take as long as those that are completed.

    mean time of a completed trial · (trials left - the share that running ones have done) / workers

    Args:
        trials: all that were begun.
        plan: the search.
        num_workers: how many trials run at a time.

    Returns:
        None before the first trial is completed, or where the number of trials is not known beforehand.
    """
    done, total = completed(trials), plan.num_trials
    if not done or total is None:
        return None
    left = max(0, total - sum(trial.status != "running" for trial in trials))
    running = [trial for trial in trials if trial.status == "running"]
    shares = [(len(t.repeats) + t.epoch / max(t.epochs, 1)) / plan.settings.repeats for t in running]
    mean = sum(trial.seconds for trial in done) / len(done)
    # More workers than trials do not help.
    at_a_time = max(1, min(num_workers, left))
    return mean * max(0.0, left - sum(min(share, 1.0) for share in shares)) / at_a_time


def line(trial: Trial, plan: Plan) -> str:
    """What to print of a trial that has ended where the output is not a terminal.

    Args:
        trial: it.
        plan: the search.

    Returns:
        `trial 7 completed: hidden_dim 256; val_accuracy 0.9925 ± 0.0012 (3 repeats, best epoch 18), 41 s`
    """
    start = f"trial {trial.number} {trial.status}: {setting_text(trial.values)}; "
    if trial.status == "failed":
        return start + one_line(trial.reason)
    repeats = f"{len(trial.repeats)} repeats, " if len(trial.repeats) > 1 else ""
    trained = f" ({repeats}best epoch {epoch_text(trial)})" if trial.repeats else ""
    return f"{start}{plan.settings.objective} {score_text(trial)}{trained}, {duration(trial.seconds)}"
