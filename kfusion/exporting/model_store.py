"""A version of a model appears under its name complete, by rename, or not at all.

    saved_models/kfusion/1/               a version; a server takes the highest number
    saved_models/kfusion/.partial-x7k2/   one that is being made; its lock is held by who makes it

TensorFlow Serving passes over names that are no numbers.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kfusion.exporting.runtimes import FORMATS
from kfusion.io import PARTIAL
from kfusion.validation import UserError

LOCK = ".lock"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelStore:
    """The folder of a model's versions.

    Args:
        root: where models are kept.
        name: of the model, as a server's clients write it into an address.

    Raises:
        UserError: the name is none, or the root is a file.
    """

    root: Path
    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(f"'name' must be letters, digits, '.', '_' and '-'. Received: {self.name!r}")
        for path in (self.root, self.folder):
            if path.exists() and not path.is_dir():
                raise UserError(f"{path}: exported models need a folder. Found: a file")

    @property
    def folder(self) -> Path:
        """The folder of this model's versions."""
        return self.root / self.name

    def versions(self) -> list[int]:
        """The numbers that are taken, ascending."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def check_free(self, version: int) -> None:
        """Requires that a version does not exist yet.

        Raises:
            UserError: it exists.
        """
        if version in self.versions():
            raise UserError(f"{self.folder / str(version)}: an existing version is kept; choose another --version")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder beside the versions to make one in; removed at the end, or by the next export after a kill."""
        with self._alone():
            for left in self.folder.glob(f"{PARTIAL}*"):
                if _abandoned(left):
                    shutil.rmtree(left, ignore_errors=True)
            place = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            handle = (place / LOCK).open("ab")
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            handle.close()

    def publish(self, made: Path, version: int | None) -> Path:
        """Puts a finished folder from `staging` in its place.

        Args:
            made: the folder; all of it is on the disk before it gets its name.
            version: its number; None: the next after the highest.

        Returns:
            The version's folder.

        Raises:
            UserError: the version exists.
        """
        made.chmod(0o755)
        for path in (*made.rglob("*"), made):
            _flush(path)
        with self._alone():
            if version is not None:
                self.check_free(version)
            place = self.folder / str(version or max(self.versions(), default=0) + 1)
            made.rename(place)
            _flush(self.folder)
        return place

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block, other exports of the same name wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def store_of(root: Path, name: str, format: str) -> ModelStore:
    """Where versions of a format go: those that are no SavedModels into a folder of their own.

    Args:
        root: where models are kept.
        name: the model's.
        format: one of `FORMATS`.

    Raises:
        UserError: the name is none, or the root is a file.
    """
    return ModelStore(root, f"{name}-{format}" if FORMATS[format].file else name)


def _abandoned(place: Path) -> bool:
    """Whether nobody holds the lock in a staging folder any more."""
    try:
        with (place / LOCK).open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    """Waits until a file or a folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
