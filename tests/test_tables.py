"""The terminal's tables: what they say, and that they fit."""

import pytest
from rich.console import Console

from kfusion.metrics import classification as metrics
from kfusion.plots.tables import folds_table, report_table, results_table, views_table


def shown(table) -> list[str]:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def test_results_table_has_a_row_per_view_with_its_errors():
    views = {
        "late_fusion": {"accuracy": 0.9988, "num_errors": 12, "num_rows": 10000},
        "fused": {"accuracy": 0.9967, "num_errors": 33, "num_rows": 10000},
        "image": {"accuracy": 1.0, "num_errors": 0, "num_rows": 10000},
        "audio": {"accuracy": 0.98767, "num_errors": 123, "num_rows": 10000},
    }
    head, _, *rows = shown(results_table(views))
    assert head.split() == ["view", "accuracy", "errors", "rows"]
    assert [row.split() for row in rows] == [
        ["fused", "0.9967", "33", "10000"],
        ["image", "only", "1.0000", "0", "10000"],
        ["audio", "only", "0.9877", "123", "10000"],
        ["calibrated", "late", "fusion", "0.9988", "12", "10000"],
    ]


def test_tables_of_views_hold_macro_f1_where_it_is_known():
    facts = {"accuracy": 0.75, "num_errors": 1, "num_rows": 4, "interval": [0.5, 1.0]}
    for table in (results_table, views_table):
        assert "macro-F1" not in shown(table({"fused": facts}))[table is views_table]
        head, _, row = shown(table({"fused": {**facts, "macro_f1": 0.7333}}))[table is views_table :]
        assert "macro-F1" in head and "0.7333" in row.split()


def test_the_table_of_folds_has_mean_and_spread():
    spread = {"mean": 0.8, "std": 0.1, "values": [0.7, 0.9, 0.8]}
    views = {"fused": {"accuracy": spread, "macro_f1": {**spread, "mean": 0.6}}}
    caption, *_, row = shown(folds_table(views))
    assert caption.startswith("mean over 3 folds ± standard deviation")
    assert row.split() == ["fused", "0.8000", "±", "0.1000", "0.6000", "±", "0.1000", "0.7000", "0.9000"]


def test_results_table_leaves_out_a_view_that_is_missing():
    rows = shown(results_table({"image": {"accuracy": 0.5, "num_errors": 1, "num_rows": 2}}))
    assert [row.split()[0] for row in rows[2:]] == ["image"]


def test_report_table_has_the_papers_form():
    lines = shown(report_table(metrics.report([0, 0, 0, 1], [0, 0, 1, 1], ("cat", "dog"))))
    assert lines[0].split() == ["overall", "accuracy", "0.7500"]
    assert lines[1].split() == ["class", "precision", "recall", "f1-score", "support"]
    assert [line.split() for line in lines[3:5]] == [
        ["cat", "1.0000", "0.6667", "0.8000", "3"],
        ["dog", "0.5000", "1.0000", "0.6667", "1"],
    ]
    assert [line.split() for line in lines[-3:]] == [
        ["accuracy", "0.7500", "4"],
        ["macro", "avg", "0.7500", "0.8333", "0.7333", "4"],
        ["weighted", "avg", "0.8750", "0.7500", "0.7667", "4"],
    ]


@pytest.mark.parametrize("name", ["[red]alarm[/red]", "x" * 200, "a name of several words " * 9, "猫" * 90])
def test_report_table_fits_80_columns_and_shows_any_class_name_whole(name):
    num_rows = 10_000_000
    report = metrics.report([0] * 3 + [1], [0, 0, 1, 1], (name, "dog"))
    report["dog"]["support"] = report["macro avg"]["support"] = report["weighted avg"]["support"] = num_rows
    console = Console(width=80)
    lines = shown(report_table(report))
    assert max(console.measure(line).maximum for line in lines) <= 80
    first_column = "".join(line[:33].strip().split("  ")[0] for line in lines[3:])
    assert name.replace(" ", "")[:20] in first_column.replace(" ", "")
    assert str(num_rows) in lines[-1]
