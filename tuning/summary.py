"""What is said of a search at its end, in the terminal and in report.txt."""

import shlex
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tuning.statistics import comparable, completed, indistinct
from tuning.wording import clock, counted, duration, epoch_text, one_line, score_text, setting_text, value_text

if TYPE_CHECKING:
    from tuning.report import Report

BEST, FIGURES = "best.json", "figures"
NUM_SHOWN = 5
WIDTH = 80


def summary(report: "Report") -> list[RenderableType]:
    """The best setting, the trials next to it, what is chance, what failed, and where the files are.

    To be printed one after the other, without wrapping: `tuning.report.show` does.
    """
    parts: list[RenderableType] = [Text(line) for line in _state(report)]
    if report.best is not None:
        parts += [Text(), *(Text(line, style="bold") for line in _best(report)), Text(), _table(report), Text()]
        parts += [Text(line) for line in _chance(report)]
    parts += [Text(line) for line in [*_failures(report), *_files(report)]]
    return parts


def _state(report: "Report") -> list[str]:
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


def _best(report: "Report") -> list[str]:
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


def _table(report: "Report") -> Table:
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


def _chance(report: "Report") -> list[str]:
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


def _failures(report: "Report") -> list[str]:
    """Each reason once."""
    reasons = Counter(one_line(trial.reason) for trial in report.trials if trial.status == "failed")
    if not reasons:
        return []
    lines = [f"  {number} × {reason}" for reason, number in reasons.most_common()]
    return ["", f"{counted(reasons.total(), 'trial')} failed:", *lines]


def _files(report: "Report") -> list[str]:
    names = ["report.txt", "trials.csv", "trials.json"]
    if report.best is None:
        return ["", f"files in {report.folder}: {', '.join(names)}"]
    command = f"python -m kfusion.train --config {shlex.quote(str(report.folder / BEST))} --out runs/best"
    files = f"files in {report.folder}: {', '.join([*names, BEST])}, {FIGURES}/"
    hint = "The best was chosen by this score, which flatters it; its test score comes from a run:"
    return ["", files, hint, f"  {command}"]
