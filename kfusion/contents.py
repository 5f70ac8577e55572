"""What may lie in a run folder: a folder with anything else in it is not emptied, so that nobody loses a file."""

from fnmatch import fnmatch
from pathlib import Path

from kfusion.system.files import PARTIAL

LOCK = ".lock"
FILES = {
    *("config.json", "data.json", "split.npz", "environment.json", "checkpoint.npz", "best.keras", "last.keras"),
    *("history.csv", "metrics.json", "report.txt", "figures", LOCK),
}
"""All that training writes."""
OWN_DATA = "training_data"
"""Where a run keeps data that a program gave it; see `kfusion.data.own`."""
CLASSES = "kfusion_classes.json"
"""The file in there by which it is told from a person's folder of that name."""
OPTIONAL = {OWN_DATA, "tensorboard"}
"""What training writes where it is asked to."""
LATER = {"evaluation", "calibration.json", "embeddings", "report.html"}
"""What later stages add."""
INSIDE = {
    "evaluation": ("answers.npz", "evaluation.json", "robustness.json", "report.txt", "*.png", "*.svg"),
    "embeddings": ("*.npy", "projections.npz", "embeddings.json", "*.png", "*.svg", "*.tsv", "projector_config.pbtxt"),
    "tensorboard": ("events.out.tfevents.*",),
    OWN_DATA: ("images.npy", "audio.npy", "labels.npy", "groups.npy", CLASSES, "manifest.csv"),
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
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    ours = FILES | OPTIONAL | LATER if begun else STARTED
    strange = [name for name in found if name not in ours and not name.startswith(PARTIAL)]
    if OWN_DATA in found and own_data(folder) is None:
        strange.append(OWN_DATA)
    for name in sorted(INSIDE.keys() & set(found) & ours):
        for path in sorted((folder / name).rglob("*")):
            known = any(fnmatch(path.name, pattern) for pattern in (*INSIDE[name], f"{PARTIAL}*"))
            if not known and not path.is_dir():
                strange.append(str(path.relative_to(folder)))
    return strange
