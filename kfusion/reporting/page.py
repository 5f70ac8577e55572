"""Findings to HTML: which sections there are, and the template that draws them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from kfusion.io import write_text
from kfusion.plots.tables import VIEW_TITLES
from kfusion.reporting import training
from kfusion.reporting.comparison import MAX_RUNS, named, side_by_side
from kfusion.reporting.components import Block, Section, count, digits_for, percent
from kfusion.reporting.run_data import Findings, read_findings
from kfusion.reporting.sections import calibration, decides, embeddings, errors, results, robustness
from kfusion.validation import UserError

T = TypeVar("T")
FUSIONS = {"lstm": "LSTM", "attention": "Attention", "late": "Late"}
SECTIONS: dict[str, tuple[str, Callable[[Findings], Iterator[Block]]]] = {
    "training": ("What was trained on what", training.training),
    "curves": ("Learning curves", training.curves),
    "results": ("Results", results),
    "decides": ("Who decides", decides),
    "calibration": ("Calibration", calibration),
    "robustness": ("Robustness", robustness),
    "embeddings": ("Embeddings", embeddings),
    "errors": ("Errors", errors),
    "environment": ("Environment", training.environment),
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
    own = [understood(found, own_sections) for found in runs]
    beside = understood(runs[0], lambda found: compared(found, runs[1:]))
    last = Section("commands", "The commands that made it", list(training.commands(runs[0], runs[1:], path)))
    write_text(path, render([*beside, *own[0], last], understood(runs[0], lambda found: heading(found, runs[1:]))))
    return path


def understood(found: Findings, tell: Callable[[Findings], T]) -> T:
    """What is told of a run, or a UserError that names it where its files are not what this version writes.

    What a file lacks shows where it is used; so a fault of the page itself looks the same, and the error says how to
    see where it was raised.
    """
    try:
        return tell(found)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        if isinstance(error, UserError) and str(error).startswith(str(found.run.folder)):
            raise  # A sentence that names the file already.
        rule = "the files must be those that this version of kfusion writes; evaluate and embed write theirs anew"
        told = f"Found: {type(error).__name__} {error} (KFUSION_TRACEBACK=1 shows where)"
        raise UserError(f"{found.run.folder}: {rule}. {told}") from error


def require_jinja() -> None:
    """Raises the UserError that says how Jinja is installed, unless it is."""
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise UserError(
            "a report needs the extra: pip install 'kfusion[report]' (from a checkout: pip install '.[report]'). "
            "Found: no package jinja2"
        )


def render(sections: list[Section], heading: dict[str, Any]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("kfusion.reporting", "templates")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = loader.get_source(templates, "report.css")[0]
    return templates.get_template("report.html.j2").render(style=style, sections=sections, **heading)


def compared(found: Findings, others: list[Findings]) -> list[Section]:
    return [Section("compare", "Side by side", list(side_by_side(found, others)))] if others else []


def own_sections(found: Findings) -> list[Section]:
    """The sections on one run, in the order in which they are read."""
    return [Section(key, title, list(tell(found))) for key, (title, tell) in SECTIONS.items()]


def heading(found: Findings, others: list[Findings]) -> dict[str, Any]:
    """The title, and the figures that are seen first."""
    views = (found.evaluation or found.metrics)["views"]
    digits = digits_for(found.num_rows)
    tiles = [
        (
            title,
            percent(views[view]["accuracy"], digits),
            f"{count(views[view]['num_errors'])} of {count(found.num_rows)} wrong",
        )
        for view, title in VIEW_TITLES.items()
    ]
    config, data = found.config, found.data
    names = list(named([found, *others]))
    about = (
        f"{FUSIONS[config.model.fusion]} fusion of an image and a sound, {data['source']['name']} data, "
        f"{config.data.split} split; {count(found.num_rows)} test pairs"
    )
    return {"title": names[0], "versus": names[1:], "about": about, "tiles": tiles}
