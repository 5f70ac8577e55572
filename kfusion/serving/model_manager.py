"""The served model: watches its folder, loads new versions, and drains those that are no longer served.

A new version is loaded beside the old one and takes new requests once it is ready. Only then the old one is closed,
after its last response: no request falls between two versions.

A version may also be copied into its place file by file. While another version is served, it is not loaded before two
scans have found the same files; one that fails to load is skipped, and tried again when any of its files changes.

The warm-up requests that come with a version are answered before it counts as ready: a model's first runs are its
slowest. Where nothing is served yet, those to its first endpoint must do, and the others follow while it answers: who
waits for that one answer waits less than for all. They are read without TensorFlow.
Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import asyncio
import logging
import os
import stat
import struct
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException

from kfusion.runtime.c_api import Refused, ServedModel
from kfusion.runtime.protos import ASSETS, SAVED_MODEL_FILE, Signature, message, read_array
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
            request = message("PredictionLog").FromString(record).predict_log.request
        except Exception as error:  # protobuf's own error has no public base class
            raise UserError(f"{path}: must be a TFRecord of PredictionLog. Found: {error}") from error
        yield request.model_spec.signature_name, {name: read_array(tensor) for name, tensor in request.inputs.items()}
        start, number = start + 16 + length, number + 1


STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
"""TensorFlow Serving's, in the order in which a version passes through them."""


class Version:
    """A version and its state, one of `STATES`. All but `load` and `ask` are called in the event loop's thread."""

    def __init__(self, root: Path, number: int) -> None:
        self.number, self.folder = number, root / str(number)
        self.state = "START"
        self.error = ""
        self.damaged: set[str] = set()
        """Names of files beside the model that could not be read, and that are in the log already."""
        self._root = root
        self._cold: list[tuple[str, dict[str, np.ndarray]]] = []
        self._model: ServedModel | None = None
        self._held = 0
        self._free = asyncio.Event()
        self._free.set()

    def load(self, in_haste: bool = False) -> None:
        """Reads the SavedModel and warms it up; in a thread, since it takes seconds.

        Args:
            in_haste: only the endpoint of the first warm-up request is warmed up; `warm_up` does the rest.

        Raises:
            UserError: it cannot be loaded, does not answer its own warm-up requests, or a file of it lies outside the
                model's folder.
        """
        check_inside(self.folder, self._root)
        try:
            self._model = ServedModel(self.folder)
            requests = list(warmup_requests(self.folder))
            for signature, inputs in requests:
                if in_haste and signature != requests[0][0]:
                    self._cold.append((signature, inputs))
                else:
                    self._model.ask(signature, inputs)
        except BaseException as error:
            self.close()
            if isinstance(error, Refused | ValueError | KeyError):
                raise UserError(str(error)) from error
            raise

    def warm_up(self) -> None:
        """Answers the warm-up requests that `load` left, in a thread, unless the version ends.

        Raises:
            Refused: the runtime's error.
        """
        while self._cold and self.state == "AVAILABLE":
            self.ask(*self._cold.pop(0))

    @property
    def signatures(self) -> dict[str, Signature]:
        """The endpoints by name; none while the version is not loaded."""
        return self._model.signatures if self._model else {}

    def ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run of the model, in a thread of the pool, while the version is held.

        Args:
            signature: the endpoint's name.
            inputs: its arrays by name.

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
        """Waits until every `hold` has ended."""
        await self._free.wait()

    def close(self) -> None:
        """Frees the memory; only once drained."""
        model, self._model = self._model, None
        if model:
            model.close()


Fingerprint = tuple[tuple[str, ...], ...]


def fingerprint(folder: Path, root: Path) -> Fingerprint:
    """Name, size and times of every file and folder of a version; differs after any of them has changed.

    Args:
        folder: the version's.
        root: the model's; what a link leads to outside of it is not looked at.
    """
    entries = []
    if folder.resolve().is_relative_to(root.resolve()):
        for above, folders, files in os.walk(folder):
            for path in (Path(above, name) for name in (*folders, *files)):
                try:
                    state = path.lstat()
                except OSError:  # Gone since it was listed, or not to be seen.
                    continue
                # The last one tells of a change of permissions too.
                facts = state.st_size * stat.S_ISREG(state.st_mode), state.st_mtime_ns, state.st_ctime_ns
                entries.append((str(path.relative_to(folder)), *map(str, facts)))
    return tuple(sorted(entries))


def check_inside(folder: Path, root: Path) -> None:
    """Every file of a version must lie below the model's own folder, wherever links lead.

    Args:
        folder: the version's.
        root: the model's.

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
"""How many versions that have ended are still listed."""


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
        forget: is called with each version that has ended.
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
        self._working: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(1, "loader")

    def find(self, model: str, number: int | None = None, label: str | None = None) -> Version:
        """The version that a request is for.

        Args:
            model: the model's name in the request.
            number: of a version.
            label: of a version; without number and label: the latest.

        Raises:
            HTTPException: 404, or 400 for a label, with the real server's sentences.
        """
        if model == self.name and label is not None:
            if label not in self.labels:
                raise HTTPException(400, f"Unrecognized servable version label: {label[:100]}")
            number = self.labels[label]
        if model == self.name:
            ready = {n: version for n, version in self.versions.items() if version.state == "AVAILABLE"}
            version = ready.get(max(ready, default=-1) if number is None else number)
            if version:
                return version
        wanted = f"Latest({model[:100]})" if number is None else f"Specific({model[:100]}, {number})"
        raise HTTPException(404, f"Servable not found for request: {wanted}")

    @property
    def newest(self) -> Version | None:
        """The version that answers a request which names none; None: there is none."""
        ready = [version for version in self.versions.values() if version.state == "AVAILABLE"]
        return max(ready, key=lambda version: version.number, default=None)

    @property
    def ready(self) -> bool:
        """Whether any version is served."""
        return self.newest is not None

    async def watch(self, poll_s: float) -> None:
        """Refreshes the versions again and again, until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.refresh()
            except Exception as error:  # The folder may be gone for a moment; what is loaded goes on answering.
                logger.error("the model's folder could not be read", extra={"error": type(error).__name__})

    async def refresh(self) -> None:
        """One scan of the folder: loads new versions, then ends those that are not to be served any more."""
        at_once = not self.ready
        numbers = await self._in_thread(version_numbers, self.folder)
        for fingerprints in (self._seen, self._failed):
            for number in fingerprints.keys() - set(numbers):
                del fingerprints[number]
        wanted: set[int] = set()
        for number in reversed(numbers):
            if len(wanted) < self._num_versions and await self._answers(number, at_once):
                wanted.add(number)
        for number in sorted(set(numbers) & set(self.labels.values()) - wanted):
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
            at_once: load it at its first scan; else only if the last scan found the same files.
        """
        current = self.versions.get(number)
        if current is not None and current.state != "END":
            return current.state == "AVAILABLE"
        files = await self._in_thread(fingerprint, self.folder / str(number), self.folder)
        settled = at_once or self._seen.get(number) == files
        self._seen[number] = files
        # What failed is tried again only when it changes.
        return settled and self._failed.get(number) != files and await self._load(number, files, at_once)

    async def _load(self, number: int, files: Fingerprint, in_haste: bool) -> bool:
        """Loads a version whose fingerprint is `files`; whether it answers."""
        version = Version(self.folder, number)
        version.state = "LOADING"
        self.versions[number] = version
        try:
            await self._in_thread(version.load, in_haste)
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
        if in_haste:
            version.hold()
            self._do(self._warm_up(version))
        return True

    async def _warm_up(self, version: Version) -> None:
        try:
            await self._in_thread(version.warm_up)
        except (Refused, UserError) as error:  # It goes on answering what it can.
            text = self._without_paths(str(error))
            logger.error("a warm-up request is refused", extra={"version": version.number, "error": text})
        finally:
            version.release()

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _without_paths(self, text: str) -> str:
        """An error's first line without this machine's paths: clients see it."""
        line = text.partition("\n")[0]
        return line.replace(str(self.folder), self.name).replace(str(self.folder.resolve()), self.name)

    def _end(self, version: Version) -> None:
        version.state = "UNLOADING"
        self._do(self._close(version))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Begins what `close` waits for."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

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
        await asyncio.gather(*self._working)
        self._threads.shutdown()
