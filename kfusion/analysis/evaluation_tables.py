"""evaluation.json and robustness.json to tables for the terminal, within 80 columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kfusion.analysis.tables import TITLES, new_table, report_table

Facts = Mapping[str, Any]
SHOWN_CLASSES = 12
"""Lines of a table that names only what loses most."""


def evaluation_tables(facts: Facts) -> Iterator[Group]:
    """All tables of evaluation.json, in the order in which they are read, each beneath its title."""
    yield _beneath_title(report_table(facts["report"]))
    yield _beneath_title(_views(facts["views"]))
    yield _beneath_title(_tests(facts["tests"]))
    yield _beneath_title(_agreement(facts["decides"]["agreement"]))
    yield _beneath_title(_followed(facts["decides"]))
    yield from map(_beneath_title, _lost(facts["negative_fusion"]))
    yield _beneath_title(_calibration(facts["calibration"]))


def _beneath_title(table: Table) -> Group:
    # A table's own title is wrapped where the table is narrow.
    title, table.title = str(table.title), None
    return Group(Text(title, style="bold"), table)


def _titled(title: str, name: str, numbers: tuple[str, ...]) -> Table:
    table = new_table(name, numbers)
    table.title = title
    return table


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.4f} – {bounds[1]:.4f}"


def _views(views: Facts) -> Table:
    table = _titled("one model, asked in each way", "view", ("accuracy", "95 % interval", "errors", "rows"))
    for view, title in TITLES.items():
        row = views[view]
        numbers = f"{row['accuracy']:.4f}", _interval(row["interval"]), str(row["num_errors"]), str(row["num_rows"])
        table.add_row(title, *numbers, style="bold" if view == "fused" else None)
    return table


def _tests(tests: list[Facts]) -> Table:
    heads = ("only 1st", "only 2nd", "McNemar p", "difference, 95 %")
    table = _titled("who is right where the other is wrong", "1st against 2nd", heads)
    for test in tests:
        name = f"{TITLES[test['first']]} / {TITLES[test['second']].replace('calibrated ', '')}"
        bounds = f"{test['interval'][0]:+.4f} – {test['interval'][1]:+.4f}"
        table.add_row(name, str(test["first_only"]), str(test["second_only"]), p_value(test["p"]), bounds)
    return table


def p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def _agreement(cases: list[Facts]) -> Table:
    table = _titled(
        "agreement with the truth, and the fused answer", "image alone", ("audio alone", "rows", "fused right")
    )
    for case in cases:
        one, other = ("right" if case[name] else "wrong" for name in ("image", "audio"))
        table.add_row(one, other, str(case["num_rows"]), str(case["num_fused_right"]))
    return table


def _followed(decides: Facts) -> Table:
    heads = ("pairs", "image", "sound", "neither")
    table = _titled("who decides: the fused answer follows …", "where image and sound", heads)
    apart = decides["disagreement"]
    shares = {name: count / max(apart["num_rows"], 1) for name, count in apart["followed"].items()}
    rows = [("vote differently, true pairs", apart["num_rows"], shares if apart["num_rows"] else None)]
    for shuffled, name in (("audio", "sounds"), ("image", "images")):
        facts = decides["conflict"][shuffled]
        rows.append((f"conflict: {name} shuffled", facts["num_rows"], facts["won"]))
        rows.append(("  … each alone right", facts["num_clear"], facts["won_clear"]))
    for name, num_rows, won in rows:
        numbers = [f"{won[side]:.1%}" if won else "–" for side in ("image", "audio", "neither")]
        table.add_row(name, str(num_rows), *numbers)
    return table


def _lost(facts: Facts) -> Iterator[Table]:
    title = f"negative fusion: {facts['num_lost']} lost that one alone had ({facts['share']:.2%})"
    for key, name in (("by_class", "class"), ("by_speaker", "speaker")):
        entries = [entry for entry in facts[key] or () if entry["num_lost"]]
        if not entries and key == "by_speaker":
            continue
        table = _titled(title if key == "by_class" else "the same by speaker", name, ("lost", "rows", "share"))
        for entry in sorted(entries, key=lambda entry: -entry["share"])[:SHOWN_CLASSES]:
            numbers = str(entry["num_lost"]), str(entry["num_rows"]), f"{entry['share']:.2%}"
            table.add_row(Text(entry["name"]), *numbers)
        if not entries:
            table.add_row("none", "0", "", "")
        yield table


def _calibration(calibration: Facts) -> Table:
    table = _titled("calibration, before → after the temperature", "view", ("T", "ECE", "Brier", "log loss, nats"))
    for view, title in TITLES.items():
        row = calibration[view]
        numbers = []
        for score, form in (("ece", ".4f"), ("brier", ".4f"), ("nll", ".4f")):
            after = f"{row['after'][score]:{form}}"
            numbers.append(f"{row['before'][score]:{form}} → {after}" if row["before"] else after)
        table.add_row(title.replace("calibrated ", ""), f"{row['temperature']:.2f}" if row["before"] else "", *numbers)
    return table


def robustness_tables(grid: Facts) -> Iterator[Group]:
    """The tables of robustness.json, each beneath its title."""
    clean = grid["clean"]
    for modality, title, other in (("image", "image", "audio"), ("audio", "sound", "image")):
        table = _titled(
            f"fused accuracy with a corrupted {title} (clean {clean['fused']['accuracy']:.3f}, "
            f"the other alone {clean[other]['accuracy']:.3f})",
            "severity",
            (*map(str, grid["severities"]), "mean"),
        )
        for name, facts in grid["corruptions"][modality].items():
            scores = grid["alone"][modality][name]["fused"]["accuracy"]
            table.add_row(facts["title"], *(f"{score:.3f}" for score in scores), f"{sum(scores) / len(scores):.3f}")
        yield _beneath_title(table)
    area = grid["area"]
    table = _titled("area under the grid, mean over corruptions and severities", "corrupted", ("accuracy",))
    for name, title in (("image", "the image"), ("audio", "the sound"), ("both", "both"), ("accuracy", "whole grid")):
        table.add_row(title, f"{area[name]:.4f}", style="bold" if name == "accuracy" else None)
    table.add_row("whole grid, calibration error", f"{area['ece']:.4f}")
    yield _beneath_title(table)
