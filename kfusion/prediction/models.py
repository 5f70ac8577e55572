"""What answers: the network of a run folder, or an exported version; both say the same of the same rows.

An exported version as a model: asked through the C API and the same endpoints as a server asks it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kfusion.cli import quiet
from kfusion.data.statistics import as_range
from kfusion.io import file_hash, read_json
from kfusion.prediction.inputs import Arrays, Files
from kfusion.prediction.outputs import Answers
from kfusion.runtime.c_api import Refused, ServedModel
from kfusion.runtime.protos import ASSETS, LABELS, Signature, read_labels, read_signatures
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec
from kfusion.validation import UserError

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
            from kfusion.prediction.run_model import RunModel

        return RunModel(folder, all_views)
    if (folder / "saved_model.pb").is_file():
        with quiet():
            from kfusion.runtime.c_api import library

            library()

        return VersionModel(folder, all_views)
    found = "neither" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
    versions = sorted(int(path.name) for path in folder.glob("*/") if path.name.isdecimal())
    if versions:
        found = f"version{'s' * (len(versions) > 1)} {', '.join(map(str, versions))}; name one of them"
    raise UserError(f"{folder}: MODEL must be a run folder or an exported version. Found: {found}")


ENDPOINTS = {(True, True): "serving_default", (True, False): "image_only", (False, True): "audio_only"}
FILES = "raw_bytes"
OUTPUTS = dict(zip(VIEWS, ("probabilities", "image_probabilities", "audio_probabilities"), strict=True))
_ASSERTED = re.compile(r"assertion failed: \[(.*?)\](?:\s*\[\[.*)?", re.DOTALL)
_PLACE = re.compile(r"(image|audio)_bytes, row \d+: ")


class VersionModel:
    """A SavedModel that `kfusion.export` wrote.

    Args:
        folder: the version's.
        all_views: also ask what each modality says alone.

    Raises:
        UserError: it cannot be loaded, or was written by something else.
    """

    def __init__(self, folder: Path, all_views: bool) -> None:
        known, names = read_signatures(folder), folder / ASSETS / LABELS
        if not names.is_file() or not set(ENDPOINTS.values()) <= known.keys():
            rule = "must be a version made by 'python -m kfusion.export'"
            raise UserError(f"{folder}: {rule}. Found: another SavedModel")
        self.folder = folder
        asked = known[ENDPOINTS[True, True]]
        self.spec = _spec(asked, read_labels(folder, asked))
        self.outputs = {view: OUTPUTS[view] for view in (VIEWS if all_views else (FUSED,))}
        facts = folder / ASSETS / "data.json"
        self.audio_range: tuple[float, float] | None = _range(facts) if facts.is_file() else None
        self.unreadable = {} if FILES in known else {str(name): f"it has no endpoint {FILES}" for name in MODALITIES}
        self.said, self.note = "confidences: as the exported model gives them", ""
        try:
            self._served = ServedModel(folder)
        except Refused as error:
            found = str(error).partition("\n")[0]
            raise UserError(f"{folder}: must be a SavedModel that can be loaded. Found: {found}") from error
        parts = [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]
        self.identity = " ".join(map(file_hash, parts))

    def prepare(self, rows: Arrays | Files) -> Arrays | Files:
        return rows

    def answer(self, rows: Arrays | Files) -> Answers:
        good = np.array([not reason for reason in rows.reason])
        answers = {view: np.zeros((len(good), self.spec.num_classes), np.float32) for view in self.outputs}
        if isinstance(rows, Files):
            self._answer_files(rows, np.flatnonzero(good), answers)
            return answers
        for present, endpoint in ENDPOINTS.items():
            chosen = np.flatnonzero(good & (rows.present == present).all(axis=1))
            if len(chosen):
                given = {name: rows.__dict__[name] for name, there in zip(MODALITIES, present, strict=True) if there}
                # A whole batch needs no copy.
                given = given if len(chosen) == len(good) else {name: each[chosen] for name, each in given.items()}
                self._ask(endpoint, given, answers, chosen)
        return answers

    def _ask(self, endpoint: str, given: Mapping[str, Any], answers: Answers, chosen: np.ndarray) -> None:
        """Puts what an endpoint says into the answers to some rows."""
        # By their names in order, as the signature has them.
        said = self._served.ask(endpoint, dict(sorted(given.items())), tuple(self.outputs.values()))
        for view, output in self.outputs.items():
            answers[view][chosen] = said[output]

    def _answer_files(self, rows: Files, chosen: np.ndarray, answers: Answers) -> None:
        """One bad file fails its batch: each half is asked again, until it is alone."""
        if not len(chosen):
            return
        given = {
            f"{name}_bytes": np.array([contents[row] for row in chosen], object)
            for name, contents in zip(MODALITIES, (rows.image, rows.audio), strict=True)
        }
        try:
            with quiet(even_if_failing=True):
                self._ask(FILES, given, answers, chosen)
        except Refused as error:
            if len(chosen) == 1:
                rows.reason[chosen[0]] = sentence(str(error))
                return
            for half in np.array_split(chosen, 2):
                self._answer_files(rows, half, answers)


def sentence(text: str) -> str:
    """What an endpoint says of a bad row, without the graph's names and the row's number in the batch."""
    asserted = _ASSERTED.fullmatch(text)
    return _PLACE.sub(r"\1: ", " ".join((asserted[1] if asserted else text.partition(" [[{{")[0]).split()), count=1)


def _spec(signature: Signature, class_names: list[str]) -> Spec:
    """The shapes that the endpoint declares; pixels are in [0, 1].

    Raises:
        UserError: it declares none.
    """
    image, audio = (signature.inputs.get(name, ("", 0, None))[2] or () for name in MODALITIES)
    if len(image) != 4 or len(audio) != 2:
        raise UserError(f"a version must declare the shapes of its inputs. Found: {image} and {audio}")
    return Spec((image[1], image[2], image[3]), (1, audio[1]), tuple(class_names), 1)


def _range(path: Path) -> tuple[float, float]:
    """The range of the training sounds that a version notes.

    Raises:
        UserError: the file is damaged.
    """
    found = read_json(path)
    return as_range(found.get("audio_range") if isinstance(found, dict) else None, path)
