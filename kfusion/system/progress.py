"""A progress bar for a long step, where a person is looking."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def is_live(console: Console | None) -> bool:
    """Whether a bar can move there: in a terminal, or in a notebook whose widgets are installed."""
    if console is None:
        return False
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


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
    with Progress(*columns, console=console, transient=True, disable=not is_live(console)) as bar:
        task = bar.add_task(text, total=total)
        yield lambda num: bar.advance(task, num)
