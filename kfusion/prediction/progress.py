"""How far a job has come: rows, rows per second, time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from kfusion.system.progress import is_live


class RowsPerSecond(ProgressColumn):
    """The recent speed."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")


class Bar:
    """Counts rows, and shows them where a person looks."""

    def __init__(self, bar: Progress, total: int, done: int) -> None:
        self.bar, self.began = bar, time.monotonic()
        self.task = bar.add_task("rows", total=total, completed=done)

    def advance(self, num_rows: int) -> None:
        self.bar.advance(self.task, num_rows)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


@contextmanager
def progress(console: Console | None, num_rows: int, missing: list[tuple[int, int]]) -> Iterator[Bar]:
    """Within the block, a bar; it is gone afterwards. A pipe or a file gets nothing.

    Args:
        console: where it is shown; None: nowhere.
        num_rows: of the whole input.
        missing: from which row up to which is still to be answered.
    """
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        BarColumn(20),
        RowsPerSecond(),
        TimeRemainingColumn(True),
    )
    hidden = not is_live(console)
    # What others write to standard error is not to be drawn above the bar: `quiet` holds it back.
    shown = Progress(
        *columns, console=console, transient=True, disable=hidden, redirect_stdout=False, redirect_stderr=False
    )
    with shown as bar:
        yield Bar(bar, num_rows, num_rows - sum(stop - start for start, stop in missing))
