"""evaluation.json and robustness.json to tables for the terminal, within 80 columns.

Plain dicts to tables for the terminal; each fits into 80 columns, however long the class names are.

embeddings.json to a table for the terminal, within 80 columns, and to a verdict in words.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kfusion.metrics.classification import AVERAGES, LATE_FUSION, class_rows
from kfusion.spec import FUSED

VIEW_TITLES = {
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
    for view, title in VIEW_TITLES.items():
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


EMBEDDING_TITLES = {"image": "image", "audio": "audio", "fused": "fused"}
HEADS = {"ari": "ARI", "nmi": "NMI", "purity": "purity", "silhouette": "silh."}
"""Of the clusters, mean over the seeds of KMeans."""


def separation_table(facts: Mapping[str, Any]) -> Table:
    """A row per embedding: how its clusters agree with the classes, and what probes read off it."""
    table = new_table("embedding", (*HEADS.values(), "by class", "linear", "k-NN"))
    table.title = f"how well {facts['num_rows']:,} test pairs separate"
    for name, title in EMBEDDING_TITLES.items():
        numbers = facts["embeddings"][name]
        scores = [numbers["kmeans"][score]["mean"] for score in HEADS]
        probes = numbers["probes"]
        cells = [*scores, numbers["class_silhouette"], probes["linear"], probes["knn"]]
        table.add_row(title, *(f"{value:.4f}" for value in cells))
    spread = max(facts["embeddings"][name]["kmeans"]["ari"]["std"] for name in EMBEDDING_TITLES)
    table.caption = f"ARI of other KMeans seeds: ± {spread:.4f} at most. silh.: silhouette of clusters, and by class"
    table.caption_justify = "left"
    return table


def verdict(facts: Mapping[str, Any]) -> str:
    """Whether the paper's claim holds for this run, in a sentence with its figures."""
    test, spread = facts["image_against_audio"], facts["embeddings"]
    low, high = test["interval"]
    image, audio = (spread[name]["kmeans"]["ari"] for name in ("image", "audio"))
    if low > 0:
        said = "Images separate better than sounds, as the paper says"
    elif high < 0:
        said = "Sounds separate better than images, against what the paper says"
    else:
        said = "Images and sounds cannot be told apart in how well they separate"
    return (
        f"{said}: adjusted Rand index {image['mean']:.3f} ± {image['std']:.3f} against {audio['mean']:.3f} ± "
        f"{audio['std']:.3f} over ten seeds of KMeans; difference {test['difference']:+.3f}, 95 % interval {low:+.3f} "
        f"to {high:+.3f} (resampled by sound)."
    )


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
    for view, title in VIEW_TITLES.items():
        row = views[view]
        numbers = f"{row['accuracy']:.4f}", _interval(row["interval"]), str(row["num_errors"]), str(row["num_rows"])
        table.add_row(title, *numbers, style="bold" if view == "fused" else None)
    return table


def _tests(tests: list[Facts]) -> Table:
    heads = ("only 1st", "only 2nd", "McNemar p", "difference, 95 %")
    table = _titled("who is right where the other is wrong", "1st against 2nd", heads)
    for test in tests:
        name = f"{VIEW_TITLES[test['first']]} / {VIEW_TITLES[test['second']].replace('calibrated ', '')}"
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
    for view, title in VIEW_TITLES.items():
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
