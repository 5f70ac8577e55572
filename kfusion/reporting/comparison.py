"""Runs side by side: the same figures of each, and paired tests where they answered the same rows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kfusion.metrics.significance import compare
from kfusion.plots.tables import Table, p_value, separation_table, view_titles
from kfusion.reporting.components import (
    Block,
    Heat,
    Interval,
    Intervals,
    Text,
    count,
    digits_for,
    missing,
    percent,
    points,
    points_between,
)
from kfusion.reporting.run_data import Findings
from kfusion.reporting.sections import accuracies, axis_low
from kfusion.reporting.training import closest_recipe
from kfusion.spec import FUSED

MAX_RUNS = 8


def side_by_side(findings: Findings, others: list[Findings]) -> Iterator[Block]:
    """The section that compares the report's run with others.

    Args:
        findings: of the report's run.
        others: of the other runs.
    """
    runs = named([findings, *others])
    yield from (_overview(runs), _accuracies(runs))
    for name, other in list(runs.items())[1:]:
        yield from _paired(next(iter(runs)), findings, name, other)
    yield from _robustness(runs)
    known = {name: run.embeddings for name, run in runs.items() if run.embeddings}
    if known:
        yield separation_table(known, findings.words)
    for name, run in runs.items():
        if not run.embeddings:
            yield missing(run, "embed", f"the embeddings of {name}, to set side by side")


def named(runs: list[Findings]) -> dict[str, Findings]:
    """Each run under its folder's name; those of the same name under their paths."""
    names = [run.name for run in runs]
    return {name if names.count(name) == 1 else str(run.run.folder): run for name, run in zip(names, runs, strict=True)}


def _overview(runs: dict[str, Findings]) -> Table:
    rows = []
    for name, run in runs.items():
        calibration = run.evaluation["calibration"][FUSED]["after"]["ece"] if run.evaluation else None
        area = run.robustness["area"]["accuracy"] if run.robustness else None
        rows.append(
            [
                name,
                closest_recipe(run.config),
                run.model.fusion,
                count(run.metrics["epochs"]),
                count(run.data["num_pairs"]["train"]),
                "–" if calibration is None else percent(calibration, 2),
                "–" if area is None else percent(area),
            ]
        )
    training = f"training {next(iter(runs.values())).words.unit}s"
    head = ["run", "recipe", "fusion", "epochs", training, "calibration error", "robustness"]
    return Table("The runs; robustness is the mean accuracy of the grid", head, rows, (0, 1, 2))


def _accuracies(runs: dict[str, Findings]) -> Intervals:
    each = {name: accuracies(run) for name, run in runs.items()}
    rows: list[Interval] = [
        replace(shares[title], name=f"{title}, {name}", tone=tone)
        for title in dict.fromkeys(title for shares in each.values() for title in shares)
        for tone, (name, shares) in enumerate(each.items())
        if title in shares
    ]
    head = ["asked by", "accuracy", "95 % interval", "macro-F1", "errors"]
    return Intervals("Accuracy of each run, asked in each way", head, rows, axis_low(rows))


def _why_unpaired(findings: Findings, other: Findings) -> str:
    """Why two runs cannot be tested on the same rows; "" where they can."""
    if findings.data["source"]["files"] != other.data["source"]["files"]:
        return "they were trained on other data"
    if findings.words.nouns != other.words.nouns:
        return "they have other modalities"
    one, two = findings.run.split(), other.run.split()
    if any(not np.array_equal(one[f"test_{name}"], two[f"test_{name}"]) for name in findings.words.nouns):
        return "their test parts hold other rows"
    return ""


def _paired(name: str, findings: Findings, other_name: str, other: Findings) -> list[Block]:
    """McNemar's tests of two runs, or why there are none."""
    why = _why_unpaired(findings, other)
    if why:
        return [
            Text(f"{other_name} and {name} are not tested against each other: {why}. Their intervals above still hold.")
        ]
    predictions = [each.predictions() for each in (findings, other)]
    if None in predictions:
        absent = (findings, other)[predictions.index(None)]
        return [missing(absent, "evaluate", f"answers of {absent.name} for paired tests")]
    (label, own, group), (_, others, _) = predictions  # pyright: ignore[reportGeneralTypeIssues]
    views = list(findings.run.spec().views)
    right = {
        f"{run} {view}": probabilities[:, at].argmax(axis=1) == label
        for at, view in enumerate(views)
        for run, probabilities in (("own", own), ("other", others))
    }
    titles = view_titles(views)
    tests = compare(right, [(f"other {view}", f"own {view}") for view in titles], group, seed=0)
    digits = digits_for(findings.num_rows)
    rows = [
        [
            title,
            points(test["difference"], digits),
            points_between(test["interval"], digits),
            count(test["first_only"]),
            count(test["second_only"]),
            p_value(test["p"]),
        ]
        for title, test in zip(titles.values(), tests, strict=True)
    ]
    only = [f"only {run} right" for run in (other_name, name)]
    head = ["asked by", "difference, points", "95 % interval", *only, "McNemar p"]
    return [Table(f"{other_name} against {name}, paired on the same test rows", head, rows)]


def _robustness(runs: dict[str, Findings]) -> list[Block]:
    """Mean accuracy under each corruption that all runs met."""
    grids = {name: run.robustness for name, run in runs.items()}
    absent = [runs[name] for name, grid in grids.items() if grid is None]
    if absent:
        return [missing(absent[0], "evaluate", f"the robustness grid of {absent[0].name}, to set side by side")]
    known, nouns, blocks = [grid for grid in grids.values() if grid], next(iter(runs.values())).words.nouns, []
    for modality, corruptions in known[0]["corruptions"].items():
        rows = []
        for corruption, facts in corruptions.items():
            curves = [grid["alone"].get(modality, {}).get(corruption) for grid in known]
            if all(curves):
                means = [float(np.mean(curve[FUSED]["accuracy"])) for curve in curves]
                rows.append((facts["title"], [(f"{100 * mean:.1f}", 1 - mean, "b") for mean in means]))
        caption = f"Accuracy with a spoilt {nouns[modality]}, %, mean over five severities"
        blocks.append(Heat(caption, "corruption", list(grids), rows))
    return blocks
