"""A job from its settings to its output: the steps of `python -m kfusion.predict`, for it and for programs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from kfusion.data.checks import broken
from kfusion.data.tables import SUFFIXES
from kfusion.prediction.arrays import open_arrays
from kfusion.prediction.chunks import Rows
from kfusion.prediction.listing import FileRows, open_listing, write_listing
from kfusion.prediction.memory import FilesOf
from kfusion.prediction.models import Model, load_model
from kfusion.prediction.progress import progress
from kfusion.prediction.scale import on_scale
from kfusion.prediction.shards import Plan, answer_shards
from kfusion.prediction.work import Work, read_errors
from kfusion.rules import UserError

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
