"""Evaluate a finished run: the steps of `python -m kfusion.evaluate`, for the command and for programs."""

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

from kfusion import run_dir
from kfusion.data.array_files import first_of_each_class
from kfusion.evaluation import inference
from kfusion.evaluation.inference import EvaluationSet, Predictions, other_data, own_data
from kfusion.evaluation.summary import FORMAT, fit_temperatures, num_encodings, robustness, summarize, trust_summary
from kfusion.inference import load_fitting, measure_trust
from kfusion.io import file_hash, progress, read_json, write_json, write_text
from kfusion.metrics.modalities import crossed_maps
from kfusion.modalities import each_of
from kfusion.modalities.front_ends import note_on
from kfusion.model.answers import Answers
from kfusion.model.build import Halves
from kfusion.model.trust import read_trust, write_trust
from kfusion.plots.evaluation import (
    accuracy_over_coverage,
    heat_map,
    reliability_diagram,
    severity_curves,
    who_decides,
    worst_errors,
)
from kfusion.plots.tables import Words, evaluation_tables, robustness_tables, view_titles
from kfusion.plots.training import confusion_matrix, save
from kfusion.prepared_data import Augmentation, load_own
from kfusion.run_dir import INSIDE, Run, open_finished
from kfusion.spec import Caution
from kfusion.validation import require

FIGURES = "figures"
SOMETIMES = ("worst_errors", "strangest", "trust", "robustness_*")
"""Figures that not every evaluation makes."""


def figures(
    samples: EvaluationSet, facts: dict[str, Any], grid: dict[str, Any] | None, reference: dict[str, np.ndarray]
) -> Iterator[tuple[str, Figure]]:
    """Each figure with its name.

    Args:
        samples: the evaluation set.
        facts: evaluation.json.
        grid: robustness.json, if it was made.
        reference: for each standardised modality the values on whose scale it is shown, (m, *shape).
    """
    spec = samples.pairs.spec
    words, names = Words.of(spec), facts["data"]["class_names"]
    for view, title in view_titles(facts["confusion"]).items():
        yield f"confusion_{view}", confusion_matrix(np.array(facts["confusion"][view]), names, title)
    if facts["decides"]["conflict"]:
        yield "who_decides", who_decides(facts["decides"], words)
    yield "reliability", reliability_diagram(facts["calibration"])
    if facts["worst"]:
        values = samples.read(samples.pairs, np.array([row["row"] for row in facts["worst"]]))
        shapes = [(name, kind, samples.trained[name]) for name, kind, _ in each_of(spec)]
        pictures = {name: kind.pictures(values[name], shape, reference.get(name)) for name, kind, shape in shapes}
        yield "worst_errors", worst_errors(pictures, facts["worst"], words)
    if "trust" in facts:
        yield "trust", accuracy_over_coverage(facts["trust"])
        positions = np.array([row["row"] for row in facts["trust"]["strangest"]])
        values = samples.read(samples.pairs, positions)
        shapes = [(name, kind, samples.trained[name]) for name, kind, _ in each_of(spec)]
        pictures = {name: kind.pictures(values[name], shape, reference.get(name)) for name, kind, shape in shapes}
        yield "strangest", worst_errors(pictures, facts["trust"]["strangest"], words, "The least familiar first")
    if grid:
        maps = crossed_maps(grid)
        for score in ("accuracy", "ece"):
            for pair, crossed in maps.items():
                suffix = "" if len(maps) == 1 else f"_{'_'.join(pair)}"
                yield f"robustness_{score}{suffix}", heat_map(grid, crossed, score, words)
        yield "robustness_curves", severity_curves(grid, words)


def _draw_figures(folder: Path, named: Iterator[tuple[str, Figure]], advance: Callable[[int], None]) -> list[str]:
    """Writes the figures, each whole or not at all, and returns their names; those of an earlier evaluation go."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, figure in named:
        save(figure, folder, name)
        made.append(name)
        advance(1)
    for path in folder.iterdir():
        if path.stem not in made and any(fnmatch(path.stem, pattern) for pattern in SOMETIMES):
            path.unlink()
    return made


@dataclass(frozen=True)
class Request:
    """What is to be evaluated.

    Args:
        data: other data than the run's own test part: 'builtin' or a folder, or several; "": the run's own.
        test_labels: a CSV with the labels of the competition's test files.
        force: take data on another scale too.
        seed: decides conflicts, corruptions and the bootstrap.
        grid: whether to compute the robustness grid.
        grid_rows: rows of the grid at most, evenly over the classes; 0: all.
    """

    data: str | tuple[str, ...] = ""
    test_labels: str = ""
    force: bool = False
    seed: int = 0
    grid: bool = True
    grid_rows: int = 10_000

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("grid_rows", self.grid_rows)):
            require(0 <= value < 2**31, name, "in [0, 2^31)", value)
        require(bool(self.data) or not self.test_labels, "test_labels", "empty without 'data'", self.test_labels)


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
    run_dir.check_unlocked(folder)
    # The network before the data, which may take minutes to decode.
    network, weights = load_fitting(run), file_hash(run.best)
    halves = Halves(network)
    if request.data:
        samples = other_data(run, request.data, request.test_labels, request.seed, request.force)
    else:
        samples = own_data(run)
    if console and (note := note_on(run.data()["source"])):
        console.print(note, soft_wrap=True)
    with run_dir.lock(folder):
        place = place_of(run, request.data) if request.data else run.evaluation
        place.mkdir(parents=True, exist_ok=True)
        predictions = predicted(samples, halves, weights, request.seed, place / "answers.npz", console)
        if console and samples.notes:
            console.print(*samples.notes, sep="\n", soft_wrap=True)
        temperature = _calibrate(run, samples, predictions, halves, weights, console)
        facts = summarize(samples, predictions, temperature, np.array(run.data()["prior"]), request.seed)
        facts["seed"], facts["weights"] = request.seed, weights
        trust = read_trust(run)
        if trust is None and samples.val is not None:  # A run of an earlier version.
            train, mean = load_own(run)[1].train, {name: mean for name, (mean, _) in _moments(run).items()}
            augment = Augmentation(run.config().augment.harmless(), run.spec(), mean, run.data()["source"]["front_end"])
            done = run.metrics()
            steps = done["epochs"] * len(train) / done.get("batch_size", run.config().training.batch_size)
            trust = measure_trust(network, train, samples.val, augment, steps)
            if trust:
                write_trust(run, trust)
        if trust:
            answers = Answers(network, run.spec(), temperature, trust)
            facts["trust"] = trust_summary(samples, predictions, answers, trust, Caution())
        if request.data:
            facts["data"]["place"] = fingerprint_of(request.data)
        path = place / "robustness.json"
        if request.grid:
            grid = robustness_of(run, samples, halves, facts, request, path, console)
        else:  # An earlier grid stays where it is of these weights and rows.
            grid = _written_json(path)
            grid = grid if grid and grid.get("key") == predictions.key else None
        _write(run, place, samples, facts, grid, console)
    return place


def place_of(run: Run, data: str | tuple[str, ...]) -> Path:
    """The folder for an evaluation on other data: called like these, or with a fingerprint where that name is taken.

    It is taken where the run's own evaluation writes a file or folder so called, or other data have it already.

    Args:
        run: that is evaluated.
        data: 'builtin' or a folder, or several.
    """
    name = "+".join(Path(each).resolve().name for each in _sources(data)) or "data"
    reserved = (FIGURES, *INSIDE["evaluation"])
    free = not name.startswith(".") and not any(fnmatch(name.lower(), pattern) for pattern in reserved)
    if free and _is_of(run.evaluation / name, data):
        return run.evaluation / name
    short = name.strip(".").encode()[:200].decode(errors="ignore")
    return run.evaluation / f"{short}-{fingerprint_of(data)}"


def _sources(data: str | tuple[str, ...]) -> tuple[str, ...]:
    return (data,) if isinstance(data, str) else data


def _is_of(place: Path, data: str | tuple[str, ...]) -> bool:
    """Whether the evaluation that is kept in a folder, if any, is on these data."""
    facts = _written_json(place / "evaluation.json")
    if facts is None:
        return True
    own = facts.get("data") or {}
    if "place" in own:
        return own["place"] == fingerprint_of(data)
    # One from before places were noted; its name is what the command line said.
    return fingerprint_of(str(own.get("name"))) == fingerprint_of(data)


def fingerprint_of(data: str | tuple[str, ...]) -> str:
    """Of where data lie; the built-in ones are no folder."""
    places = (each if each == "builtin" else str(Path(each).resolve()) for each in _sources(data))
    return hashlib.sha256("\n".join(places).encode()).hexdigest()[:8]


def predicted(
    samples: EvaluationSet, halves: Halves, weights: str, seed: int, path: Path, console: Console | None
) -> Predictions:
    """The predictions in a file where they are still those to this question, else the forward pass's, kept there.

    Args:
        samples: the evaluation set.
        halves: of the network.
        weights: fingerprint of its file.
        seed: decides the conflicts.
        path: the file.
        console: where progress is shown.
    """
    key = inference.fingerprint(samples, weights, seed)
    earlier = inference.load_predictions(path, key)
    # The key says nothing of groups, which are the data's own word, and were once told wrongly.
    if earlier is not None and np.array_equal(earlier.group, samples.group):
        return earlier
    num_rows = len(samples.pairs) + (len(samples.val) if samples.val else 0)
    with progress(console, "forward pass", num_rows) as advance:
        predictions = inference.predict(samples, halves, key, seed, advance)
    inference.save_predictions(path, predictions)
    return predictions


def _calibrate(
    run: Run, samples: EvaluationSet, predictions: Predictions, halves: Halves, weights: str, console: Console | None
) -> dict[str, float]:
    """The temperature of each view, fitted on the run's validation part and kept in calibration.json.

    With other data the file's are taken; where there is none for these weights, the run's own data are needed.
    """
    val, pairs = predictions.val, samples.val
    if pairs is None:
        values = read_json(run.calibration) if run.calibration.exists() else {}
        if isinstance(values, dict) and values.get("weights") == weights:
            return values["temperature"]
        own = own_data(run)
        pairs = own.val or own.pairs
        with progress(console, "validation part", len(pairs)) as advance:
            val = inference.predict_views(own, pairs, halves, advance)
    temperature = fit_temperatures(val, pairs)
    values = {"format": FORMAT, "temperature": temperature, "num_rows": len(pairs), "weights": weights}
    write_json(run.calibration, values)
    return temperature


def robustness_of(
    run: Run,
    samples: EvaluationSet,
    halves: Halves,
    facts: dict[str, Any],
    request: Request,
    path: Path,
    console: Console | None,
) -> dict[str, Any]:
    """The content of robustness.json; what is in the file already where it is the same grid.

    Args:
        run: that is evaluated.
        samples: the evaluation set.
        halves: of the network.
        facts: evaluation.json.
        request: what is evaluated.
        path: the file.
        console: where progress is shown.
    """
    whole = inference.whole_rows(samples.pairs)
    positions = whole[first_of_each_class(samples.pairs.label[whole], request.grid_rows)]
    temperature = {view: facts["calibration"][view]["temperature"] for view in samples.pairs.spec.views}
    question = {"format": FORMAT, "key": facts["key"], "seed": request.seed, "num_rows": len(positions)}
    question["temperature"] = temperature
    earlier = _written_json(path)
    if earlier and question.items() <= earlier.items():
        return earlier
    std = {name: np.sqrt(variance) for name, (_, variance) in _moments(run).items()}
    with progress(console, "robustness grid", num_encodings(samples, len(positions))) as advance:
        grid = robustness(samples, halves, temperature, std, positions, request.seed, advance)
    return {**question, **grid}


def _moments(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance of each value over the training part, (num_values,), for each standardised modality."""
    facts = run.data()
    return {
        name: (np.array(facts[f"{name}_mean"]), np.array(facts[f"{name}_variance"]))
        for name in run.spec().names
        if f"{name}_variance" in facts
    }


def _written_json(path: Path) -> dict[str, Any] | None:
    """The content of a file that an evaluation wrote; None where it is missing or damaged."""
    try:
        content = read_json(path)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _write(
    run: Run,
    place: Path,
    samples: EvaluationSet,
    facts: dict[str, Any],
    grid: dict[str, Any] | None,
    console: Console | None,
) -> None:
    """Writes figures, robustness.json, report.txt and, last, evaluation.json; shows the tables."""
    words = Words.of(samples.trained)
    # Two values, one deviation to either side of the mean, have the mean and the deviation of all.
    reference = {
        name: np.stack([mean - np.sqrt(variance), mean + np.sqrt(variance)])
        for name, (mean, variance) in _moments(run).items()
    }
    total = (
        len(facts["confusion"])
        + 2
        + bool(facts["worst"])
        + 2 * ("trust" in facts)
        + (1 + 2 * len(crossed_maps(grid)) if grid else 0)
    )
    with progress(console, "figures", total) as advance:
        facts["figures"] = _draw_figures(place / FIGURES, figures(samples, facts, grid, reference), advance)
    if grid:
        write_json(place / "robustness.json", grid)
    else:
        (place / "robustness.json").unlink(missing_ok=True)
    tables = [*evaluation_tables(facts, words), *(robustness_tables(grid, words) if grid else ())]
    text = io.StringIO()
    paper = Console(file=text, width=80, highlight=False, markup=False, emoji=False)
    for each in (paper, *([console] if console else [])):
        each.print(_heading(facts, words), *tables, facts["interval_method"], sep="\n")
    write_text(place / "report.txt", "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
    write_json(place / "evaluation.json", facts)


def _heading(facts: dict[str, Any], words: Words) -> str:
    """What was evaluated, in a line."""
    data, groups = facts["data"], f"{words.last}s"
    num_groups = data[f"num_{groups}"]
    heading = f"{data['name']}, {data['part']}: {data['num_rows']:,} {words.unit}s with {num_groups:,} {groups}"
    if "num_whole" not in data:
        return heading
    return f"{heading}; modalities are compared on {data['num_whole']:,} that lack none"
