"""The run folder: what a training run leaves behind, and what every later stage reads.

    config.json        every setting                    best.keras    the weights that did best on validation
    data.json          where the data came from,        last.keras    the weights after the last epoch
                       its shapes, classes and ranges   history.csv   one line per epoch
    split.npz          the rows of each part            metrics.json  the test figures; written last: the run is done
    environment.json   versions, hardware, precision    report.txt    the same, for reading
    checkpoint.npz     all state after the last epoch   figures/      PNG and SVG

    evaluation/        by kfusion.evaluate, see there   calibration.json  a temperature for each view
    embeddings/        by kfusion.embed, see there      report.html       by kfusion.report: all of it on one page

    training_data/     data that a program gave         tensorboard/      scalars, with --tensorboard

Every file is written beside its place and renamed into it, so a killed run leaves no half-written file.
"""

import fcntl
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from kfusion.config import Config
from kfusion.config_file import load_config
from kfusion.contents import FILES, LOCK, foreign, own_data
from kfusion.rules import UserError
from kfusion.spec import Spec
from kfusion.system.files import PARTIAL, read_arrays, read_json, write_atomically, write_json

__all__ = [
    "FILES",
    "FORMAT",
    "Run",
    "check_new",
    "check_unlocked",
    "default_folder",
    "lock",
    "new_run",
    "open_run",
    "unfinished_folder",
]

FORMAT = 1
"""The layout's version; a reader refuses another."""


@dataclass(frozen=True)
class Run:
    """A run folder and the paths in it."""

    folder: Path

    @property
    def best(self) -> Path:
        return self.folder / "best.keras"

    @property
    def last(self) -> Path:
        return self.folder / "last.keras"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.json"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def own_data(self) -> Path | None:
        """The data that the run keeps itself, wherever it lies now; None: it keeps none."""
        return own_data(self.folder)

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end: the metrics are written last."""
        return (self.folder / "metrics.json").exists()

    def config(self) -> Config:
        return load_config(self.folder / "config.json")

    def data(self) -> dict[str, Any]:
        """Where the data came from: source, files, front end, ranges, scaling, spec."""
        facts, own = read_json(self.folder / "data.json"), self.own_data
        if own is not None and isinstance(facts, dict) and isinstance(facts.get("source"), dict):
            facts["source"]["name"] = str(own)
        return facts

    def spec(self) -> Spec:
        return Spec.from_json(self.data()["spec"])

    def metrics(self) -> dict[str, Any]:
        return read_json(self.folder / "metrics.json")

    def split(self) -> dict[str, np.ndarray]:
        """`{part}_image` and `{part}_audio`: the rows of each part, pair by pair.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_arrays(self.folder / "split.npz", "must hold the rows that training wrote")

    def write_json(self, name: str, values: Any) -> None:
        write_json(self.folder / name, values)

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        write_atomically(self.folder / name, lambda path: np.savez(path, allow_pickle=False, **arrays))


def open_run(folder: Path) -> Run:
    """A run folder that exists.

    Raises:
        UserError: the folder is missing, is not a run folder, or is of a newer version.
    """
    if not begun(folder):
        raise UserError(f"{folder}: must be a run folder made by 'python -m kfusion.train'. Found: no config.json")
    data = read_json(folder / "data.json")
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        raise UserError(f"{folder}: must be a run folder of format {FORMAT}. Found: format {version!r}")
    return Run(folder)


def begun(folder: Path) -> bool:
    """Whether a run has got so far that it can be resumed: its config is the last of the first files."""
    return (folder / "config.json").is_file()


def new_run(folder: Path, overwrite: bool) -> Run:
    """An empty run folder.

    Raises:
        UserError: something is there already and `overwrite` is not asked, or it is no run folder at all.
    """
    found = check_new(folder, overwrite)
    # The metrics go first: a folder that is half emptied must not look like a finished run.
    for name in sorted(found, key=lambda name: (name not in ("metrics.json", "config.json"), name)):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        elif name != LOCK:
            path.unlink()
    return Run(folder)


def check_new(folder: Path, overwrite: bool) -> list[str]:
    """What is in a folder that a new run may empty.

    Raises:
        UserError: as `new_run`; nothing is changed.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a run needs a folder. Found: a file")
    if begun(folder) and not overwrite:
        raise UserError(f"{folder}: an existing run is kept; choose another --out, --resume it, or --overwrite it")
    strange = foreign(folder, begun(folder))
    if strange:
        raise UserError(f"{folder}: a run needs a folder of its own. Found: {', '.join(strange[:3])}")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def lock(folder: Path) -> IO[bytes]:
    """Keeps a second program from writing into the same folder, until the file is closed or the process ends.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = (folder / LOCK).open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise UserError(f"{folder}: another process is writing into this folder; choose another --out") from error
    return handle


def check_unlocked(folder: Path) -> None:
    """Raises the UserError of `lock` while another process holds it; writes nothing, unlike `lock`."""
    if (folder / LOCK).exists():
        lock(folder).close()


def default_folder(recipe: str, root: Path = Path("runs")) -> Path:
    """The next free `runs/<recipe>-<number>`."""
    number = 1
    while (root / f"{recipe}-{number}").exists():
        number += 1
    return root / f"{recipe}-{number}"


def unfinished_folder(recipe: str, root: Path = Path("runs")) -> Path:
    """The run of this recipe that was broken off last, to resume it; the next free folder where there is none."""
    numbered = re.compile(rf"{re.escape(recipe)}-\d+")
    found = [path for path in root.glob("*") if numbered.fullmatch(path.name) and not Run(path).finished]
    return max(found, key=lambda path: path.stat().st_mtime, default=default_folder(recipe, root))


def remove_partial(folder: Path) -> None:
    """Removes what a killed process was writing; only for who holds the folder's lock."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink()
