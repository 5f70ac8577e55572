"""A job from its settings to its output: the steps of `python -m kfusion.predict`, for it and for programs."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from kfusion.data.statistics import Range, largest, require_scale
from kfusion.data.tables import SUFFIXES
from kfusion.io import is_live
from kfusion.prediction.arrays import ArrayRows, FilesOf, open_arrays
from kfusion.prediction.engine import Plan, answer_shards
from kfusion.prediction.inputs import FileRows, Rows, open_listing, write_listing
from kfusion.prediction.models import Model, load_model
from kfusion.prediction.work_dir import Work, read_errors
from kfusion.validation import UserError, broken


class RowsPerSecond(ProgressColumn):
    """The recent speed."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")


class Bar:
    """Counts rows, and shows them where a person looks."""

    def __init__(self, bar: Progress, total: int, done: int) -> None:
        self.bar, self.began = bar, time.monotonic()
        self.task = bar.add_task("rows", total=total, completed=done)

    def advance(self, num_rows: int) -> None:
        self.bar.advance(self.task, num_rows)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


@contextmanager
def progress(console: Console | None, num_rows: int, missing: list[tuple[int, int]]) -> Iterator[Bar]:
    """Within the block, a bar; it is gone afterwards. A pipe or a file gets nothing.

    Args:
        console: where it is shown; None: nowhere.
        num_rows: of the whole input.
        missing: from which row up to which is still to be answered.
    """
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        BarColumn(20),
        RowsPerSecond(),
        TimeRemainingColumn(True),
    )
    hidden = not is_live(console)
    # What others write to standard error is not to be drawn above the bar: `quiet` holds it back.
    shown = Progress(
        *columns, console=console, transient=True, disable=hidden, redirect_stdout=False, redirect_stderr=False
    )
    with shown as bar:
        yield Bar(bar, num_rows, num_rows - sum(stop - start for start, stop in missing))


OUTLIERS = 0.01
"""Share of the sampled rows at either end, one at least, that may be broken without deciding the scale."""


def on_scale(rows: ArrayRows, model: Model, force: bool) -> tuple[ArrayRows, list[str]]:
    """The rows with the scale of their pixels, told by some rows evenly over the input.

    Args:
        rows: the input.
        model: what will answer it.
        force: take sounds on another scale too.

    Returns:
        The rows, and what should be said of them.

    Raises:
        UserError: pixels are on no known scale; or the sounds are on another than the training data's, and nobody
            forces it.
    """
    images, audio = rows.paths
    found, said = rows.ranges(), list(rows.notes)
    sizes = math.prod(rows.spec.image_shape), rows.spec.num_audio
    for path, size, (low, high) in zip(rows.paths, sizes, found, strict=True):
        num = int((low == high).sum())
        if path and size > 1 and num:
            said.append(f"{path.name}: {num:,} of {len(low):,} rows looked at are blank, all their values alike")
    if model.audio_range is not None:
        rows = replace(rows, audio_limit=largest(model.audio_range))
    if images is not None:
        rows = replace(rows, pixel_max=_pixel_max(images, bounds(*found[0])))
    if audio is not None and not force:
        if model.audio_range is None:
            said.append("sounds: their scale is not checked; this version does not tell its own")
        else:
            require_scale(Path(audio), "audio features", bounds(*found[1]), model.audio_range)
    return rows, said


def _pixel_max(path: Path, found: Range) -> int:
    """The brightest value that a pixel may have.

    Raises:
        UserError: no scale that pixels have.
    """
    if found[0] < 0 or found[1] > 255 or 1 < found[1] < 2:
        raise broken(path, "pixels must be in 0-1 or in 0-255", f"{found[0]:.6g} to {found[1]:.6g}")
    return 1 if found[1] <= 1 else 255


def bounds(low: np.ndarray, high: np.ndarray) -> Range:
    """Lowest and highest value of some rows, a few at either end left out; rows that are not finite do not count.

    Args:
        low, high: of each row, (n,).
    """
    good = np.isfinite(low) & np.isfinite(high)
    num = int(good.sum())
    if not num:
        return 0.0, 0.0
    left_out = min(int(np.ceil(OUTLIERS * num)), (num - 1) // 2)
    return float(np.sort(low[good])[left_out]), float(np.sort(high[good])[num - 1 - left_out])


FORMAT = 1
FILES_FORMAT = 2
"""Of a job whose input names files: its shards have other columns since then."""
Engine = Callable[[Plan, Model, list[tuple[int, int]]], Iterator[int]]


@dataclass(frozen=True)
class Job:
    """What to predict.

    Args:
        model: a run folder or an exported version.
        source: the input.
        out: the output, CSV or Parquet by its ending.
        full: all that is known of each row, not a submission.
        part: "test" or "train" of a published layout; None: the test files where there are any.
        force: take sounds on another scale than the training data's.
        strict: stop at the first row that cannot be answered.
        resume: go on after the last complete shard.
        overwrite: replace what is there.
    """

    model: Path
    source: Path
    out: Path
    full: bool = False
    part: str | None = None
    force: bool = False
    strict: bool = False
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Args:
        num_rows: rows that were answered now.
        num_bad: rows without an answer, of the whole input.
        errors: where these are listed.
        seconds: that answering took; None: the job was finished before.
    """

    num_rows: int
    num_bad: int
    errors: Path
    seconds: float | None


def predict(job: Job, console: Console | None = None, engine: Engine = answer_shards) -> Outcome:
    """Answers every row of an input and leaves one file of predictions.

    Args:
        job: what.
        console: where progress is shown; None: nowhere.
        engine: what answers the shards.

    Raises:
        UserError: the model, the input or the output break a rule, or a row does and the job is strict.
    """
    work = Work(job.out)
    work.check(job.resume, job.overwrite)
    if job.resume and job.out.exists() and not work.begun:
        return Outcome(0, sum(1 for _ in read_errors(work.errors)), work.errors, None)
    return run_job(job, load_model(job.model, job.full), console, engine)


def run_job(job: Job, model: Model, console: Console | None = None, engine: Engine = answer_shards) -> Outcome:
    """As `predict`, with a model that is loaded already."""
    work = Work(job.out)
    with work.lock():
        try:
            # Another one may have come to its end since the first check.
            work.check(job.resume, job.overwrite)
            return _answer(job, work, model, console, engine)
        except OSError as error:
            if work.kept():
                error.strerror = f"{error.strerror}; what is done is kept, --resume goes on from there"
            raise
        finally:
            if not work.kept():  # Nothing would be lost.
                work.remove()


def _answer(job: Job, work: Work, model: Model, console: Console | None, engine: Engine) -> Outcome:
    rows, said = open_rows(job, work, model)
    # Not before: an input that is refused costs no earlier job. Without its facts, nobody knows whose a shard is.
    if not (job.resume and work.begun):
        work.empty()
    plan = Plan(job.model, job.full, work, rows, job.source, job.strict)
    facts = {
        "version": FILES_FORMAT if isinstance(rows, FileRows) else FORMAT,
        "model": model.identity,
        "input": rows.identity(),
        "format": "full" if job.full else "submission",
    }
    work.begin(facts)
    if console:
        lines = [f"model: {job.model}", f"input: {rows.said}", *said, *([model.said] if job.full else [])]
        lines += [model.note] if model.note else []
        console.print(*lines, sep="\n", soft_wrap=True)
    spans = work.spans(len(rows))
    kept = work.kept()
    missing = [span for span in spans if span[0] not in kept]
    plan.check_strict(sorted(kept))
    with progress(console, len(rows), missing) as bar:
        for num_rows in engine(plan, model, missing):
            bar.advance(num_rows)
    lost = len(spans) - len(work.kept())
    if lost:
        rule = "every shard must arrive here: all machines must see the same files, by the same paths"
        raise UserError(f"{work.folder}: {rule}; --resume goes on. Found: {lost:,} of {len(spans):,} missing")
    num_bad = sum(1 for start, _ in spans for _ in work.bad_rows(start))
    work.finish(spans)
    return Outcome(sum(stop - start for start, stop in missing), num_bad, work.errors, bar.seconds)


def open_rows(job: Job, work: Work, model: Model) -> tuple[Rows, list[str]]:
    """The input of a job, and what should be said of it.

    Raises:
        UserError: it is no input, or not one for this model.
    """
    source = job.source
    if not source.exists():
        raise broken(source, "INPUT must exist", "no such file or folder")
    if source.is_dir():
        arrays = open_arrays(source, job.part, model.spec)
        if arrays is not None:
            return on_scale(arrays, model, job.force)
    elif source.suffix.lower() not in SUFFIXES:
        rule = "INPUT must be a folder, or a manifest that ends in .csv or .parquet"
        raise broken(source, rule, f"a file that ends in {source.suffix!r}")
    if job.part is not None:
        raise UserError(f"'part' must be left out unless INPUT has .npy files. Received: {job.part!r}")
    if not (job.resume and work.begun and work.listing.exists()):
        write_listing(work.listing, source)
    rows = open_listing(work.listing, source, source if source.is_dir() else source.parent)
    check_readable(rows, model)
    return rows, list(rows.notes)


def check_readable(rows: FileRows | FilesOf, model: Model) -> None:
    """Files must become what the training data were, or the answers would mean nothing."""
    for modality, reason in model.unreadable.items():
        if num := rows.num_with(modality):
            what = {"image": "picture", "audio": "sound"}[modality]
            rule = f"this model cannot read {what} files: {reason}"
            raise UserError(f"{model.folder}: {rule}. Found: {num:,} row{'s' * (num > 1)} with a {what}")
