"""An exported version as a model: asked through the C API and the same endpoints as a server asks it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.data.scale import as_range
from kfusion.prediction.chunks import Arrays, Files
from kfusion.prediction.models import Answers
from kfusion.rules import UserError
from kfusion.runtime.capi import Refused
from kfusion.runtime.model import ServedModel
from kfusion.runtime.saved_model import ASSETS, LABELS, Signature, read_labels, read_signatures
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec
from kfusion.system.files import file_hash, read_json
from kfusion.system.terminal import quiet

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
