"""A progress bar for a long step, where a person is looking."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(console: Console | None, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Within the block, a bar that the block moves on; it is gone afterwards. A pipe or a file gets nothing.

    Args:
        console: where it is shown; None: nowhere.
        text: what is going on.
        total: steps of the whole.

    Yields:
        a function that is told how many more steps are done.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    hidden = console is None or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(text, total=total)
        yield lambda num: bar.advance(task, num)
