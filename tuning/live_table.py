"""What a person sees while a search runs: a table of its trials, and a line on how far the search is."""

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tuning.space import Plan
from tuning.trials import (
    Trial,
    best_of,
    clock,
    completed,
    counted,
    duration,
    epoch_text,
    one_line,
    score_text,
    setting_text,
    short,
    value_text,
)

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
