"""Answers as a table, and tables as files: CSV or Parquet, in parts that are joined at the end."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kfusion.prediction import parquet
from kfusion.prediction.stream import Votes
from kfusion.spec import FUSED, MODALITIES

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
        parquet.write(path, table)
    else:
        table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def join_parts(path: Path, parts: Sequence[Path]) -> None:
    """Writes the whole output from its parts, in their order; memory holds one of them at most."""
    if path.suffix == ".parquet":
        parquet.join(path, parts)
        return
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            with part.open("rb") as opened:
                if number:
                    opened.readline()  # The header, which the first part has brought.
                shutil.copyfileobj(opened, file, 1 << 20)
