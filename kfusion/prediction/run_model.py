"""The network of a run folder as a model, asked through Keras."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.cli import quiet
from kfusion.data.statistics import as_range
from kfusion.inference import load_fitting
from kfusion.io import file_hash
from kfusion.metrics.classification import temper
from kfusion.modalities.audio.features import can_read_sounds
from kfusion.modalities.front_ends import file_reader, note_on
from kfusion.model.build import with_all_views
from kfusion.prediction.inputs import Arrays, Files
from kfusion.prediction.outputs import Answers
from kfusion.run_dir import open_finished, read_temperature
from kfusion.spec import FUSED, MODALITIES, VIEWS, Spec


class RunModel:
    """The best network of a finished run.

    Args:
        folder: the run folder.
        all_views: also ask what each modality says alone.

    Raises:
        UserError: it is not a finished run, or a file of it is damaged.
    """

    def __init__(self, folder: Path, all_views: bool) -> None:
        run = open_finished(folder)
        facts = run.data()
        self.folder, self.spec, self.all_views = folder, run.spec(), all_views
        self.audio_range: tuple[float, float] | None = as_range(facts["audio_range"], folder / "data.json")
        self.unreadable = _unreadable(facts["source"]["front_end"], self.spec)
        self.note = note_on(facts["source"])
        self.temperature = read_temperature(run)
        own = "the network's own, not calibrated"
        self.said = f"confidences: {f'tempered by {run.calibration.name}' if self.temperature else own}"
        self.identity = f"{file_hash(run.best)} {self.temperature}"
        network = load_fitting(run)
        asked = with_all_views(network) if all_views else network
        scale = float(self.spec.pixel_max)
        signature = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in network.input.items()}

        def answer(batch: dict[str, Any]) -> Any:
            return asked({**batch, "image": batch["image"] * scale}, training=False)

        # Concrete: to TensorFlow, the functions of several runs in one process look like one that is traced again.
        self._answer = tf.function(answer, input_signature=[signature]).get_concrete_function()

    def prepare(self, rows: Arrays | Files) -> Arrays:
        if isinstance(rows, Arrays):
            return rows
        image, image_reason = self._read("image", rows.image)
        audio, audio_reason = self._read("audio", rows.audio)
        reasons = zip(rows.reason, image_reason, audio_reason, strict=True)
        reason = [next(filter(None, each), "") for each in reasons]
        return Arrays(image / np.float32(self.spec.pixel_max), audio, rows.present, reason)

    def _read(self, kind: str, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str]]:
        """Files of one modality as a network takes them, and why some could not be read."""
        shape = self.spec.image_shape if kind == "image" else (self.spec.num_audio,)
        if not any(contents):
            return np.zeros((len(contents), *shape), np.float32), [""] * len(contents)
        try:
            with quiet(even_if_failing=True):
                values, reason = file_reader(kind, self.spec)(tf.constant(contents))
            return values.numpy(), [f"{kind}: {text.decode()}" if text else "" for text in reason.numpy()]
        except tf.errors.OpError as error:
            # What only the decoder finds damaged fails the whole batch: in halves, it fails alone in the end.
            if len(contents) == 1:
                return np.zeros((1, *shape), np.float32), [f"{kind}: cannot be decoded. Found: {_sentence(error)}"]
            middle = len(contents) // 2
            halves = [self._read(kind, half) for half in (contents[:middle], contents[middle:])]
            return np.concatenate([values for values, _ in halves]), [text for _, reason in halves for text in reason]

    def answer(self, rows: Arrays | Files) -> Answers:
        rows = self.prepare(rows)
        # Something must be there to be asked about, even where the answer will be thrown away.
        present = rows.present | ~rows.present.any(axis=1, keepdims=True)
        batch = {"image": rows.image, "audio": rows.audio, "present": present}
        said = self._answer({name: tf.constant(values) for name, values in batch.items()}).numpy()
        if not self.all_views:
            return {FUSED: said}
        return self._tempered({view: said[:, index] for index, view in enumerate(VIEWS)}, present)

    def _tempered(self, answers: Answers, present: np.ndarray) -> Answers:
        """Each view by its own temperature; the answer to one modality that is alone, by that one's."""
        if not self.temperature:
            return answers
        finite = {view: np.nan_to_num(said, nan=1.0) for view, said in answers.items()}
        tempered = {view: temper(said, self.temperature[view]) for view, said in finite.items()}
        for index, view in enumerate(MODALITIES):
            alone = present[:, index] & ~present.all(axis=1)
            tempered[FUSED][alone] = tempered[view][alone]
        return tempered


def _sentence(error: tf.errors.OpError) -> str:
    """The first line of what an operation says, without the graph's names."""
    line = str(error.message).splitlines()[0]
    return line.removeprefix("{{function_node ").partition("}} ")[2] or line


def _unreadable(front_end: str | None, spec: Spec) -> dict[str, str]:
    """For each modality whose files cannot become what the network was trained on: why."""
    reasons, channels = {}, spec.image_shape[2]
    if channels not in (1, 3):
        reasons["image"] = f"picture files have 1 or 3 channels, the training data's images {channels}"
    if not can_read_sounds(front_end, spec):
        known = "is not known" if front_end is None else f"({front_end}) is none that reads files"
        reasons["audio"] = f"the front end of its training sounds {known}"
    return reasons
