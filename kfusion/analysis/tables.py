"""Plain dicts to tables for the terminal; each fits into 80 columns, however long the class names are."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kfusion.analysis.metrics import AVERAGES, LATE_FUSION, class_rows
from kfusion.spec import FUSED

TITLES = {
    FUSED: "fused",
    "image": "image only",
    "audio": "audio only",
    LATE_FUSION: "calibrated late fusion",
}
SCORES = ("precision", "recall", "f1-score")


def results_table(views: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per way to ask the model, and the late fusion it has to beat.

    Args:
        views: `{view: {"accuracy", "num_errors", "num_rows"}}`, as in `metrics.view_summary(...)["views"]`. A view that
            is missing has no row.
    """
    table = new_table("view", ("accuracy", "errors", "rows"))
    for view, title in TITLES.items():
        if view in views:
            numbers = views[view]
            counts = (str(numbers["num_errors"]), str(numbers["num_rows"]))
            table.add_row(title, f"{numbers['accuracy']:.4f}", *counts, style="bold" if view == FUSED else None)
    return table


def report_table(report: Mapping[str, Any]) -> Table:
    """The test report in the paper's form: the overall accuracy, a row per class, then the averages.

    Args:
        report: what `metrics.report` returned.
    """
    table = new_table("class", (*SCORES, "support"))
    num_rows = str(int(report[AVERAGES[1]]["support"]))
    accuracy = f"{report['accuracy']:.4f}"
    table.title = f"overall accuracy {accuracy}"

    def add(name: str) -> None:
        row = report[name]
        # A Text, not a string: a class may well be called "[red]", which rich would read as markup.
        table.add_row(Text(name), *(f"{row[score]:.4f}" for score in SCORES), str(int(row["support"])))

    for name in class_rows(report):
        add(name)
    table.add_section()
    table.add_row("accuracy", "", "", accuracy, num_rows)
    for name in AVERAGES:
        add(name)
    return table


def new_table(name: str, numbers: tuple[str, ...]) -> Table:
    """An empty table: a column of names, then columns of numbers.

    Args:
        name: the head of the first column.
        numbers: the heads of the others.
    """
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column(name, max_width=32, overflow="fold")
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table
