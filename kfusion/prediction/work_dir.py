"""The folder beside the output in which a job's parts gather until all are there.

It holds:

    job.json                    what the job is: another one is not mixed with it
    rows.sqlite                 the rows of a manifest or a folder, as the job began with them
    shard-0000000.csv           answers to `SHARD_ROWS` rows; there whole or not at all
    shard-0000000.errors.csv    those of them that could not be answered; written before the answers
    whole.csv                   all of them joined, on its way to its place
"""

import contextlib
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd

from kfusion.data.tables import SUFFIXES, arrow
from kfusion.io import PARTIAL, read_json, write_atomically, write_json
from kfusion.prediction.outputs import join_parts, write_part
from kfusion.run_dir import LOCK, lock
from kfusion.validation import UserError

JOB, LISTING = "job.json", "rows.sqlite"
CONTENTS = (JOB, LISTING, LOCK, "shard-*", "whole.*", f"{PARTIAL}*")
"""All that a job writes into its folder."""
SHARD_ROWS = 8192
"""Rows of a shard: seconds of work, which is what a killed job loses at most."""


@dataclass(frozen=True)
class Work:
    """The folder of a job.

    Args:
        out: the output to be.
    """

    out: Path

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def errors(self) -> Path:
        """Where the rows without an answer are listed in the end."""
        return self.out.with_name(f"{self.out.stem}.errors.csv")

    @property
    def listing(self) -> Path:
        return self.folder / LISTING

    def kept(self) -> set[int]:
        """The first rows of the shards that are complete."""
        pattern = re.compile(rf"shard-(\d+){re.escape(self.out.suffix)}")
        found = (pattern.fullmatch(path.name) for path in self.folder.glob("shard-*"))
        return {int(match[1]) * SHARD_ROWS for match in found if match}

    @property
    def begun(self) -> bool:
        """Whether there is an unfinished job."""
        return (self.folder / JOB).is_file()

    def lock(self) -> Any:
        """Keeps a second program out, until the handle is closed."""
        return lock(self.folder)

    def check(self, resume: bool, overwrite: bool) -> None:
        """Nothing of a person's is replaced without being asked.

        Raises:
            UserError: the output is there, or an unfinished job; or such a file cannot be written.
        """
        if self.out.suffix not in SUFFIXES:
            raise UserError(f"'out' must end in {' or '.join(SUFFIXES)}. Received: '{self.out}'")
        if self.out.suffix == ".parquet":
            arrow()
        if not self.out.parent.is_dir():
            raise UserError(f"{self.out.parent}: the output's folder must exist. Found: no such folder")
        if self.out.is_dir():
            raise UserError(f"'out' must be a file. Received: '{self.out}', a folder")
        found = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        strange = [name for name in found if not _is_ours(name)]
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
        """Removes a job's files; what says that there is one goes first."""
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
            found = f"another {', '.join(changed)}"
            raise UserError(f"{self.folder}: '--resume' needs the job that was begun. Found: {found}")

    def spans(self, num_rows: int) -> list[tuple[int, int]]:
        """From which row up to which, for each shard."""
        return [(start, min(start + SHARD_ROWS, num_rows)) for start in range(0, num_rows, SHARD_ROWS)]

    def part(self, start: int) -> Path:
        return self.folder / f"shard-{start // SHARD_ROWS:07d}{self.out.suffix}"

    def part_errors(self, start: int) -> Path:
        return self.part(start).with_suffix(".errors.csv")

    def keep(self, start: int, answers: pd.DataFrame, errors: pd.DataFrame) -> None:
        """Keeps a shard; the answers last, since they tell that it is complete."""
        if len(errors):
            write_atomically(self.part_errors(start), lambda path: write_part(path, errors))
        else:  # Those of a job that was killed before it kept the answers.
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
