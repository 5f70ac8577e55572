"""What a person sees while a search runs: a table of its trials, and a line on how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from tuning.plan import Plan
from tuning.statistics import best_of, completed
from tuning.trials import Trial
from tuning.wording import clock, counted, duration, epoch_text, one_line, score_text, setting_text, short, value_text

AROUND = 5
"""Lines of the board that are not trials: the heading, its rule, two lines below, and the cursor's."""
MIN_ROWS = 3
MIN_STATUS = 14
"""Columns of the terminal that the reason of a failed trial gets at least."""
GAP = 2
BEST = "*"


@dataclass(frozen=True)
class Board:
    """The state of a search, to be printed by rich; it lays itself out for the terminal when it is printed."""

    trials: Sequence[Trial]
    plan: Plan
    elapsed_seconds: float
    num_workers: int
    rows: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self.rows or max(MIN_ROWS, console.size.height - AROUND)
        shown = chosen(self.trials, self.plan, rows)
        table, missing = _table(shown, self.plan, best_of(self.trials, self.plan), options.max_width)
        yield table
        hidden = len(self.trials) - len(shown)
        notes = [f"{counted(hidden, 'trial')} not shown"] if hidden else []
        notes += [f"{counted(missing, 'parameter')} not shown, for want of width"] if missing else []
        if notes:
            yield Text("; ".join(notes), style="dim", no_wrap=True, overflow="ellipsis")
        yield self.footer(options.max_width)

    def footer(self, width: int) -> Text:
        """How far the search is, as fully as fits on one line."""
        ended = [trial for trial in self.trials if trial.status != "running"]
        total, best = self.plan.num_trials, best_of(self.trials, self.plan)
        start = f"{len(ended)}{f'/{total}' if total else ''} done"
        start += f", {len(ended) - len(completed(ended))} failed | best "
        left = seconds_left(self.trials, self.plan, self.num_workers)
        times = f"{clock(self.elapsed_seconds)}, left {'-' if left is None else clock(left)}"
        settings = ["-"]
        if best is not None:
            score, shorter = f"{best.score:.4f}", {short(name): value for name, value in best.values.items()}
            settings = [f"{score}: {setting_text(best.values)}", f"{score}: {setting_text(shorter)}"]
            settings += [
                f"{score}: {', '.join(map(value_text, best.values.values()))}",
                f"{score}: trial {best.number}",
            ]
        texts = [f"{start}{each} | {word}{times}" for each in settings for word in ("elapsed ", "")]
        fitting = [text for text in texts if cell_len(text) <= width]
        return Text((fitting or texts[-1:])[0], no_wrap=True, overflow="ellipsis")


def board(
    trials: Sequence[Trial], plan: Plan, elapsed_seconds: float, num_workers: int, rows: int | None = None
) -> Board:
    """What to print while the search runs.

    Args:
        trials: all that were begun, in any order.
        plan: the search.
        elapsed_seconds: since it was begun.
        num_workers: how many trials run at a time.
        rows: show at most this many trials: the best, the running, then the latest; by default as many as the terminal
            has room for.
    """
    return Board(sorted(trials, key=lambda trial: trial.number), plan, elapsed_seconds, num_workers, rows)


def line(trial: Trial, plan: Plan) -> str:
    """What to print of a trial that has ended where the output is not a terminal.

    `trial 7 completed: hidden_dim 256; val_accuracy 0.9925 ± 0.0012 (3 repeats, best epoch 18), 41 s`
    """
    start = f"trial {trial.number} {trial.status}: {setting_text(trial.values)}; "
    if trial.status == "failed":
        return start + one_line(trial.reason)
    repeats = f"{len(trial.repeats)} repeats, " if len(trial.repeats) > 1 else ""
    trained = f" ({repeats}best epoch {epoch_text(trial)})" if trial.repeats else ""
    return f"{start}{plan.settings.objective} {score_text(trial)}{trained}, {duration(trial.seconds)}"


def seconds_left(trials: Sequence[Trial], plan: Plan, num_workers: int) -> float | None:
    """How long the search will take yet, if the trials to come take as long as those that are completed.

    mean time of a completed trial · (trials left - the share that running ones have done) / workers

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


def chosen(trials: Sequence[Trial], plan: Plan, rows: int) -> list[Trial]:
    """The trials to show, by number: the best, the running ones, then the latest, at most `rows`."""
    best = best_of(trials, plan)
    latest = sorted(trials, key=lambda trial: -trial.number)
    latest.sort(key=lambda trial: (trial is not best, trial.status != "running"))
    return sorted(latest[:rows], key=lambda trial: trial.number)


def _table(trials: Sequence[Trial], plan: Plan, best: Trial | None, width: int) -> tuple[Table, int]:
    """The table, and how many parameters it has no room for."""
    names = [domain.name for domain in plan.domains]
    cells = {trial.number: _cells(trial, names, plan, trial is best) for trial in trials}
    heads = [*names, "epoch", "score", "time"]
    for shown in [names, *([short(name) for name in names[:num]] for num in range(len(names), -1, -1))]:
        missing = len(names) - len(shown)
        heads = ["#", *shown, "epoch", "score", "time"]
        rows = {number: [row[0], *row[1 : 1 + len(shown)], *row[-4:]] for number, row in cells.items()}
        widths = [
            max(map(cell_len, column)) for column in zip(heads, *(row[:-1] for row in rows.values()), strict=True)
        ]
        room = width - sum(widths) - GAP * len(widths)
        if room >= max([MIN_STATUS, *(cell_len(cells[t.number][-1]) for t in trials if t.status != "failed")]):
            break
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True, overflow="ellipsis", max_width=max(room, 1))
    for trial in trials:
        style = "bold" if trial is best else "red" if trial.status == "failed" else None
        table.add_row(*map(Text, rows[trial.number]), style=style)
    return table, missing


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
    return [f"{BEST if is_best else ''}{trial.number}", *values, epoch, score_text(trial), time, status]
