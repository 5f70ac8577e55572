"""The section on the answers: accuracies with intervals, tests, the report by class, confusion."""

from collections.abc import Iterator
from typing import Any

from kfusion.analysis.metrics import class_rows
from kfusion.analysis.tables import TITLES
from kfusion.reporting.blocks import Block, Heat, Interval, Intervals, Table, Text
from kfusion.reporting.findings import Findings
from kfusion.reporting.making import drawn, missing
from kfusion.reporting.words import (
    between,
    count,
    digits_for,
    p_value,
    percent,
    points,
    points_between,
    score,
)
from kfusion.spec import FUSED

MAX_HEAT_CLASSES = 20
"""Classes of a confusion matrix that is a table; a larger one is a picture."""


def accuracies(found: Findings) -> list[Interval]:
    """Each way to ask the model, with its interval where the evaluation knows one."""
    views = (found.evaluation or found.metrics)["views"]
    digits = digits_for(found.num_rows)
    rows = []
    for view, title in TITLES.items():
        facts = views[view]
        bounds = facts.get("interval")
        cells = [percent(facts["accuracy"], digits), between(bounds, digits), count(facts["num_errors"])]
        rows.append(Interval(title, facts["accuracy"], bounds and tuple(bounds), cells))
    return rows


def axis_low(rows: list[Interval]) -> float:
    """Where a scale begins that holds all of these, on a tenth or, near the top, on a twentieth."""
    lowest = min(row.bounds[0] if row.bounds else row.value for row in rows)
    step = 20 if lowest >= 0.9 else 10
    return max(0.0, int(lowest * step - 1e-9) / step)


def results(found: Findings) -> Iterator[Block]:
    """Accuracies with intervals, tests, the report by class, and what is taken for what."""
    rows = accuracies(found)
    head = ["asked by", "accuracy", "95 % interval", "errors"]
    data = (found.evaluation or {}).get("data", {})
    part = data.get("part", "test part")
    caption = f"One model, asked in each way: {part} of {count(found.num_rows)} pairs"
    yield Intervals(caption, head, rows, axis_low(rows))
    facts = found.evaluation
    if facts is None:
        yield missing(found, "evaluate", "intervals and tests")
    else:
        yield Text(facts["interval_method"] + ".")
        yield _tests(facts["tests"], digits_for(found.num_rows))
    if found.elsewhere:
        yield _elsewhere(found.elsewhere)
    report = (facts or found.metrics)["report"]
    yield _report(report)
    yield from _confusions(found, facts)


def _elsewhere(evaluations: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, facts in evaluations.items():
        data, digits = facts["data"], digits_for(facts["data"]["num_rows"])
        views = [facts["views"][view] for view in TITLES]
        cells = [f"{percent(each['accuracy'], digits)} ({between(each['interval'], digits)})" for each in views]
        rows.append([f"{name}, {data['part']}", count(data["num_rows"]), *cells])
    return Table("On other data, with 95 % intervals", ["data", "pairs", *TITLES.values()], rows)


def _confusions(found: Findings, facts: dict[str, Any] | None) -> Iterator[Block]:
    matrices = facts["confusion"] if facts else {FUSED: found.metrics["confusion"]}
    names = list(found.run.spec().class_names)
    for view, matrix in matrices.items():
        title = f"Confusion, {TITLES[view]}"
        if len(names) <= MAX_HEAT_CLASSES:
            folded = view != FUSED
            yield confusion(matrix, names, f"{title}: true class by row, answer by column", folded)
        elif facts:
            alt = f"Confusion matrix of the {TITLES[view]} answers over {len(names)} classes."
            yield from drawn(found, "evaluate", f"confusion_{view}", alt, f"{title}.", photo=True)


def _tests(tests: list[dict[str, Any]], digits: int) -> Table:
    rows = [
        [
            f"{TITLES[test['first']]} against {TITLES[test['second']]}",
            points(test["difference"], digits),
            points_between(test["interval"], digits),
            count(test["first_only"]),
            count(test["second_only"]),
            p_value(test["p"]),
        ]
        for test in tests
    ]
    head = [
        "paired on the same rows",
        "difference, points",
        "95 % interval",
        "only 1st right",
        "only 2nd right",
        "McNemar p",
    ]
    return Table("Who is right where the other is wrong", head, rows)


def _report(report: dict[str, Any]) -> Table:
    def line(name: str) -> list[str]:
        row = report[name]
        return [name, *(score(row[key], 4) for key in ("precision", "recall", "f1-score")), count(row["support"])]

    rows = [line(name) for name in [*class_rows(report), "macro avg", "weighted avg"]]
    return Table(
        "Classification report, both modalities", ["class", "precision", "recall", "F1", "rows"], rows, folded=True
    )


def confusion(matrix: list[list[int]], names: list[str], caption: str, folded: bool = False) -> Heat:
    """A confusion matrix; the colour is the share of the true class, errors in another one."""
    rows = []
    for at, (name, counts) in enumerate(zip(names, matrix, strict=True)):
        total = max(sum(counts), 1)
        # The square root: one error among many rows would not be seen on a straight scale.
        cells = [(str(each), (each / total) ** 0.5, "a" if at == to else "b") for to, each in enumerate(counts)]
        rows.append((name, cells))
    return Heat(caption, "true", names, rows, folded=folded)
