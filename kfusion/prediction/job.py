"""A job from its settings to its output: the steps of `python -m kfusion.predict`, for it and for programs.

The rows of a manifest or of a folder are noted in a small database, from which any of them can be read. Neither a
million names nor a sorted folder ever lie in memory, and a job that is resumed reads the rows that it began with.
"""

import errno
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from kfusion.data.columns import numbers, places_of
from kfusion.data.media_files import endings, file_columns
from kfusion.data.tables import IDS, NOTHING, SUFFIXES, Table, natural, open_table, shown
from kfusion.io import is_live, write_atomically
from kfusion.modalities import is_visible, kind_that_reads, modality
from kfusion.modalities.base import Modality
from kfusion.prediction.arrays import on_scale, open_arrays
from kfusion.prediction.engine import Plan, answer_shards, window_table
from kfusion.prediction.inputs import (
    FileRows,
    FilesOf,
    Rows,
    batch_rows,
    columns_in_sql,
    files_in,
    in_files,
    open_listing,
    visible_kind,
)
from kfusion.prediction.models import Model, load_model
from kfusion.prediction.outputs import Work, read_errors
from kfusion.spec import Caution, Spec
from kfusion.validation import UserError, broken, require


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
        windows: a CSV of the answers to each window of long files; None: none is written.
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
    windows: Path | None = None


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
    if job.windows:
        possible = job.windows.suffix == ".csv" and job.windows.parent.is_dir()
        require(possible, "windows", "a .csv file in a folder that exists", str(job.windows))
        replaced = job.resume or job.overwrite or not job.windows.exists()
        require(replaced, "windows", "a new file without --overwrite", str(job.windows))
    if job.resume and job.out.exists() and not work.begun:
        return Outcome(0, sum(1 for _ in read_errors(work.errors)), work.errors, None)
    return run_job(job, load_model(job.model, job.full or bool(job.windows), job.caution), console, engine)


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
    if job.windows and not isinstance(rows, FileRows):
        raise UserError(f"'windows' must be left out unless INPUT names files. Received: '{job.windows}'")
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
    if job.windows:
        write_atomically(job.windows, lambda partial: _write_windows(partial, model, rows))
    work.finish(spans)
    return Outcome(num_missing, num_bad, work.errors, time.monotonic() - start_s)


def _write_windows(path: Path, model: Model, rows: Rows) -> None:
    """The answers to all windows, batch by batch."""
    num = batch_rows(rows, model.spec)
    with path.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, len(rows), num):
            table = window_table(model, rows, start, min(start + num, len(rows)))
            table.to_csv(file, index=False, header=not start, float_format="%.6f", lineterminator="\n")


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


TABLE_ROWS = 4096
"""Rows of a table that are read at a time."""
Row = tuple[str | bytes | None, ...]
"""A file of each modality that may come in files, or the bytes of its numbers; and what the row is called, if anything
says it."""


def write_listing(
    listing: Path, source: Path, spec: Spec, columns: Mapping[str, str | list[str]] | None = None
) -> None:
    """Notes the rows of a manifest or of a folder in a database, in the input's order.

    Args:
        listing: the database to be.
        source: the manifest or folder.
        spec: the modalities of the model.
        columns: what the columns of a table are; see `data.columns.Columns`. None: they are called like the modalities.

    Raises:
        UserError: the manifest or the folder breaks a rule.
        OSError: the disk is full.
    """
    kinds: dict[str, Any] = in_files(spec)
    rows: Callable[..., Iterator[Row]] = _folder_rows if source.is_dir() else _manifest_rows
    if columns and not source.is_dir():
        kinds, rows = dict(columns), _table_rows
    if not kinds:
        raise broken(source, "INPUT must hold .npy files: nothing that this model takes comes in other files", "none")

    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            texts = "".join(f"{columns_in_sql((name,))} TEXT NOT NULL, " for name in kinds)
            database.execute(f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {texts}row_id TEXT)")
            database.execute("CREATE TABLE notes (note TEXT NOT NULL)")
            numbered = ((number, *row) for number, row in enumerate(rows(source, kinds, database)))
            database.executemany(f"INSERT INTO rows VALUES (?, {'?, ' * len(kinds)}?)", numbered)
            if not database.execute("SELECT 1 FROM rows").fetchone():
                raise broken(source, "must name at least one file", "no rows")

    try:
        write_atomically(listing, write)
    except sqlite3.OperationalError as error:
        raise OSError(errno.EIO, str(error), str(listing)) from None


def _note(database: sqlite3.Connection, note: str) -> None:
    database.execute("INSERT INTO notes VALUES (?)", (note,))


def _manifest_rows(source: Path, kinds: Mapping[str, Modality], database: sqlite3.Connection) -> Iterator[Row]:
    """The modalities' columns of a table, some of which may be missing, and the one that names the rows."""
    table = open_table(source)
    places, taken = file_columns(table, kinds)
    if not places:
        wanted = f"columns {' and '.join(kinds)}, or one of them" if len(kinds) > 1 else f"column {next(iter(kinds))}"
        raise broken(source, f"must have the {wanted}", shown(table.header))
    if taken:
        _note(database, f"columns of {source.name} are taken by their names: {', '.join(taken)}")
    id_place = table.id_place()
    for cells in table.rows([*places.values(), *([] if id_place is None else [id_place])]):
        files = {name: "" if text.casefold() in NOTHING else text for name, text in zip(places, cells, strict=False)}
        yield (*(files.get(name, "") for name in kinds), None if id_place is None else cells[-1])
    if id_place is not None:
        _check_ids(source, table, id_place, database)


def _table_rows(source: Path, columns: Mapping[str, str | list[str]], database: sqlite3.Connection) -> Iterator[Row]:
    """The files and numbers of a table's columns, and the column that names the rows."""
    table = open_table(source)
    listed = {name: [column] if isinstance(column, str) else column for name, column in columns.items()}
    there = {name: any(column in table.header for column in of_name) for name, of_name in listed.items()}
    if not any(there.values()):
        raise broken(source, "must have the columns of the training table", shown(table.header[:12]))
    places = {name: places_of(table, name, of_name) if there[name] else () for name, of_name in listed.items()}
    id_place = table.id_place()
    used = [*(place for of_name in places.values() for place in of_name), *([] if id_place is None else [id_place])]
    cells = table.rows(used)
    while block := list(islice(cells, TABLE_ROWS)):
        of_place = dict(zip(used, zip(*block, strict=True), strict=False))
        filled: list[Sequence[str | bytes | None]] = []
        for name, of_name in places.items():
            texts = [of_place[place] for place in of_name]
            if isinstance(columns[name], str):
                files = (
                    ["" if text.casefold() in NOTHING else text for text in texts[0]] if texts else [""] * len(block)
                )
                filled.append(files)
            else:
                values = numbers(table, name, listed[name], texts) if texts else _nothing(len(block), len(listed[name]))
                filled.append([row.tobytes() for row in values])
        yield from zip(*filled, [None] * len(block) if id_place is None else of_place[id_place], strict=True)
    if id_place is not None:
        _check_ids(source, table, id_place, database)


def _nothing(num_rows: int, num_values: int) -> np.ndarray:
    return np.full((num_rows, num_values), np.nan, np.float32)


def _check_ids(source: Path, table: Table, place: int, database: sqlite3.Connection) -> None:
    """What rows are called must tell them apart; an index that does not is none: the rows are numbered."""
    query = "SELECT row_id, count(*) AS num FROM rows GROUP BY row_id HAVING num > 1 OR row_id = '' LIMIT 1"
    for row_id, num in database.execute(query).fetchall():
        if table.names[place] in IDS:
            received = f"{row_id!r} in {num:,} row{'s' * (num > 1)}"
            raise broken(source, f"{table.header[place]} must be given, and another, in each row", received)
        database.execute("UPDATE rows SET row_id = NULL")


def _folder_rows(source: Path, kinds: Mapping[str, Modality], database: sqlite3.Connection) -> Iterator[Row]:
    """Files of one stem are one row; the rows are in the order of the stems, 2 before 10.

    A file of another format has its row too, and there the reason why it is not read; but beside a file of its stem and
    kind that can be read it is left out.
    """
    name_of = {kind.kind: name for name, kind in kinds.items()}
    if len(name_of) < len(kinds):
        rule = f"INPUT must be a manifest, since several of {', '.join(kinds)} are of one kind"
        raise broken(source, rule, "a folder of files")
    database.execute("CREATE TEMP TABLE media (stem TEXT, place TEXT, modality TEXT, name TEXT, is_read INTEGER)")
    database.execute("CREATE UNIQUE INDEX temp.one ON media (stem, modality) WHERE is_read")
    folders, others = [], []
    for name, entry in files_in(source):
        stem, kind = os.path.splitext(name)[0], visible_kind(entry.name)
        if kind in name_of:
            values = (stem, natural(stem), name_of[kind], name, kind_that_reads(name) == kind)
            try:
                database.execute("INSERT INTO media VALUES (?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError:
                rule = f"must hold one {kinds[name_of[kind]].file_noun} for each stem"
                raise broken(source, rule, f"two of {stem!r}") from None
        elif kind:
            others.append(name)
        elif is_visible(entry.name) and entry.is_dir():
            folders.append(name)
    if not database.execute("SELECT 1 FROM media").fetchone():
        names = sorted(path.name for path in islice(source.iterdir(), 8))
        *formats, last = [word for kind in kinds.values() for word in kind.formats.split(" or ")]
        words = f"{', '.join(formats)} and {last}" if formats else last
        rule = f"INPUT must hold the .npy files of a layout, or {words} files"
        raise broken(source, rule, ", ".join(names) or "an empty folder")
    if folders:
        few = ", ".join(map(repr, sorted(folders)[:3])) + (" …" if len(folders) > 3 else "")
        _note(database, f"folders in INPUT are not looked into: {len(folders):,} ({few})")
    if others:
        _note(database, f"files of what the model does not take are left out: {endings(others)}")
    order = "row_number() OVER (PARTITION BY stem, modality ORDER BY is_read DESC, name)"
    ranked = f"(SELECT *, {order} AS rank FROM media)"
    if left := endings(name for (name,) in database.execute(f"SELECT name FROM {ranked} WHERE rank > 1")):
        _note(database, f"files are left out beside another of their stem: {left}")
    columns = ", ".join(f"max(CASE modality WHEN '{name}' THEN name ELSE '' END)" for name in kinds)
    yield from database.execute(
        f"SELECT {columns}, NULL FROM {ranked} WHERE rank = 1 GROUP BY place, stem ORDER BY place, stem"
    )
