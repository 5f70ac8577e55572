"""Findings to HTML: which sections there are, what stands side by side where runs are compared, and the template.

Compared are the same figures of each run, and by paired tests those that answered the same rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import numpy as np

from kfusion.config import HEADS, Config, differences
from kfusion.io import write_text
from kfusion.metrics.significance import compare
from kfusion.plots.tables import Table, p_value, separation_table, view_titles
from kfusion.recipes import RECIPES, closest_recipe
from kfusion.reporting.components import (
    Block,
    Code,
    Heat,
    Interval,
    Intervals,
    Section,
    Text,
    command,
    count,
    digits_for,
    missing,
    percent,
    points,
    points_between,
)
from kfusion.reporting.run_data import Findings, read_findings
from kfusion.reporting.sections import (
    DEFAULT_GRID_ROWS,
    accuracies,
    axis_low,
    calibration,
    curves,
    decides,
    embeddings,
    environment,
    errors,
    results,
    robustness,
    setting,
    training,
    trust,
)
from kfusion.spec import FUSED, together
from kfusion.validation import UserError

T = TypeVar("T")
SECTIONS: dict[str, tuple[str, Callable[[Findings], Iterator[Block]]]] = {
    "training": ("What was trained on what", training),
    "curves": ("Learning curves", curves),
    "results": ("Results", results),
    "decides": ("Who decides", decides),
    "calibration": ("Calibration", calibration),
    "trust": ("What it does not know", trust),
    "robustness": ("Robustness", robustness),
    "embeddings": ("Embeddings", embeddings),
    "errors": ("Errors", errors),
    "environment": ("Environment", environment),
}


def report(folder: Path, compare: tuple[Path, ...] = (), out: Path | None = None) -> Path:
    """Writes the report of a run.

    Args:
        folder: a finished run.
        compare: other finished runs, to be put beside it.
        out: the file; None: `report.html` in the run folder.

    Returns:
        the file.

    Raises:
        UserError: a run is unfinished or damaged, or named twice; nothing is written then.
    """
    if len(compare) >= MAX_RUNS:
        raise UserError(f"'compare' must be fewer than {MAX_RUNS} runs. Received: {len(compare)}")
    places = [path.resolve() for path in (folder, *compare)]
    twice = [str(path) for path in places if places.count(path) > 1]
    if twice:
        raise UserError(f"'compare' must be other runs, each once. Received: {twice[0]} twice")
    require_jinja()
    runs = [read_findings(place) for place in (folder, *compare)]
    path = out or folder / "report.html"
    own = [_understood(findings, own_sections) for findings in runs]
    beside = _understood(runs[0], lambda findings: _compared(findings, runs[1:]))
    last = Section("commands", "The commands that made it", list(commands(runs[0], runs[1:], path)))
    top = _understood(runs[0], lambda findings: _heading(findings, runs[1:]))
    write_text(path, _render([*beside, *own[0], last], top))
    return path


def _understood(findings: Findings, tell: Callable[[Findings], T]) -> T:
    """What a function makes of a run, or a UserError that names the run where its files are not of this version.

    What a file lacks shows where it is used; so a fault of the page itself looks the same, and the error says how to
    see where it was raised.
    """
    try:
        return tell(findings)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        if isinstance(error, UserError) and str(error).startswith(str(findings.run.folder)):
            raise  # A sentence that names the file already.
        rule = "the files must be those that this version of kfusion writes; evaluate and embed write theirs anew"
        reason = f"Found: {type(error).__name__} {error} (KFUSION_TRACEBACK=1 shows where)"
        raise UserError(f"{findings.run.folder}: {rule}. {reason}") from error


def require_jinja() -> None:
    """Raises the UserError that says how Jinja is installed, unless it is."""
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise UserError(
            "a report needs the extra: pip install 'kfusion[report]' (from a checkout: pip install '.[report]'). "
            "Found: no package jinja2"
        )


def _render(sections: list[Section], heading: dict[str, Any]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("kfusion.reporting", "templates")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = loader.get_source(templates, "report.css")[0]
    return templates.get_template("report.html.j2").render(style=style, sections=sections, **heading)


def _compared(findings: Findings, others: list[Findings]) -> list[Section]:
    """The section on several runs, if there are several."""
    return [Section("compare", "Side by side", list(side_by_side(findings, others)))] if others else []


def own_sections(findings: Findings) -> list[Section]:
    """The sections on one run, in the order in which they are read."""
    return [Section(key, title, list(tell(findings))) for key, (title, tell) in SECTIONS.items()]


def _heading(findings: Findings, others: list[Findings]) -> dict[str, Any]:
    """The title, and the figures that are seen first."""
    views = (findings.evaluation or findings.metrics)["views"]
    digits, words = digits_for(findings.num_rows), findings.words
    tiles = [
        (
            title,
            percent(views[view]["accuracy"], digits),
            f"{count(views[view]['num_errors'])} of {count(findings.num_rows)} wrong",
        )
        for view, title in view_titles(views).items()
    ]
    config, data = findings.config, findings.data
    names = list(named([findings, *others]))
    samples = together([f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun in words.nouns.values()])
    fusion = f"{HEADS[findings.model.fusion].title} fusion of {samples}"
    about = (
        f"{fusion}, {data['source']['name']} data, {config.data.split} split; {count(findings.num_rows)} test "
        f"{words.unit}s"
    )
    return {"title": names[0], "versus": names[1:], "about": about, "tiles": tiles, "unit": words.unit}


def commands(findings: Findings, others: list[Findings], out: Path) -> Iterator[Block]:
    """The commands that made what is on the page.

    Args:
        findings: of the report's run.
        others: of the other runs.
        out: the page.
    """
    folder = findings.run.folder
    lines = [(train_command(findings.config), "trains the same again")]
    if findings.evaluation:
        words = ["--seed", str(findings.evaluation["seed"]), *_grid_flags(findings)]
        lines.append((command("evaluate", folder, *words), "results, who decides, calibration, robustness, errors"))
    if findings.embeddings:
        facts = findings.embeddings
        words = ["--samples", str(facts["samples"]), "--seed", str(facts["seed"]), *["--umap"] * facts["umap"]]
        lines.append((command("embed", folder, *words), "embeddings"))
    words = ["--compare", *(other.run.folder for other in others)] if others else []
    words += ["--out", out] if out != folder / "report.html" else []
    lines.append((command("report", folder, *words), "this page"))
    yield Code(lines)


def _grid_flags(findings: Findings) -> list[str]:
    """What was said of the robustness grid, if anything."""
    if findings.robustness is None:
        return ["--no-grid"]
    num_rows = findings.robustness["num_rows"]
    return [] if num_rows == min(findings.num_rows, DEFAULT_GRID_ROWS) else ["--grid-rows", str(num_rows)]


def train_command(config: Config) -> str:
    """The command line that means this config."""
    base = closest_recipe(config)
    flags = [f"--recipe {base}"] if base != "paper" else []
    for path in differences(RECIPES[base], config):
        flags.append(_flag(path.split(".")[1].replace("_", "-"), setting(config, path)))
    return " ".join(["python -m kfusion.train", *flags])


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, tuple):
        return " ".join([f"--{name}", *(_quoted(each) for each in value)])
    return f"--{name} {_quoted(value)}"


def _quoted(value: Any) -> str:
    return quote(str(value))


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
