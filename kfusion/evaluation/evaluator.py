"""Judge a finished run: the steps of `python -m kfusion.evaluate`, for the command and for programs.

The figures of an evaluation, as PNG and SVG.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from kfusion import run_dir as runs
from kfusion.data.array_files import first_of_each_class
from kfusion.evaluation import inference as asking
from kfusion.evaluation.inference import Answers, Subject, other_data, own_data
from kfusion.evaluation.robustness import num_encodings, robustness
from kfusion.evaluation.summary import FORMAT, fit_temperatures, summarize
from kfusion.inference import load_fitting
from kfusion.io import progress, read_json, write_json, write_text
from kfusion.modalities.front_ends import note_on
from kfusion.model.build import Halves
from kfusion.plots.evaluation import heat_map, reliability_diagram, severity_curves, who_decides, worst_errors
from kfusion.plots.tables import VIEW_TITLES, evaluation_tables, robustness_tables
from kfusion.plots.training import confusion_matrix, save
from kfusion.run_dir import INSIDE, Run, open_finished
from kfusion.spec import VIEWS
from kfusion.validation import UserError

ONCE = ("worst_errors", "robustness_accuracy", "robustness_ece", "robustness_curves")
"""Figures that not every evaluation makes."""


def figures(
    subject: Subject, facts: dict[str, Any], grid: dict[str, Any] | None, spread: np.ndarray
) -> Iterator[tuple[str, Figure]]:
    """Each figure with its name.

    Args:
        subject: whose rows.
        facts: evaluation.json.
        grid: robustness.json, if it was made.
        spread: mean and standard deviation of each audio feature over the training part, (2, num_audio).
    """
    names = facts["data"]["class_names"]
    for view, matrix in facts["confusion"].items():
        yield f"confusion_{view}", confusion_matrix(np.array(matrix), names, VIEW_TITLES[view])
    yield "who_decides", who_decides(facts["decides"])
    yield "reliability", reliability_diagram(facts["calibration"])
    if facts["worst"]:
        rows = np.array([row["row"] for row in facts["worst"]])
        image, audio = subject.read(subject.pairs, rows)
        shape = subject.pairs.spec.audio_grid
        sounds = audio.reshape(-1, *shape)
        yield "worst_errors", worst_errors(image, sounds, facts["worst"], subject.pixel_max, spread.reshape(2, *shape))
    if grid:
        yield "robustness_accuracy", heat_map(grid, "accuracy")
        yield "robustness_ece", heat_map(grid, "ece")
        yield "robustness_curves", severity_curves(grid)


def draw_figures(folder: Path, named: Iterator[tuple[str, Figure]], advance: Callable[[int], None]) -> list[str]:
    """Writes the figures, each whole or not at all, and returns their names; an earlier evaluation's others go."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, figure in named:
        save(figure, folder, name)
        made.append(name)
        advance(1)
    for path in folder.iterdir():
        if path.stem in ONCE and path.stem not in made:
            path.unlink()
    return made


FIGURES = "figures"


@dataclass(frozen=True)
class Request:
    """What is to be evaluated.

    Args:
        data: other data than the run's own test part: 'builtin' or a folder; "": the run's own.
        test_labels: a CSV with the labels of the competition's test files.
        force: take data on another scale too.
        seed: decides conflicts, corruptions and the bootstrap.
        grid: whether to compute the robustness grid.
        grid_rows: rows of the grid at most, evenly over the classes; 0: all.
    """

    data: str = ""
    test_labels: str = ""
    force: bool = False
    seed: int = 0
    grid: bool = True
    grid_rows: int = 10_000

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("grid_rows", self.grid_rows)):
            if not 0 <= value < 2**31:
                raise UserError(f"'{name}' must be in [0, 2^31). Received: {value}")
        if self.test_labels and not self.data:
            raise UserError(f"'test_labels' must be empty without 'data'. Received: {self.test_labels!r}")


def evaluate(folder: Path, request: Request, console: Console | None = None) -> Path:
    """Evaluates a run, and writes what it found into its folder.

    Args:
        folder: a finished run.
        request: what to evaluate.
        console: where progress and tables are shown; None: nowhere.

    Returns:
        the folder of the evaluation: `evaluation/` in the run folder, or a folder therein for other data.

    Raises:
        UserError: the run is unfinished or damaged, or the data do not fit it; nothing is written then.
    """
    run = open_finished(folder)
    runs.check_unlocked(folder)
    # The network before the data, which may take minutes to decode.
    halves, weights = Halves(load_fitting(run)), hashlib.sha256(run.best.read_bytes()).hexdigest()
    if request.data:
        subject = other_data(run, request.data, request.test_labels, request.seed, request.force)
    else:
        subject = own_data(run)
    if console and (note := note_on(run.data()["source"])):
        console.print(note, soft_wrap=True)
    with runs.lock(folder):
        place = place_of(run, request.data) if request.data else run.evaluation
        place.mkdir(parents=True, exist_ok=True)
        answers = answer(subject, halves, weights, request.seed, place / "answers.npz", console)
        if console and subject.notes:
            console.print(*subject.notes, sep="\n", soft_wrap=True)
        temperature = calibrate(run, subject, answers, halves, weights, console)
        facts = summarize(subject, answers, temperature, np.array(run.data()["prior"]), request.seed)
        facts["seed"], facts["weights"] = request.seed, weights
        if request.data:
            facts["data"]["place"] = fingerprint_of(request.data)
        path = place / "robustness.json"
        if request.grid:
            grid = robustness_of(run, subject, halves, facts, request, path, console)
        else:  # An earlier grid stays where it is of these weights and rows.
            found = kept_json(path)
            grid = found if found and found.get("key") == answers.key else None
        write(run, place, subject, facts, grid, console)
    return place


def place_of(run: Run, data: str) -> Path:
    """The folder for an evaluation on other data: called like these, or with a fingerprint where that name is taken.

    It is taken where the run's own evaluation writes a file or folder so called, or other data have it already.
    """
    name = Path(data).resolve().name or "data"
    reserved = (FIGURES, *INSIDE["evaluation"])
    free = not name.startswith(".") and not any(fnmatch(name.lower(), pattern) for pattern in reserved)
    if free and _is_of(run.evaluation / name, data):
        return run.evaluation / name
    short = name.strip(".").encode()[:200].decode(errors="ignore")
    return run.evaluation / f"{short}-{fingerprint_of(data)}"


def _is_of(place: Path, data: str) -> bool:
    """Whether the evaluation that is kept in a folder, if any, is on these data."""
    facts = kept_json(place / "evaluation.json")
    if facts is None:
        return True
    own = facts.get("data") or {}
    if "place" in own:
        return own["place"] == fingerprint_of(data)
    # One from before places were noted; its name is what the command line said.
    return fingerprint_of(str(own.get("name"))) == fingerprint_of(data)


def fingerprint_of(data: str) -> str:
    """Of where data lie; the built-in ones are no folder."""
    where = data if data == "builtin" else str(Path(data).resolve())
    return hashlib.sha256(where.encode()).hexdigest()[:8]


def answer(subject: Subject, halves: Halves, weights: str, seed: int, path: Path, console: Console | None) -> Answers:
    """The answers in the file where they are still those to this question, else the forward pass's, kept there."""
    key = asking.fingerprint(subject, weights, seed)
    found = asking.kept(path, key)
    # The key says nothing of groups, which are the data's own word, and were once told wrongly.
    if found is not None and np.array_equal(found.group, subject.group):
        return found
    num_rows = len(subject.pairs) + (len(subject.val) if subject.val else 0)
    with progress(console, "forward pass", num_rows) as advance:
        answers = asking.ask(subject, halves, key, seed, advance)
    asking.keep(path, answers)
    return answers


def calibrate(
    run: Run, subject: Subject, answers: Answers, halves: Halves, weights: str, console: Console | None
) -> dict[str, float]:
    """The temperature of each view, fitted on the run's validation part and kept in calibration.json.

    With other data the file's are taken; where there is none for these weights, the run's own data are needed.
    """
    label, val = answers.val_label, answers.val
    if subject.val is None:
        found = read_json(run.calibration) if run.calibration.exists() else {}
        if isinstance(found, dict) and found.get("weights") == weights:
            return found["temperature"]
        label, val = _own_validation(run, subject, halves, console)
    temperature = fit_temperatures(val, label)
    values = {"format": FORMAT, "temperature": temperature, "num_rows": len(label), "weights": weights}
    write_json(run.calibration, values)
    return temperature


def _own_validation(
    run: Run, subject: Subject, halves: Halves, console: Console | None
) -> tuple[np.ndarray, np.ndarray]:
    own = own_data(run)
    pairs = own.val or own.pairs
    with progress(console, "validation part", len(pairs)) as advance:
        return pairs.label, asking.views(own, pairs, halves, advance)


def robustness_of(
    run: Run,
    subject: Subject,
    halves: Halves,
    facts: dict[str, Any],
    request: Request,
    path: Path,
    console: Console | None,
) -> dict[str, Any]:
    """The content of robustness.json; what is in the file already where it is the same grid."""
    positions = first_of_each_class(subject.pairs.label, request.grid_rows)
    temperature = {view: facts["calibration"][view]["temperature"] for view in VIEWS}
    deviation = np.sqrt(np.array(run.data()["audio_variance"]))
    question = {"format": FORMAT, "key": facts["key"], "seed": request.seed, "num_rows": len(positions)}
    question["temperature"] = temperature
    found = kept_json(path)
    if found and question.items() <= found.items():
        return found
    with progress(console, "robustness grid", num_encodings(subject, len(positions))) as advance:
        grid = robustness(subject, halves, temperature, deviation, positions, request.seed, advance)
    return {**question, **grid}


def kept_json(path: Path) -> dict[str, Any] | None:
    """The content of a file that an evaluation wrote; None where it is missing or damaged."""
    try:
        found = read_json(path)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write(
    run: Run, place: Path, subject: Subject, facts: dict[str, Any], grid: dict[str, Any] | None, console: Console | None
) -> None:
    """Writes figures, robustness.json, report.txt and, last, evaluation.json; shows the tables."""
    data = run.data()
    spread = np.stack([np.array(data["audio_mean"]), np.sqrt(np.array(data["audio_variance"]))])
    total = len(facts["confusion"]) + 2 + bool(facts["worst"]) + (3 if grid else 0)
    with progress(console, "figures", total) as advance:
        facts["figures"] = draw_figures(place / FIGURES, figures(subject, facts, grid, spread), advance)
    if grid:
        write_json(place / "robustness.json", grid)
    else:
        (place / "robustness.json").unlink(missing_ok=True)
    tables = [*evaluation_tables(facts), *(robustness_tables(grid) if grid else ())]
    text = io.StringIO()
    paper = Console(file=text, width=80, highlight=False, markup=False, emoji=False)
    for each in (paper, *([console] if console else [])):
        each.print(heading(facts), *tables, facts["interval_method"], sep="\n")
    write_text(place / "report.txt", "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
    write_json(place / "evaluation.json", facts)


def heading(facts: dict[str, Any]) -> str:
    """What was evaluated, in a line."""
    data = facts["data"]
    return f"{data['name']}, {data['part']}: {data['num_rows']:,} pairs with {data['num_sounds']:,} sounds"
