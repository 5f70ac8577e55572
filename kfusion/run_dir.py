"""The run folder: what a training run leaves behind, and what every later stage reads.

    config.json        every setting                    best.keras    the weights that did best on validation
    data.json          where the data came from,        last.keras    the weights after the last epoch
                       its shapes, classes and ranges   history.csv   one line per epoch
    split.npz          the rows of each part            metrics.json  the test figures; written last: the run is done
    environment.json   versions, hardware, precision    report.txt    the same, for reading
    checkpoint.npz     all state after the last epoch   figures/      PNG and SVG
    samples.npz        the few samples that an export needs, see `exporting.samples`
    trust.npz          how familiar inputs are told from others, and the prediction sets, see `model.trust`

    evaluation/        by kfusion.evaluate, see there   calibration.json  a temperature for each view
    embeddings/        by kfusion.embed, see there      report.html       by kfusion.report: all of it on one page

    training_data/     data that a program gave         tensorboard/      scalars, with --tensorboard
    candidates/        while learner=auto trains several networks: what each of them has so far

Every file is written beside its place and renamed into it, so a killed run leaves no half-written file. A folder that
holds anything else is not emptied for a new run, so that nobody loses a file.
"""

import fcntl
import hashlib
import re
import shutil
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import numpy as np

from kfusion.config import Config, config_from_json
from kfusion.io import PARTIAL, read_arrays, read_json, write_atomically, write_json
from kfusion.spec import Spec
from kfusion.validation import UserError

SAMPLES = "samples.npz"
"""The samples that a run keeps for its export."""
TRUST = "trust.npz"
"""What the trust in the run's network rests on; see `kfusion.model.trust`."""
FOLDS = "folds.json"
"""What the runs of a cross-validation have in common, in the folder above theirs; see `training.folds`."""
LOCK = ".lock"
FILES = {
    *("config.json", "data.json", "split.npz", "environment.json", "checkpoint.npz", "best.keras", "last.keras"),
    *("history.csv", "metrics.json", "report.txt", "figures", SAMPLES, TRUST, LOCK),
}
"""All that training writes."""
OWN_DATA = "training_data"
"""Where a run keeps data that a program gave it; see `kfusion.data.in_memory`."""
CLASSES = "kfusion_classes.json"
"""The file in there by which it is told from a person's folder of that name."""
CANDIDATES = "candidates"
"""Where networks are trained of which one is kept."""
OPTIONAL = {OWN_DATA, "tensorboard", CANDIDATES}
"""What training writes where it is asked to."""
LATER = {"evaluation", "calibration.json", "embeddings", "report.html"}
"""What later stages add."""
INSIDE = {
    "evaluation": ("answers.npz", "evaluation.json", "robustness.json", "report.txt", "*.png", "*.svg"),
    "embeddings": ("*.npy", "projections.npz", "embeddings.json", "*.png", "*.svg", "*.tsv", "projector_config.pbtxt"),
    "tensorboard": ("events.out.tfevents.*",),
    OWN_DATA: ("*.npy", CLASSES, "manifest.csv"),
    CANDIDATES: ("best.keras", "last.keras", "history.csv", "checkpoint.npz"),
}
"""All that these write into their folders, at whatever depth."""
STARTED = {"data.json", "split.npz", "environment.json", OWN_DATA, LOCK}
"""What a run killed before its config leaves behind."""


def own_data(folder: Path) -> Path | None:
    """The data that a run keeps itself, a folder or a manifest, by their whole path; None: it keeps none."""
    place = folder.absolute() / OWN_DATA
    if not (place / CLASSES).is_file():
        return None
    manifest = place / "manifest.csv"
    return manifest if manifest.is_file() else place


def foreign(folder: Path, begun: bool) -> list[str]:
    """What is in a run folder that no command of kfusion has written, sorted; folders below it by their path.

    Args:
        folder: it may be missing.
        begun: whether it is a run; else it may hold only what a killed start leaves behind.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    ours = FILES | OPTIONAL | LATER if begun else STARTED
    strange = [name for name in names if name not in ours and not name.startswith(PARTIAL)]
    if OWN_DATA in names and own_data(folder) is None:
        strange.append(OWN_DATA)
    for name in sorted(INSIDE.keys() & set(names) & ours):
        for path in sorted((folder / name).rglob("*")):
            known = any(fnmatch(path.name, pattern) for pattern in (*INSIDE[name], f"{PARTIAL}*"))
            if not known and not path.is_dir():
                strange.append(str(path.relative_to(folder)))
    return strange


FORMAT = 1
"""The layout's version; a reader refuses another."""


@dataclass(frozen=True)
class Run:
    """A run folder and the paths in it."""

    folder: Path

    @property
    def best(self) -> Path:
        """The network that did best on validation."""
        return self.folder / "best.keras"

    @property
    def last(self) -> Path:
        """The network after the last epoch."""
        return self.folder / "last.keras"

    @property
    def checkpoint(self) -> Path:
        """All state after the last epoch."""
        return self.folder / "checkpoint.npz"

    @property
    def history(self) -> Path:
        """A table with one line per epoch."""
        return self.folder / "history.csv"

    @property
    def figures(self) -> Path:
        """The folder of training's pictures."""
        return self.folder / "figures"

    @property
    def evaluation(self) -> Path:
        """The folder of `kfusion.evaluate`."""
        return self.folder / "evaluation"

    @property
    def calibration(self) -> Path:
        """The temperatures that `kfusion.evaluate` fitted."""
        return self.folder / "calibration.json"

    @property
    def tensorboard(self) -> Path:
        """The folder of scalars."""
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
        """Every setting."""
        return load_config(self.folder / "config.json")

    def data(self) -> dict[str, Any]:
        """Where the data came from: source, files, front end, ranges, scaling, spec."""
        facts, own = read_json(self.folder / "data.json"), self.own_data
        if own is not None and isinstance(facts, dict) and isinstance(facts.get("source"), dict):
            facts["source"]["name"] = str(own)
        return facts

    def spec(self) -> Spec:
        """The modalities and class names."""
        return Spec.from_json(self.data()["spec"])

    def metrics(self) -> dict[str, Any]:
        """The test figures."""
        return read_json(self.folder / "metrics.json")

    def split(self) -> dict[str, np.ndarray]:
        """The rows of each part, sample by sample: `{part}_{name}` for each modality.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_arrays(self.folder / "split.npz", "must hold the rows that training wrote")

    def write_json(self, name: str, values: Any) -> None:
        """Writes a file into the folder.

        Args:
            name: the file's.
            values: ready for JSON.
        """
        write_json(self.folder / name, values)

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes a file into the folder.

        Args:
            name: the file's, ending in .npz.
            arrays: by their names.
        """
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

    Args:
        folder: may be missing.
        overwrite: an existing run is removed.

    Raises:
        UserError: something is there already and `overwrite` is not asked, or it is no run folder at all.
    """
    names = check_new(folder, overwrite)
    # The metrics go first: a folder that is half emptied must not look like a finished run.
    for name in sorted(names, key=lambda name: (name not in ("metrics.json", "config.json"), name)):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        elif name != LOCK:
            path.unlink()
    return Run(folder)


def check_new(folder: Path, overwrite: bool) -> list[str]:
    """The names in a folder that a new run may empty.

    Args:
        folder: may be missing.
        overwrite: an existing run may be removed.

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
    """The next free `runs/<recipe>-<number>`.

    Args:
        recipe: its name.
        root: where runs are kept.
    """
    number = 1
    while (root / f"{recipe}-{number}").exists():
        number += 1
    return root / f"{recipe}-{number}"


def fold_folder(folder: Path, number: int) -> Path:
    """The run folder of a fold.

    Args:
        folder: of the cross-validation.
        number: of the fold, from 1.
    """
    return folder / f"fold-{number}"


def unfinished_folder(recipe: str, root: Path = Path("runs"), folds: bool = False) -> Path:
    """The run of a recipe that was broken off last, to resume it; the next free folder where there is none.

    Args:
        recipe: its name.
        root: where runs are kept.
        folds: a cross-validation is meant, not a single run.
    """
    numbered = re.compile(rf"{re.escape(recipe)}-\d+")
    paths = [path for path in root.glob("*") if numbered.fullmatch(path.name)]
    paths = [path for path in paths if fold_folder(path, 1).exists() == folds]
    unfinished = [path for path in paths if not Run(path).finished and not (path / FOLDS).exists()]
    return max(unfinished, key=lambda path: path.stat().st_mtime, default=default_folder(recipe, root))


def remove_partial(folder: Path) -> None:
    """Removes what a killed process was writing; only for who holds the folder's lock."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink()


FACTS = ("spec", "source", "prior")
"""What later stages need of data.json."""


def open_finished(folder: Path) -> Run:
    """A run folder that holds all that later stages read.

    Raises:
        UserError: it is no run folder, of another format, unfinished or damaged.
    """
    run = open_run(folder)
    if not run.finished:
        rule = "must be a finished run; the command that began it goes on with --resume"
        raise UserError(f"{folder}: {rule}. Found: no metrics.json")
    missing = [name for name in FACTS if name not in run.data()]
    if missing:
        raise UserError(f"{folder / 'data.json'}: must hold {', '.join(FACTS)}. Found: no {missing[0]}")
    run.split()
    return run


def read_temperature(run: Run) -> dict[str, float]:
    """The temperature of each view's probabilities; none where the run has not been evaluated.

    Raises:
        UserError: the file is damaged, or was fitted for other weights than the run's best.
    """
    path = run.calibration
    if not path.exists():
        return {}
    content, views = read_json(path), run.spec().views
    temperature = content.get("temperature") if isinstance(content, dict) else None
    if not isinstance(temperature, dict) or not all(_is_temperature(temperature.get(view)) for view in views):
        raise UserError(f"{path}: 'temperature' must give a number > 0 for {', '.join(views)}. Found: {temperature!r}")
    weights = content.get("weights", "")
    if weights and weights != hashlib.sha256(run.best.read_bytes()).hexdigest():
        raise UserError(f"{path}: must be of the run's weights; run kfusion.evaluate again. Found: another best.keras")
    return {view: float(temperature[view]) for view in views}


def _is_temperature(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def load_config(path: Path) -> Config:
    """The config in a JSON file, as a run folder holds it; data that the run keeps are found where the run is now.

    Raises:
        UserError: the file is missing, is not JSON, or holds an unknown setting.
    """
    values = read_json(path)
    try:
        config = config_from_json(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    own = own_data(path.parent) if path.name == "config.json" else None
    return config if own is None else replace(config, data=replace(config.data, data=str(own)))
