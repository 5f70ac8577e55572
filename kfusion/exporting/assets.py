"""The papers that travel with a model, in `assets.extra`: `labels.txt`, `data.json` and `model_card.md`.

Requests that a server answers by itself while it loads a model, so that no client has to wait for what is slow once.

TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`.
Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup

Test pairs that travel with a model, one of each class: `assets.extra/examples.json`, which the page shows.

They come from data whose licence is known only: other people's pictures and voices are not passed on unasked.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.data.classes import read_classes, write_classes
from kfusion.data.dataset import Pairs
from kfusion.environment import environment
from kfusion.exporting.sample_requests import picture_file
from kfusion.exporting.signatures import OUTPUTS
from kfusion.exporting.subprocess_runner import Request
from kfusion.io import read_json, write_json, write_text
from kfusion.modalities.front_ends import note_on
from kfusion.run_dir import CLASSES, OWN_DATA, Run
from kfusion.runtime.protos import Tensors, fill_tensor, message, read_array, read_signatures
from kfusion.spec import VIEWS

FOLDER = "assets.extra"
KINDS = {1: "float32", 3: "int32", 7: "string", 9: "int64", 10: "bool"}


def write_papers(folder: Path, run: Run, name: str, temperature: Mapping[str, float], left_out: str) -> None:
    """Writes them into a SavedModel's folder.

    Args:
        folder: a SavedModel.
        run: what it was made from.
        name: the model's.
        temperature: for each of the `VIEWS`; empty: not calibrated.
        left_out: why there is no `raw_bytes`; "" where there is.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    write_text(folder / FOLDER / "labels.txt", "".join(f"{label}\n" for label in run.spec().class_names))
    if run.own_data is not None:
        write_classes(folder / FOLDER, read_classes(run.folder / OWN_DATA / CLASSES))
    # By this, a later stage knows sounds of another scale.
    write_json(folder / FOLDER / "data.json", {"audio_range": run.data()["audio_range"]})
    parts = (_head(run, name), _endpoints(folder, left_out), _data(run), _figures(run), _calibration(temperature))
    write_text(folder / FOLDER / "model_card.md", "\n".join([*parts, _recipe(run), _versions(run)]))


def _head(run: Run, name: str) -> str:
    classes = run.spec().class_names
    shown = ", ".join(classes[:20]) + (f", … ({len(classes)} in all)" if len(classes) > 20 else "")
    return (
        f"# {name}\n\nNames the class of a picture, of a sound, or of both together: {shown}.\n"
        f"Made with kfusion from the run {run.folder.resolve().name}.\n"
    )


def _endpoints(folder: Path, left_out: str) -> str:
    signatures = read_signatures(folder)
    outputs = signatures["serving_default"].outputs
    lines = ["## Endpoints", "", "| signature | takes |", "| --- | --- |"]
    lines += [f"| `{name}` | {_tensors(each.inputs)} |" for name, each in signatures.items()]
    lines += ["", "Images are in [0, 1]; a request that breaks a rule is answered INVALID_ARGUMENT with a sentence."]
    lines += [f"`raw_bytes` is left out: {left_out}."] if left_out else []
    told = (
        "`read_bytes` gives the image and the sound that `raw_bytes` reads from files; the others give, for each row:"
    )
    lines += ["", "Each gives, for every row:" if left_out else told, "", "| output | | |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {_tensor(outputs[name])} | {meaning} |" for name, meaning in OUTPUTS.items()]
    return "\n".join(lines) + "\n"


def _tensors(tensors: Tensors) -> str:
    return ", ".join(f"`{name}` {_tensor(each)}" for name, each in tensors.items())


def _tensor(tensor: tuple[str, int, tuple[int, ...] | None]) -> str:
    _, dtype, shape = tensor
    sizes = ", ".join("batch" if size < 0 else str(size) for size in shape or ())
    return f"{KINDS.get(dtype, dtype)} ({sizes}{',' if shape and len(shape) == 1 else ''})"


def _data(run: Run) -> str:
    facts = run.data()
    source = facts["source"]
    note = note_on(source)
    sizes = ", ".join(f"{size} {part}" for part, size in facts["num_pairs"].items())
    return "\n".join(
        [
            "## Data",
            "",
            f"- source: {Path(source['name']).name}; pairs: {sizes}",
            f"- split: {run.config().data.split}; {'; '.join(facts['audit'])}",
            f"- front end of the sounds: {source['front_end'] or 'not known'}",
            *([f"- {note}"] if note else []),
            f"- licence: {source.get('licence') or 'not known'}",
            "",
        ]
    )


def _figures(run: Run) -> str:
    rows = run.metrics()["views"].items()
    lines = ["## Test figures", "", "| view | accuracy | rows |", "| --- | --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {row['accuracy']:.4f} | {row['num_rows']} |" for name, row in rows]
    return "\n".join(lines) + "\n"


def _calibration(temperature: Mapping[str, float]) -> str:
    said = "The probabilities are the network's own, not calibrated."
    if temperature:
        listed = ", ".join(f"{view} {temperature[view]:.3f}" for view in VIEWS)
        said = f"The probabilities are tempered, by temperatures fitted on validation: {listed}."
    return f"## Calibration\n\n{said}\n"


def _recipe(run: Run) -> str:
    lines = ["## Settings", "", "| part | settings |", "| --- | --- |"]
    for part, settings in read_json(run.folder / "config.json").items():
        lines.append(f"| {part} | {', '.join(f'{name}={_public(value)}' for name, value in settings.items())} |")
    return "\n".join(lines) + "\n"


def _public(value: Any) -> Any:
    """A setting as strangers may read it: where files lay on the maker's machine is not theirs to know."""
    return Path(value).name if isinstance(value, str) else value


def _versions(run: Run) -> str:
    trained, exported = read_json(run.folder / "environment.json"), environment("float32")
    return (
        f"## Versions\n\n- trained: {_machine(trained)}\n- exported: {_machine(exported)}\n"
        "- weights and arithmetic: float32\n"
    )


def _machine(facts: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    return f"Python {facts['python']}, {packages}; {facts['precision']}; {facts['processor']}"


EXAMPLES_FILE = "assets.extra/examples.json"
MAX_CLASSES = 20


def write_examples(folder: Path, run: Run, pairs: Pairs) -> None:
    """Writes the first test pair of each class into a SavedModel's folder, where the data's licence is known.

        {"licence": "…", "examples": [{"class_name": "0", "image": base64 of a PNG file, "audio": [features]}, …]}

    Args:
        folder: a SavedModel.
        run: what it was made from.
        pairs: its test part.
    """
    spec, licence = pairs.spec, run.data()["source"].get("licence")
    if not licence or spec.image_shape[2] not in (1, 3):
        return
    labels, rows = np.unique(pairs.label, return_index=True)
    labels, rows = labels[:MAX_CLASSES], rows[:MAX_CLASSES]
    examples = [
        {
            "class_name": spec.class_names[label],
            "image": base64.b64encode(picture_file(pixels, spec)).decode("ascii"),
            "audio": [round(value, 3) for value in audio.tolist()],
        }
        for label, pixels, audio in zip(labels, *pairs.read(rows), strict=True)
    ]
    text = json.dumps({"licence": licence, "examples": examples}, ensure_ascii=False)
    write_text(folder / EXAMPLES_FILE, f"{text}\n")


WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 8)


def write_warmup(folder: Path, name: str, requests: Sequence[Request]) -> None:
    """Writes the requests into a SavedModel's folder.

    Args:
        folder: a SavedModel.
        name: the model's, as the server knows it.
        requests: at most 1000, which is all that a server reads.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            asked = message("PredictRequest")(model_spec={"name": name, "signature_name": request.signature})
            for alias, values in request.inputs.items():
                fill_tensor(asked.inputs[alias], values)
            log = message("PredictionLog")(predict_log={"request": asked})
            writer.write(log.SerializeToString(deterministic=True))


def read_warmup(folder: Path) -> list[Request]:
    """The requests in a SavedModel's folder; their checksums are compared."""
    requests = []
    for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator():
        asked = message("PredictionLog").FromString(record).predict_log.request
        inputs = {alias: read_array(asked.inputs[alias]) for alias in sorted(asked.inputs)}
        requests.append(Request(asked.model_spec.signature_name, inputs))
    return requests
