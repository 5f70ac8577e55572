"""Findings to HTML: which sections there are, and the template that draws them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from kfusion.config import HEADS
from kfusion.io import write_text
from kfusion.plots.tables import together, view_titles
from kfusion.reporting import training
from kfusion.reporting.comparison import MAX_RUNS, named, side_by_side
from kfusion.reporting.components import Block, Section, count, digits_for, percent
from kfusion.reporting.run_data import Findings, read_findings
from kfusion.reporting.sections import calibration, decides, embeddings, errors, results, robustness, trust
from kfusion.validation import UserError

T = TypeVar("T")
SECTIONS: dict[str, tuple[str, Callable[[Findings], Iterator[Block]]]] = {
    "training": ("What was trained on what", training.training),
    "curves": ("Learning curves", training.curves),
    "results": ("Results", results),
    "decides": ("Who decides", decides),
    "calibration": ("Calibration", calibration),
    "trust": ("What it does not know", trust),
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
    own = [_understood(findings, own_sections) for findings in runs]
    beside = _understood(runs[0], lambda findings: _compared(findings, runs[1:]))
    last = Section("commands", "The commands that made it", list(training.commands(runs[0], runs[1:], path)))
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
