"""What answers: the network of a run folder, or an exported version; both say the same of the same rows."""

from pathlib import Path
from typing import Protocol

import numpy as np

from kfusion.prediction.chunks import Arrays, Files
from kfusion.rules import UserError
from kfusion.spec import Spec
from kfusion.system.terminal import quiet

Answers = dict[str, np.ndarray]
"""Probabilities (n, num_classes) by view: `FUSED`, and each modality's own where all views are asked for."""


class Model(Protocol):
    """What answers rows."""

    folder: Path
    spec: Spec
    audio_range: tuple[float, float] | None
    """Lowest and highest value of the training sounds; None where it is not known."""
    said: str
    """What the confidences are, for the terminal."""
    note: str
    """What else is to be known of this model before files are read; "" for nothing."""
    identity: str
    """Tells this model from another."""
    unreadable: dict[str, str]
    """For each modality whose files this model cannot read: why."""

    def prepare(self, rows: Arrays | Files) -> Arrays | Files:
        """What can be done ahead of the answer, in another thread."""
        ...

    def answer(self, rows: Arrays | Files) -> Answers:
        """The probabilities; those of rows with a reason mean nothing. Reasons may be added to the rows."""
        ...


def load_model(folder: Path, all_views: bool) -> Model:
    """The model in a folder.

    Args:
        folder: a run folder, or an exported version.
        all_views: also ask what each modality says alone.

    Raises:
        UserError: it is neither, or it is damaged.
    """
    # Imported here: an exported version needs no Keras, whose start takes seconds.
    if (folder / "config.json").is_file():
        with quiet():
            from kfusion.prediction.runs import RunModel

        return RunModel(folder, all_views)
    if (folder / "saved_model.pb").is_file():
        with quiet():
            from kfusion.prediction.versions import VersionModel
            from kfusion.runtime.capi import library

            library()

        return VersionModel(folder, all_views)
    found = "neither" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
    versions = sorted(int(path.name) for path in folder.glob("*/") if path.name.isdecimal())
    if versions:
        found = f"version{'s' * (len(versions) > 1)} {', '.join(map(str, versions))}; name one of them"
    raise UserError(f"{folder}: MODEL must be a run folder or an exported version. Found: {found}")
