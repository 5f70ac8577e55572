"""One version of a model, from its folder to its end: loaded, asked, drained and closed."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kfusion.rules import UserError
from kfusion.runtime.capi import Refused
from kfusion.runtime.model import ServedModel
from kfusion.runtime.saved_model import Signature
from kfusion.serving.warm import warmup_requests

STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
"""TensorFlow Serving's, in the order in which a version passes through them."""


class Version:
    """A version and the state it is in; all but `load` and `ask` belong to the event loop's thread."""

    def __init__(self, root: Path, number: int) -> None:
        self.number, self.folder = number, root / str(number)
        self.state = "START"
        self.error = ""
        self.damaged: set[str] = set()
        """Names of files beside the model that could not be read, and of which the log has told."""
        self._root = root
        self._model: ServedModel | None = None
        self._held = 0
        self._free = asyncio.Event()
        self._free.set()

    def load(self) -> None:
        """Reads the SavedModel and warms it up; in a thread, since it takes seconds.

        Raises:
            UserError: it cannot be loaded, does not answer its own warm-up requests, or a file of it lies outside the
                model's folder.
        """
        check_inside(self.folder, self._root)
        try:
            self._model = ServedModel(self.folder)
            for signature, inputs in warmup_requests(self.folder):
                self._model.ask(signature, inputs)
        except BaseException as error:
            self.close()
            if isinstance(error, Refused | ValueError | KeyError):
                raise UserError(str(error)) from error
            raise

    @property
    def signatures(self) -> dict[str, Signature]:
        return self._model.signatures if self._model else {}

    def ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run of the model, in a thread of the pool, while the version is held.

        Raises:
            Refused: the runtime's error.
        """
        if self._model is None:
            raise UserError(f"version {self.number} is not loaded")
        return self._model.ask(signature, inputs)

    def hold(self) -> None:
        """Keeps the version from being closed."""
        self._held += 1
        self._free.clear()

    def release(self) -> None:
        """Ends one `hold`."""
        self._held -= 1
        if not self._held:
            self._free.set()

    async def drained(self) -> None:
        """Until nobody holds the version."""
        await self._free.wait()

    def close(self) -> None:
        """Gives the memory back; only once drained."""
        model, self._model = self._model, None
        if model:
            model.close()


Fingerprint = tuple[tuple[str, ...], ...]


def fingerprint(folder: Path, root: Path) -> Fingerprint:
    """Name, size and times of every file and folder of a version: what tells that any of them has changed.

    Args:
        folder: the version's.
        root: the model's; what a link leads to outside of it is not looked at.
    """
    found = []
    if folder.resolve().is_relative_to(root.resolve()):
        for above, folders, files in os.walk(folder):
            for path in (Path(above, name) for name in (*folders, *files)):
                try:
                    state = path.lstat()
                except OSError:  # Gone since it was listed, or not to be seen.
                    continue
                # The last one tells of a change of permissions too.
                facts = state.st_size * stat.S_ISREG(state.st_mode), state.st_mtime_ns, state.st_ctime_ns
                found.append((str(path.relative_to(folder)), *map(str, facts)))
    return tuple(sorted(found))


def check_inside(folder: Path, root: Path) -> None:
    """Every file of a version must lie below the model's own folder, wherever links lead.

    Raises:
        UserError: one does not.
    """
    inside = root.resolve()
    for path in (folder, *folder.rglob("*")):
        if not path.resolve().is_relative_to(inside):
            name = path.relative_to(root)
            raise UserError(f"{name}: must lie inside the model's folder. Found: a link that leads out of it")
