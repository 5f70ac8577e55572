"""Predictions as tables, the shards of them that a job keeps, and the one file, CSV or Parquet, that they become.

The folder beside the output, in which a job's shards gather until all of them are complete, holds:

    job.json                    what the job is: another one is not mixed with it
    rows.sqlite                 the rows of a manifest or a folder, as the job began with them
    shard-0000000.csv           predictions of `SHARD_ROWS` rows; complete or missing
    shard-0000000.errors.csv    those of them that could not be answered; written before the predictions
    whole.csv                   all of them joined, on its way to its place
"""

import contextlib
import csv
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfusion.data.tables import arrow
from kfusion.io import PARTIAL, read_json, write_atomically, write_json
from kfusion.run_dir import LOCK, lock
from kfusion.spec import FUSED, SHARES
from kfusion.validation import UserError

JOB, LISTING = "job.json", "rows.sqlite"
CONTENTS = (JOB, LISTING, LOCK, "shard-*", "whole.*", f"{PARTIAL}*")
"""All that a job writes into its folder."""
SHARD_ROWS = 8192
"""Rows of a shard: seconds of work, which is what a killed job loses at most."""
Probabilities = dict[str, np.ndarray]
"""(n, num_classes) by view: `FUSED`, and each modality's own where all views are wanted; and `TRUSTED` and `SHARES` by
their names, where the model has them, as `model.answers.Answers` gives them."""
FileNames = Mapping[str, Sequence[str]] | None
"""The files of some rows by modality, "" where a row has none; None where the input has none."""


@dataclass(eq=False)
class Votes:
    """The predictions for some rows.

    Args:
        start: the first row's number.
        label: for each view int (n,): the class, or -1 where there is no prediction.
        confidence: for each view float (n,): its probability; NaN where there is no prediction.
        reason: for each row why it was not answered, or "".
        trust: `TRUSTED` and `SHARES` by their names, where the model has them.
    """

    start: int
    label: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    reason: list[str]
    trust: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reason)

    def agree(self) -> pd.Series:
        """Whether all modalities that a row has name one class; missing where it has fewer than two."""
        label = np.array([values for view, values in self.label.items() if view != FUSED])
        present = label >= 0
        one_class = ((label == label.max(axis=0)) | ~present).all(axis=0)
        return pd.Series(one_class, dtype="boolean").mask(present.sum(axis=0) < 2)


def answer_table(
    votes: Votes,
    files: FileNames,
    class_names: Sequence[str],
    full: bool,
    ids: list[str] | None = None,
    abstain: bool = False,
) -> pd.DataFrame:
    """One row for each row of the input.

    Args:
        votes: the predictions.
        files: the rows' files.
        class_names: one name for each class.
        full: not the submission's two columns, but all that is known.
        ids: what the rows are called in the input; None: they are numbered from 0.
        abstain: give no label where nothing of a row is familiar.

    Returns:
        `row_id`, `label`, and the files of numbered rows, since nothing else tells which they are; where `full`, the
        files of all, the confidence, each modality's vote, whether these agree, and what `trust_columns` gives. A label
        without a prediction is missing, as is the vote of an absent modality.
    """
    columns = {"row_id": _ids(votes, ids)}
    refused = abstain and "accepted" in votes.trust
    fused = np.where(votes.trust["accepted"], votes.label[FUSED], -1) if refused else votes.label[FUSED]
    if not full:
        columns["label"] = _names_of(fused, class_names)
        return pd.DataFrame(columns | _files(files if ids is None else None))
    columns |= _files(files)
    for view, label in {**votes.label, FUSED: fused}.items():
        prefix = "" if view == FUSED else f"{view}_"
        columns[f"{prefix}label"] = _names_of(label, class_names)
        columns[f"{prefix}confidence"] = pd.Series(votes.confidence[view].astype(np.float64))
    return pd.DataFrame(columns | {"agree": votes.agree()} | trust_columns(votes, class_names))


def trust_columns(votes: Votes, class_names: Sequence[str]) -> dict[str, pd.Series]:
    """How far each answer is to be trusted; nothing of a model that does not know.

    Args:
        votes: the predictions, with those of each modality.
        class_names: one name for each class.

    Returns:
        `accepted`; `rests_on`, the modalities, and `prediction_set`, the classes, joined by "|"; and for each modality
        `{name}_familiarity` and `{name}_share`. What a row does not have is missing.
    """
    names, columns = [view for view in votes.label if view != FUSED], dict[str, pd.Series]()
    answered = votes.label[FUSED] >= 0

    def joined(flags: np.ndarray, words: Sequence[str]) -> pd.Series:
        texts = ["|".join(word for word, flag in zip(words, row, strict=True) if flag) for row in flags]
        return pd.Series(texts, dtype="string").mask(~answered)

    if "accepted" in votes.trust:
        columns["accepted"] = pd.Series(votes.trust["accepted"], dtype="boolean").mask(~answered)
        columns["rests_on"] = joined(votes.trust["used"], names)
        columns["prediction_set"] = joined(votes.trust["prediction_set"], class_names)
    for place, name in enumerate(names):
        for ending, output in (("familiarity", "familiarity"), ("share", SHARES)):
            if output in votes.trust:
                values = votes.trust[output][:, place].astype(np.float64)
                columns[f"{name}_{ending}"] = pd.Series(values).mask(votes.label[name] < 0)
    return columns


def error_table(votes: Votes, files: FileNames, ids: list[str] | None = None) -> pd.DataFrame:
    """The rows that were not answered: `row_id`, their files, `reason`.

    Args:
        votes: the predictions.
        files: the rows' files.
        ids: as of `answer_table`.
    """
    columns = {"row_id": _ids(votes, ids), **_files(files), "reason": pd.Series(votes.reason, dtype="string")}
    return pd.DataFrame(columns)[[bool(reason) for reason in votes.reason]]


def _ids(votes: Votes, ids: list[str] | None) -> pd.Series:
    """The rows' own ids as texts, which keep their zeros; else their numbers."""
    if ids is not None:
        return pd.Series(ids, dtype="string")
    return pd.Series(np.arange(votes.start, votes.start + len(votes)))


def _files(files: FileNames) -> dict[str, pd.Series]:
    return {name: pd.Series(column, dtype="string") for name, column in (files or {}).items()}


def _names_of(label: np.ndarray, class_names: Sequence[str]) -> pd.Series:
    """Names, missing where the label is -1; where the classes are called 0, 1, … as numbers."""
    if tuple(class_names) == tuple(map(str, range(len(class_names)))):
        return pd.Series(label, dtype="Int64").mask(label < 0)
    return pd.Series([class_names[code] if code >= 0 else pd.NA for code in label], dtype="string")


def write_part(path: Path, table: pd.DataFrame) -> None:
    """Writes a part of the output, a table of its own.

    Args:
        path: the file; `.parquet` needs the extra `parquet`.
        table: its rows.
    """
    if path.suffix == ".parquet":
        pyarrow = arrow()
        pyarrow.parquet.write_table(pyarrow.Table.from_pandas(table, preserve_index=False), path)
    else:
        table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def join_parts(path: Path, parts: Sequence[Path]) -> None:
    """Writes the whole output from its parts; memory holds one of them at most.

    Args:
        path: the file.
        parts: from `write_part`, in their order.
    """
    if path.suffix == ".parquet":
        pyarrow = arrow()
        with pyarrow.parquet.ParquetWriter(path, pyarrow.parquet.read_schema(parts[0])) as writer:
            for part in parts:
                writer.write_table(pyarrow.parquet.read_table(part))
        return
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            with part.open("rb") as opened:
                if number:
                    opened.readline()  # The header, which the first part has brought.
                shutil.copyfileobj(opened, file, 1 << 20)


@dataclass(frozen=True)
class Work:
    """The folder of a job.

    Args:
        out: the output to be.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Beside the output."""
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def errors(self) -> Path:
        """Where the rows without a prediction are listed in the end."""
        return self.out.with_name(f"{self.out.stem}.errors.csv")

    @property
    def listing(self) -> Path:
        """The database of the rows of a manifest or folder."""
        return self.folder / LISTING

    def complete(self) -> set[int]:
        """The first rows of the shards that are complete."""
        pattern = re.compile(rf"shard-(\d+){re.escape(self.out.suffix)}")
        matches = (pattern.fullmatch(path.name) for path in self.folder.glob("shard-*"))
        return {int(match[1]) * SHARD_ROWS for match in matches if match}

    @property
    def begun(self) -> bool:
        """Whether there is an unfinished job."""
        return (self.folder / JOB).is_file()

    def lock(self) -> Any:
        """Keeps a second program out, until the handle is closed."""
        return lock(self.folder)

    def check(self, resume: bool, overwrite: bool) -> None:
        """Makes sure that nothing of a person's is replaced without `overwrite`.

        Args:
            resume: an unfinished job may exist.
            overwrite: anything of an earlier job may exist.

        Raises:
            UserError: the output exists, or an unfinished job; or such a file cannot be written.
        """
        if self.out.suffix not in (".csv", ".parquet"):
            raise UserError(f"'out' must end in .csv or .parquet. Received: '{self.out}'")
        if self.out.suffix == ".parquet":
            arrow()
        if not self.out.parent.is_dir():
            raise UserError(f"{self.out.parent}: the output's folder must exist. Found: no such folder")
        if self.out.is_dir():
            raise UserError(f"'out' must be a file. Received: '{self.out}', a folder")
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        strange = [name for name in names if not _is_ours(name)]
        if strange:
            raise UserError(f"{self.folder}: a job needs a folder of its own. Found: {', '.join(strange[:3])}")
        if resume or overwrite:
            return
        if self.begun:
            self.lock().close()  # One that is running is not an unfinished one.
            rule = "an unfinished job is kept; --resume or --overwrite it, or choose another --out"
            raise UserError(f"{self.folder}: {rule}")
        for path in (self.out, self.errors):
            if path.exists():
                raise UserError(f"{path}: existing predictions are kept; --overwrite them or choose another --out")

    def empty(self, but: tuple[str, ...] = (LOCK, LISTING)) -> None:
        """Removes a job's files but those of some names; the one that says that there is a job goes first."""
        (self.folder / JOB).unlink(missing_ok=True)
        for path in self.folder.glob("*"):
            if path.name not in but and _is_ours(path.name):
                path.unlink()

    def remove(self) -> None:
        """Removes the folder too, unless somebody has put something else into it."""
        self.empty(but=())
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def begin(self, facts: dict[str, Any]) -> None:
        """Notes what the job is, or makes sure that it is the one that was begun.

        Raises:
            UserError: it is another.
        """
        path = self.folder / JOB
        if not path.is_file():
            write_json(path, facts)
            return
        old = read_json(path)
        changed = [name for name in facts if not isinstance(old, dict) or old.get(name) != facts[name]]
        if changed:
            received = f"another {', '.join(changed)}"
            raise UserError(f"{self.folder}: '--resume' needs the job that was begun. Found: {received}")

    def spans(self, num_rows: int) -> list[tuple[int, int]]:
        """From which row up to which, for each shard."""
        return [(start, min(start + SHARD_ROWS, num_rows)) for start in range(0, num_rows, SHARD_ROWS)]

    def part(self, start: int) -> Path:
        """The predictions of the shard that begins with a row."""
        return self.folder / f"shard-{start // SHARD_ROWS:07d}{self.out.suffix}"

    def part_errors(self, start: int) -> Path:
        """The bad rows of the shard that begins with a row."""
        return self.part(start).with_suffix(".errors.csv")

    def keep(self, start: int, answers: pd.DataFrame, errors: pd.DataFrame) -> None:
        """Writes a shard; the predictions last, since they tell that it is complete.

        Args:
            start: its first row.
            answers: from `answer_table`.
            errors: from `error_table`.
        """
        if len(errors):
            write_atomically(self.part_errors(start), lambda path: write_part(path, errors))
        else:  # Those of a job that was killed before it wrote the predictions.
            self.part_errors(start).unlink(missing_ok=True)
        write_atomically(self.part(start), lambda path: write_part(path, answers))

    def bad_rows(self, start: int) -> Iterator[tuple[str, str]]:
        """Number and reason of each row of a shard that was not answered."""
        return read_errors(self.part_errors(start))

    def finish(self, spans: list[tuple[int, int]]) -> None:
        """Joins the shards and puts the output in place; the folder goes last, so that a kill loses nothing."""
        errors = [path for path in (self.part_errors(start) for start, _ in spans) if path.exists()]
        self._join([self.part(start) for start, _ in spans], whole := self.folder / f"whole{self.out.suffix}")
        if errors:
            self._join(errors, errors_whole := self.folder / "whole.errors.csv")
            errors_whole.replace(self.errors)
        else:
            self.errors.unlink(missing_ok=True)
        whole.replace(self.out)
        self.remove()

    def _join(self, parts: list[Path], whole: Path) -> None:
        # In the job's folder: what a kill leaves behind must not lie among a person's files.
        write_atomically(whole, lambda path: join_parts(path, parts))


def _is_ours(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in CONTENTS)


def read_errors(path: Path) -> Iterator[tuple[str, str]]:
    """Number and reason of each row that is listed in a file of errors; none where there is no file."""
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            yield from ((row["row_id"], row["reason"]) for row in csv.DictReader(file))
