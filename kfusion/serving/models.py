"""The served model: watches its folder, loads new versions, and drains those that are no longer wanted.

A new version is loaded beside the old one, takes the new requests when it is ready, and only then the old one is let go
and closed, when its last request has been answered: no request falls between two versions.

A version may also be copied into its place file by file. It counts when it is whole and has answered its warm-up
requests: as long as anything else answers, it is not loaded before two looks have found the same files; what fails to
load is passed over, so that the best of the others stay, and is looked at again when any of its files changes.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from kfusion.rules import UserError
from kfusion.runtime.saved_model import FILE
from kfusion.serving.answers import Refusal
from kfusion.serving.versions import Fingerprint, Version, fingerprint

T = TypeVar("T")
logger = logging.getLogger("kfusion.serve")
MAX_ENDED = 20
"""How many versions that have ended are still told of."""


def version_numbers(folder: Path) -> list[int]:
    """The versions in a model's folder, ascending: sub-folders with a number for a name and a SavedModel inside."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.isascii() and entry.name.isdigit()]
    # os.path: a version that may not be read is none, and costs the others nothing.
    return sorted(int(name) for name in names if str(int(name)) == name and os.path.exists(folder / name / FILE))


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
