"""Parquet files, read and written in parts; the extra `parquet`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kfusion.data.checks import broken
from kfusion.rules import UserError


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet files need the extra: pip install 'kfusion[parquet]' (from a checkout: pip install "
            "'.[parquet]'). Found: no package pyarrow"
        ) from None
    return pyarrow


def column_names(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        UserError: it is no Parquet file.
    """
    pyarrow = arrow()
    try:
        return pyarrow.parquet.read_schema(path).names
    except pyarrow.ArrowException as error:
        raise broken(path, "must be a Parquet file", str(error).splitlines()[0]) from None


def batches(path: Path, names: Sequence[str], num_rows: int = 65536) -> Iterator[dict[str, list[Any]]]:
    """Some columns of a file, some rows at a time."""
    pyarrow = arrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(num_rows, columns=list(names)):
                yield batch.to_pydict()
    except pyarrow.ArrowException as error:
        raise broken(path, "must be a Parquet file", str(error).splitlines()[0]) from None


def write(path: Path, table: pd.DataFrame) -> None:
    """Writes one table."""
    pyarrow = arrow()
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(table, preserve_index=False), path)


def join(path: Path, parts: Sequence[Path]) -> None:
    """Writes one file with the rows of several, one after the other."""
    pyarrow = arrow()
    with pyarrow.parquet.ParquetWriter(path, pyarrow.parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(pyarrow.parquet.read_table(part))
