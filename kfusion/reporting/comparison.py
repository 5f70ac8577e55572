"""Runs side by side: the same figures of each, and paired tests where they answered the same rows."""

from collections.abc import Iterator

import numpy as np

from kfusion.metrics.significance import compare
from kfusion.plots.tables import VIEW_TITLES
from kfusion.reporting.components import (
    Block,
    Heat,
    Interval,
    Intervals,
    Table,
    Text,
    count,
    digits_for,
    missing,
    p_value,
    percent,
    points,
    points_between,
)
from kfusion.reporting.run_data import Findings
from kfusion.reporting.sections import SPOILT, accuracies, axis_low, separation
from kfusion.reporting.training import closest_recipe
from kfusion.spec import VIEWS

MAX_RUNS = 8


def side_by_side(found: Findings, others: list[Findings]) -> Iterator[Block]:
    """The section that compares the report's run with others."""
    runs = named([found, *others])
    yield from (_overview(runs), _accuracies(runs))
    for name, other in list(runs.items())[1:]:
        yield from _paired(next(iter(runs)), found, name, other)
    yield from _robustness(runs)
    known = [(name, run.embeddings) for name, run in runs.items() if run.embeddings]
    if known:
        yield separation(known)
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
        calibration = run.evaluation["calibration"]["fused"]["after"]["ece"] if run.evaluation else None
        area = run.robustness["area"]["accuracy"] if run.robustness else None
        rows.append(
            [
                name,
                closest_recipe(run.config),
                run.config.model.fusion,
                count(run.metrics["epochs"]),
                count(run.data["num_pairs"]["train"]),
                "–" if calibration is None else percent(calibration, 2),
                "–" if area is None else percent(area),
            ]
        )
    head = ["run", "recipe", "fusion", "epochs", "training pairs", "calibration error", "robustness"]
    return Table("The runs; robustness is the mean accuracy of the grid", head, rows, (0, 1, 2))


def _accuracies(runs: dict[str, Findings]) -> Intervals:
    rows: list[Interval] = []
    each = {name: accuracies(run) for name, run in runs.items()}
    for at, title in enumerate(VIEW_TITLES.values()):
        for tone, (name, found) in enumerate(each.items()):
            one = found[at]
            rows.append(Interval(f"{title}, {name}", one.value, one.bounds, one.cells, tone))
    return Intervals(
        "Accuracy of each run, asked in each way",
        ["asked by", "accuracy", "95 % interval", "errors"],
        rows,
        axis_low(rows),
    )


def why_unpaired(found: Findings, other: Findings) -> str:
    """Why two runs cannot be tested on the same rows; "" where they can."""
    one, two = found.run.split(), other.run.split()
    if found.data["source"]["files"] != other.data["source"]["files"]:
        return "they were trained on other data"
    if any(not np.array_equal(one[key], two[key]) for key in ("test_image", "test_audio")):
        return "their test parts hold other rows"
    return ""


def _paired(name: str, found: Findings, other_name: str, other: Findings) -> list[Block]:
    """McNemar's tests of two runs, or why there are none."""
    title = f"{other_name} against {name}, paired on the same test rows"
    why = why_unpaired(found, other)
    if why:
        return [
            Text(f"{other_name} and {name} are not tested against each other: {why}. Their intervals above still hold.")
        ]
    answers = [each.answers() for each in (found, other)]
    if None in answers:
        absent = (found, other)[answers.index(None)]
        return [missing(absent, "evaluate", f"answers of {absent.name} for paired tests")]
    (label, own, group), (_, others, _) = answers  # pyright: ignore[reportGeneralTypeIssues]
    right, pairs = {}, []
    for at, view in enumerate(VIEWS):
        for run, probabilities in (("own", own), ("other", others)):
            right[f"{run} {view}"] = probabilities[:, at].argmax(axis=1) == label
        pairs.append((f"other {view}", f"own {view}"))
    tests = compare(right, pairs, group, seed=0)
    digits = digits_for(found.num_rows)
    rows = [
        [
            VIEW_TITLES[view],
            points(test["difference"], digits),
            points_between(test["interval"], digits),
            count(test["first_only"]),
            count(test["second_only"]),
            p_value(test["p"]),
        ]
        for view, test in zip(VIEWS, tests, strict=True)
    ]
    head = [
        "asked by",
        "difference, points",
        "95 % interval",
        f"only {other_name} right",
        f"only {name} right",
        "McNemar p",
    ]
    return [Table(title, head, rows)]


def _robustness(runs: dict[str, Findings]) -> list[Block]:
    """Mean accuracy under each corruption that all runs met."""
    grids = {name: run.robustness for name, run in runs.items()}
    absent = [runs[name] for name, grid in grids.items() if grid is None]
    if absent:
        return [missing(absent[0], "evaluate", f"the robustness grid of {absent[0].name}, to set side by side")]
    blocks: list[Block] = []
    for modality, title in SPOILT.items():
        rows = []
        for corruption, facts in next(iter(grids.values()))["corruptions"][modality].items():  # pyright: ignore
            means = [
                float(np.mean(grid["alone"][modality][corruption]["fused"]["accuracy"]))
                for grid in grids.values()
                if grid and corruption in grid["alone"][modality]
            ]
            if len(means) == len(grids):
                rows.append((facts["title"], [(f"{100 * mean:.1f}", 1 - mean, "b") for mean in means]))
        caption = f"Accuracy with a spoilt {title}, %, mean over five severities"
        blocks.append(Heat(caption, "corruption", list(grids), rows))
    return blocks
