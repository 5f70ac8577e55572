"""The served model: watches its folder, loads new versions, and drains those that are no longer wanted.

A new version is loaded beside the old one, takes the new requests when it is ready, and only then the old one is let go
and closed, when its last request has been answered: no request falls between two versions.

A version may also be copied into its place file by file. It counts when it is whole and has answered its warm-up
requests: as long as anything else answers, it is not loaded before two looks have found the same files; what fails to
load is passed over, so that the best of the others stay, and is looked at again when any of its files changes.

One version of a model, from its folder to its end: loaded, asked, drained and closed.

The warm-up requests that come with a version, read without TensorFlow: a model's first runs are its slowest.

Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import asyncio
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kfusion.runtime.c_api import Refused, ServedModel
from kfusion.runtime.protos import ASSETS, SAVED_MODEL_FILE, Signature, message, read_array
from kfusion.serving.middleware import Refusal
from kfusion.validation import UserError

WARMUP_FILE = Path(ASSETS, "tf_serving_warmup_requests")
MAX_REQUESTS = 1000
"""As many as TensorFlow Serving reads."""


def warmup_requests(folder: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Signature and inputs of each warm-up request of a version; none where it brings none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / WARMUP_FILE
    if not path.is_file():
        return
    content = path.read_bytes()
    start = number = 0
    while start < len(content) and number < MAX_REQUESTS:
        try:
            # TFRecord: the length, its checksum, the record, its checksum.
            (length,) = struct.unpack_from("<Q", content, start)
            record = content[start + 12 : start + 12 + length]
            asked = message("PredictionLog").FromString(record).predict_log.request
        except Exception as error:  # protobuf's own error has no public base class
            raise UserError(f"{path}: must be a TFRecord of PredictionLog. Found: {error}") from error
        yield asked.model_spec.signature_name, {name: read_array(tensor) for name, tensor in asked.inputs.items()}
        start, number = start + 16 + length, number + 1


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


T = TypeVar("T")
logger = logging.getLogger("kfusion.serve")
MAX_ENDED = 20
"""How many versions that have ended are still told of."""


def version_numbers(folder: Path) -> list[int]:
    """The versions in a model's folder, ascending: sub-folders with a number for a name and a SavedModel inside."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.isascii() and entry.name.isdigit()]
    # os.path: a version that may not be read is none, and costs the others nothing.
    return sorted(
        int(name) for name in names if str(int(name)) == name and os.path.exists(folder / name / SAVED_MODEL_FILE)
    )


class Models:
    """One model and its versions.

    Args:
        name: what clients call the model.
        folder: holds a sub-folder per version.
        num_versions: how many of the latest that can be loaded are served.
        labels: {label: version}; these versions are served too.
        forget: is told of each version that has ended.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        num_versions: int = 1,
        labels: Mapping[str, int] | None = None,
        forget: Callable[[Version], None] = lambda _: None,
    ) -> None:
        self.name, self.folder = name, folder
        self.labels = dict(labels or {})
        self.versions: dict[int, Version] = {}
        self._num_versions, self._forget = num_versions, forget
        self._seen: dict[int, Fingerprint] = {}
        self._failed: dict[int, Fingerprint] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(1, "loader")

    def find(self, model: str, number: int | None = None, label: str | None = None) -> Version:
        """The version that a request means.

        Raises:
            Refusal: 404, or 400 for a label, with the real server's sentences.
        """
        if model == self.name and label is not None:
            if label not in self.labels:
                raise Refusal(400, f"Unrecognized servable version label: {label[:100]}")
            number = self.labels[label]
        if model == self.name:
            ready = {n: version for n, version in self.versions.items() if version.state == "AVAILABLE"}
            found = ready.get(max(ready, default=-1) if number is None else number)
            if found:
                return found
        meant = f"Latest({model[:100]})" if number is None else f"Specific({model[:100]}, {number})"
        raise Refusal(404, f"Servable not found for request: {meant}")

    @property
    def ready(self) -> bool:
        """Whether any version answers."""
        return any(version.state == "AVAILABLE" for version in self.versions.values())

    async def watch(self, poll_s: float) -> None:
        """Keeps the versions as the folder has them, for ever."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.refresh()
            except Exception as error:  # The folder may be gone for a moment; what is loaded goes on answering.
                logger.error("the model's folder could not be read", extra={"error": type(error).__name__})

    async def refresh(self) -> None:
        """Loads what is new and wanted, then lets go what is not wanted any more."""
        at_once = not self.ready
        found = await self._in_thread(version_numbers, self.folder)
        for notes in (self._seen, self._failed):
            for number in notes.keys() - set(found):
                del notes[number]
        wanted: set[int] = set()
        for number in reversed(found):
            if len(wanted) < self._num_versions and await self._answers(number, at_once):
                wanted.add(number)
        for number in sorted(set(found) & set(self.labels.values()) - wanted):
            if await self._answers(number, at_once):
                wanted.add(number)
        if wanted:
            for version in list(self.versions.values()):
                if version.number not in wanted and version.state == "AVAILABLE":
                    self._end(version)

    async def _answers(self, number: int, at_once: bool) -> bool:
        """Whether a version answers, after it has been loaded if that may be tried.

        Args:
            number: of a version in the folder.
            at_once: try at the first look; else it must have looked the same at the last one.
        """
        current = self.versions.get(number)
        if current is not None and current.state != "END":
            return current.state == "AVAILABLE"
        files = await self._in_thread(fingerprint, self.folder / str(number), self.folder)
        settled = at_once or self._seen.get(number) == files
        self._seen[number] = files
        # What failed as it is, is tried again when it changes.
        return settled and self._failed.get(number) != files and await self._load(number, files)

    async def _load(self, number: int, files: Fingerprint) -> bool:
        """Loads a version whose files look so; whether it answers."""
        version = Version(self.folder, number)
        version.state = "LOADING"
        self.versions[number] = version
        try:
            await self._in_thread(version.load)
            if await self._in_thread(fingerprint, version.folder, self.folder) != files:
                await self._in_thread(version.close)
                raise UserError(f"{number}: must stay as it is while it is loaded. Found: files that have changed")
        except Exception as error:
            self._failed[number] = files
            version.state, version.error = "END", self._without_paths(str(error))
            logger.error("version failed to load", extra={"version": number, "error": version.error})
            return False
        version.state = "AVAILABLE"
        logger.info("version loaded", extra={"version": number})
        return True

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _without_paths(self, text: str) -> str:
        """An error's first line; clients see it, and need not see where things lie on this machine."""
        return (
            text.partition("\n")[0].replace(str(self.folder), self.name).replace(str(self.folder.resolve()), self.name)
        )

    def _end(self, version: Version) -> None:
        version.state = "UNLOADING"
        task = asyncio.create_task(self._close(version))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _close(self, version: Version) -> None:
        await version.drained()
        await self._in_thread(version.close)
        version.state = "END"
        self._forget(version)
        logger.info("version unloaded", extra={"version": version.number})
        ended = sorted(n for n, other in self.versions.items() if other.state == "END")
        for number in ended[:-MAX_ENDED]:
            del self.versions[number]

    async def close(self) -> None:
        """Drains and closes all."""
        for version in self.versions.values():
            if version.state == "AVAILABLE":
                self._end(version)
        await asyncio.gather(*self._ending)
        self._threads.shutdown()
