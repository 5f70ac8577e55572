"""A job from its settings to its output: the steps of `python -m kfusion.predict`, for it and for programs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from kfusion.data.tables import SUFFIXES
from kfusion.io import is_live
from kfusion.modalities import modality
from kfusion.prediction.arrays import on_scale, open_arrays
from kfusion.prediction.engine import Plan, answer_shards
from kfusion.prediction.inputs import FileRows, FilesOf, Rows, open_listing
from kfusion.prediction.listing import write_listing
from kfusion.prediction.models import Model, load_model
from kfusion.prediction.outputs import Work, read_errors
from kfusion.spec import Caution
from kfusion.validation import UserError, broken


class RowsPerSecond(ProgressColumn):
    """The recent speed."""

    def render(self, task: Task) -> Text:
        """Rows a second; nothing before the first are done."""
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")


@contextmanager
def progress(console: Console | None, num_rows: int, num_done: int) -> Iterator[Callable[[int], None]]:
    """Within the block, a bar; it is gone afterwards. A pipe or a file gets nothing.

    Args:
        console: where it is shown; None: nowhere.
        num_rows: of the whole input.
        num_done: rows that are answered already.

    Yields:
        A function that is called with the number of rows that are done more.
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
        task = bar.add_task("rows", total=num_rows, completed=num_done)
        yield lambda num: bar.advance(task, num)


FEW_ROWS = 1000
"""Up to so many, TensorFlow's optimization of the graphs takes longer than it saves."""


@contextmanager
def optimized(num_rows: int) -> Iterator[None]:
    """Within the block, few rows are answered by graphs as they are, which starts sooner; many by optimized ones.

    Args:
        num_rows: of the whole input.
    """
    tensorflow = sys.modules.get("tensorflow")  # An exported version runs without it.
    if tensorflow is None or num_rows > FEW_ROWS:
        yield
        return
    settings, name = tensorflow.config.optimizer, "disable_meta_optimizer"
    before = settings.get_experimental_options().get(name, False)
    settings.set_experimental_options({name: True})
    try:
        yield
    finally:
        settings.set_experimental_options({name: before})


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
        caution: how much a run's network is to be trusted; None: as usual, or as a version was exported.
        abstain: give no label where nothing of a row is familiar.
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
    caution: Caution | None = None
    abstain: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

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
        job: what to predict.
        console: where progress is shown; None: nowhere.
        engine: what answers the shards.

    Raises:
        UserError: the model, the input or the output break a rule, or a row does and the job is strict.
    """
    work = Work(job.out)
    work.check(job.resume, job.overwrite)
    if job.resume and job.out.exists() and not work.begun:
        return Outcome(0, sum(1 for _ in read_errors(work.errors)), work.errors, None)
    return run_job(job, load_model(job.model, job.full, job.caution), console, engine)


def run_job(job: Job, model: Model, console: Console | None = None, engine: Engine = answer_shards) -> Outcome:
    """As `predict`, with a model that is loaded already.

    Args:
        job: what to predict.
        model: of `job.model`.
        console: where progress is shown; None: nowhere.
        engine: what answers the shards.
    """
    work = Work(job.out)
    with work.lock():
        try:
            # Another one may have come to its end since the first check.
            work.check(job.resume, job.overwrite)
            return _answer(job, work, model, console, engine)
        except OSError as error:
            if work.complete():
                error.strerror = f"{error.strerror}; what is done is kept, --resume goes on from there"
            raise
        finally:
            if not work.complete():  # Nothing would be lost.
                work.remove()


def _answer(job: Job, work: Work, model: Model, console: Console | None, engine: Engine) -> Outcome:
    rows, notes = open_rows(job, work, model)
    # Not before: an input that is refused costs no earlier job. Without its facts, nobody knows whose a shard is.
    if not (job.resume and work.begun):
        work.empty()
    plan = Plan(job.model, job.full, work, rows, job.source, job.strict, job.caution, job.abstain)
    facts = {
        "version": FILES_FORMAT if isinstance(rows, FileRows) else FORMAT,
        "model": model.identity,
        "input": rows.identity(),
        "format": "full" if job.full else "submission",
        **({"abstain": True} if job.abstain else {}),
    }
    work.begin(facts)
    if console:
        lines = [f"model: {job.model}", f"input: {rows.description}", *notes]
        lines += [model.confidence_note] if job.full else []
        console.print(*lines, *filter(None, [model.note]), sep="\n", soft_wrap=True)
    spans = work.spans(len(rows))
    complete = work.complete()
    missing = [span for span in spans if span[0] not in complete]
    num_missing = sum(stop - start for start, stop in missing)
    plan.check_strict(sorted(complete))
    with optimized(len(rows)), progress(console, len(rows), len(rows) - num_missing) as advance:
        start_s = time.monotonic()
        for num_rows in engine(plan, model, missing):
            advance(num_rows)
    lost = len(spans) - len(work.complete())
    if lost:
        rule = "every shard must arrive here: all machines must see the same files, by the same paths"
        raise UserError(f"{work.folder}: {rule}; --resume goes on. Found: {lost:,} of {len(spans):,} missing")
    num_bad = sum(1 for start, _ in spans for _ in work.bad_rows(start))
    work.finish(spans)
    return Outcome(num_missing, num_bad, work.errors, time.monotonic() - start_s)


def open_rows(job: Job, work: Work, model: Model) -> tuple[Rows, list[str]]:
    """The input of a job, and lines about it for the terminal.

    Args:
        job: what to predict.
        work: its folder.
        model: what is to answer it.

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
        rule = f"INPUT must be a folder, or a manifest that ends in {', '.join(SUFFIXES)}"
        raise broken(source, rule, f"a file that ends in {source.suffix!r}")
    if job.part is not None:
        raise UserError(f"'part' must be left out unless INPUT has .npy files. Received: {job.part!r}")
    if not (job.resume and work.begun and work.listing.exists()):
        write_listing(work.listing, source, model.spec, model.columns_of_tables)
    rows = open_listing(work.listing, source, model.spec, model.columns_of_tables)
    check_readable(rows, model)
    return rows, list(rows.notes)


def check_readable(rows: FileRows | FilesOf, model: Model) -> None:
    """Files must become what the training data were, or the predictions would mean nothing.

    Args:
        rows: the input.
        model: what is to answer it.

    Raises:
        UserError: a row has a file that the model cannot read.
    """
    for name, reason in model.unreadable.items():
        if num := rows.num_with(name):
            kind = modality(model.spec[name])
            noun = kind.file_noun if kind.suffixes else name
            instead = f"give it arrays like those that it was trained on: {{'{name}': …}}, or {kind.array_file}"
            rule = f"this model cannot read {noun} files: {reason}; {instead}"
            raise UserError(f"{model.folder}: {rule}. Found: {num:,} row{'s' * (num > 1)} with a {noun}")
