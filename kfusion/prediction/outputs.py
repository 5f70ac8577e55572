"""Answers as a table, and tables as files: CSV or Parquet, in parts that are joined at the end.

Parquet files, written in parts; the extra `parquet`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kfusion.data.tables import arrow
from kfusion.spec import FUSED, MODALITIES

Answers = dict[str, np.ndarray]


@dataclass(eq=False)
class Votes:
    """The answers to some rows.

    Args:
        start: the first row's number.
        label: for each view int (n,): the class, or -1 where there is no answer.
        confidence: for each view float (n,): its probability.
        reason: one text a row: why it was not answered, or "".
    """

    start: int
    label: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    reason: list[str]

    def __len__(self) -> int:
        return len(self.reason)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Writes one table."""
    pyarrow = arrow()
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(table, preserve_index=False), path)


def join_parquet(path: Path, parts: Sequence[Path]) -> None:
    """Writes one file with the rows of several, one after the other."""
    pyarrow = arrow()
    with pyarrow.parquet.ParquetWriter(path, pyarrow.parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(pyarrow.parquet.read_table(part))


Names = list[tuple[str, str]] | None
"""The files of some rows, a picture and a sound each; None where the input has none."""


def answer_table(
    votes: Votes, names: Names, class_names: Sequence[str], full: bool, ids: list[str] | None = None
) -> pd.DataFrame:
    """One row for each row of the input.

    Args:
        votes: the answers.
        names: the rows' files.
        class_names: one name for each class.
        full: not the submission's two columns, but all that is known.
        ids: what the rows are called in the input; None: they are numbered from 0.

    Returns:
        `row_id`, `label`, and the files of numbered rows, since nothing else tells which they are; where `full`, the
        files of all, the confidence, each modality's vote, whether the two agree. What is not there is missing: a label
        without an answer, the vote of an absent modality.
    """
    columns = {"row_id": _ids(votes, ids)}
    if not full:
        columns["label"] = _names_of(votes.label[FUSED], class_names)
        return pd.DataFrame(columns | _files(names if ids is None else None))
    columns |= _files(names)
    for view in (FUSED, *MODALITIES):
        prefix = "" if view == FUSED else f"{view}_"
        columns[f"{prefix}label"] = _names_of(votes.label[view], class_names)
        columns[f"{prefix}confidence"] = pd.Series(votes.confidence[view].astype(np.float64))
    one, other = (votes.label[name] for name in MODALITIES)
    columns["agree"] = pd.Series(one == other, dtype="boolean").mask((one < 0) | (other < 0))
    return pd.DataFrame(columns)


def error_table(votes: Votes, names: Names, ids: list[str] | None = None) -> pd.DataFrame:
    """The rows that were not answered: `row_id`, their files, `reason`; the arguments are those of `answer_table`."""
    columns = {"row_id": _ids(votes, ids), **_files(names), "reason": pd.Series(votes.reason, dtype="string")}
    return pd.DataFrame(columns)[[bool(reason) for reason in votes.reason]]


def _ids(votes: Votes, ids: list[str] | None) -> pd.Series:
    """The rows' own ids as texts, which keep their zeros; else their numbers."""
    if ids is not None:
        return pd.Series(ids, dtype="string")
    return pd.Series(np.arange(votes.start, votes.start + len(votes)))


def _files(names: Names) -> dict[str, pd.Series]:
    if names is None:
        return {}
    return {
        modality: pd.Series([row[index] for row in names], dtype="string") for index, modality in enumerate(MODALITIES)
    }


def _names_of(label: np.ndarray, class_names: Sequence[str]) -> pd.Series:
    """Names, missing where the label is -1; where the classes are called 0, 1, … as numbers."""
    if tuple(class_names) == tuple(map(str, range(len(class_names)))):
        return pd.Series(label, dtype="Int64").mask(label < 0)
    return pd.Series([class_names[each] if each >= 0 else pd.NA for each in label], dtype="string")


def write_part(path: Path, table: pd.DataFrame) -> None:
    """Writes a part of the output, a table of its own."""
    if path.suffix == ".parquet":
        write_parquet(path, table)
    else:
        table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def join_parts(path: Path, parts: Sequence[Path]) -> None:
    """Writes the whole output from its parts, in their order; memory holds one of them at most."""
    if path.suffix == ".parquet":
        join_parquet(path, parts)
        return
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            with part.open("rb") as opened:
                if number:
                    opened.readline()  # The header, which the first part has brought.
                shutil.copyfileobj(opened, file, 1 << 20)
