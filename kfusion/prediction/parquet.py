"""Parquet files, written in parts; the extra `parquet`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kfusion.data.tables import arrow


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
