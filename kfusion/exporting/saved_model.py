"""A run's network as a SavedModel: its endpoints, its verification, and the files that travel with it, `assets.extra`.

    labels.txt                    the class names, a line each
    data.json                     the modalities and the ranges of their training values
    model_card.md                 what the model is, for people
    examples.json                 test samples, one of each class, which the page shows; only of data whose licence is
                                  known: other people's pictures and voices are not passed on unasked
    tf_serving_warmup_requests    requests that a server answers by itself while it loads a model, so that no client
                                  waits for what is slow once: a TFRecord of `PredictionLog`

Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kfusion.data.dataset import Pairs, read_classes, write_classes
from kfusion.environment import environment
from kfusion.exporting.exporter import ExportContext
from kfusion.exporting.runtimes import Request
from kfusion.exporting.samples import BadRequest, Expected, Samples, bad_arrays, bad_files, samples_of
from kfusion.exporting.signatures import (
    DEFAULT,
    RAW_BYTES,
    READ_BYTES,
    Endpoints,
    meanings,
    one_or_all,
    write_saved_model,
)
from kfusion.exporting.verify import ALLOWED, BATCHES, Check, Plan, verify
from kfusion.io import read_json, write_json, write_text
from kfusion.modalities import each_of, front_end_of
from kfusion.modalities.front_ends import note_on
from kfusion.run_dir import CLASSES, OWN_DATA, Run
from kfusion.runtime.protos import Tensors, fill_tensor, message, plain_name, read_array, read_signatures
from kfusion.validation import UserError, reason


def convert(context: ExportContext, folder: Path) -> None:
    """Writes a SavedModel with all that travels with it.

    Args:
        context: of the export.
        folder: where to.

    Raises:
        UserError: the disk does not take it.
    """
    endpoints, real = context.endpoints, _samples(context)
    try:
        write_saved_model(folder, context.network, endpoints)
        requests = [Request(each, real.request(each, size)) for each in endpoints.names for size in WARMUP_BATCHES]
        write_warmup(folder, context.name, requests)
        write_assets(context, folder)
    except tf.errors.OpError as error:
        raise UserError(f"{folder}: the model must be writable. Found: {reason(error)}") from error


def verify_folder(context: ExportContext, folder: Path) -> list[Check]:
    """Verifies a SavedModel; see `verify`.

    Args:
        context: of the export.
        folder: what `convert` wrote.
    """
    return verify(folder, plan_of(folder, context.endpoints, _samples(context), context.expected))


def plan_of(folder: Path, endpoints: Endpoints, real: Samples, expected: Expected) -> Plan:
    """The requests to a model before it is published.

    Args:
        folder: a SavedModel.
        endpoints: what it was made of.
        real: samples.
        expected: the network.
    """
    known, bad = [], list[BadRequest]()
    for signature in endpoints.names:
        for size in BATCHES:
            answer = partial(real.expected, signature, size, expected)
            known.append((Request(signature, real.request(signature, size)), answer))
        # Three whole samples: what is wrong with one row must not pass in the company of good ones.
        make = bad_arrays if signature in endpoints.arrays else bad_files
        bad += make(signature, real.request(signature, 3, whole=True), endpoints.spec)
    ops = ALLOWED.union(*(kind.ops for _, kind, _ in each_of(endpoints.spec)))
    return Plan(known, bad, read_warmup(folder), ops)


def _samples(context: ExportContext) -> Samples:
    return samples_of(context.samples.test, max(BATCHES), context.readers)


FOLDER = "assets.extra"


def write_assets(context: ExportContext, folder: Path) -> None:
    """Writes all but the warmup requests into a SavedModel's folder.

    Args:
        context: of the export.
        folder: a SavedModel.
    """
    run, spec, place = context.run, context.spec, folder / FOLDER
    place.mkdir(exist_ok=True)
    write_text(place / "labels.txt", "".join(f"{label}\n" for label in spec.class_names))
    if run.own_data is not None:
        write_classes(place, read_classes(run.folder / OWN_DATA / CLASSES))
    # By the ranges, a later stage knows values of another scale.
    ranges = {f"{name}_range": context.data[f"{name}_range"] for name in spec.names if f"{name}_range" in context.data}
    # By these, a page sends sounds at the rate at which they are heard.
    hears = {name: kind.hears(shape) for name, kind, shape in each_of(spec) if name in context.readers}
    facts = {"modalities": spec.modalities_json(), "hears": {name: known for name, known in hears.items() if known}}
    columns = {"columns": context.data["source"]["columns"]} if "columns" in context.data["source"] else {}
    write_json(place / "data.json", {**ranges, **{key: value for key, value in facts.items() if value}, **columns})
    parts = [_head(context), _endpoints(context, folder), _data(context), _figures(run), _calibration(context)]
    write_text(place / "model_card.md", "\n".join([*parts, _recipe(run), _versions(run)]))
    write_examples(folder, context.data["source"].get("licence"), context.samples.test)


def _head(context: ExportContext) -> str:
    classes = context.spec.class_names
    shown = ", ".join(classes[:20]) + (f", … ({len(classes)} in all)" if len(classes) > 20 else "")
    words = [
        kind.file_noun if kind.suffixes and name == kind.kind else kind.called(name)
        for name, kind, _ in each_of(context.spec)
    ]
    return (
        f"# {context.name}\n\nNames the class {one_or_all(words, 'of ', ' together')}: {shown}.\n"
        f"Made with kfusion from the run {context.run.folder.resolve().name}.\n"
    )


def _endpoints(context: ExportContext, folder: Path) -> str:
    signatures, kinds = read_signatures(folder), list(each_of(context.spec))
    outputs = signatures[DEFAULT].outputs
    lines = ["## Endpoints", "", "| signature | takes |", "| --- | --- |"]
    lines += [f"| `{name}` | {_tensors(each.inputs)} |" for name, each in signatures.items()]
    bounded = [f"{kind.called(name)}s are in [0, 1]; " for name, kind, _ in kinds if kind.is_bounded()]
    sentence = f"{''.join(bounded)}a request that breaks a rule is answered INVALID_ARGUMENT with a sentence."
    lines += ["", sentence[0].upper() + sentence[1:]]
    arrays = [name for name, _, _ in kinds if name not in context.readers]
    if context.left_out:
        lines.append(f"`{RAW_BYTES}` is left out: {context.left_out}.")
    elif arrays:
        lines.append(
            f"In `{RAW_BYTES}`, a row of NaN in {', '.join(arrays)} is absent, as an empty string is elsewhere."
        )
    nouns = " and ".join(f"the {kind.called(name)}" for name, kind, _ in kinds if name in context.readers)
    heading = f"`{READ_BYTES}` gives {nouns} that `{RAW_BYTES}` reads from files; the others give, for each row:"
    lines += ["", "Each gives, for every row:" if context.left_out else heading, ""]
    lines += ["| output | | |", "| --- | --- | --- |"]
    said = {name: text for name, text in meanings(context.spec).items() if name in outputs}
    lines += [f"| `{name}` | {_tensor(outputs[name])} | {text} |" for name, text in said.items()]
    return "\n".join(lines) + "\n"


def _tensors(tensors: Tensors) -> str:
    return ", ".join(f"`{name}` {_tensor(each)}" for name, each in tensors.items())


def _tensor(tensor: tuple[str, int, tuple[int, ...] | None]) -> str:
    _, dtype, shape = tensor
    sizes = ", ".join("batch" if size < 0 else str(size) for size in shape or ())
    return f"{plain_name(dtype)} ({sizes}{',' if shape and len(shape) == 1 else ''})"


def _data(context: ExportContext) -> str:
    data, source = context.data, context.data["source"]
    sizes = ", ".join(f"{size} {part}" for part, size in data["num_pairs"].items())
    note = note_on(source)
    lines = [f"source: {Path(source['name']).name}; {context.item}s: {sizes}"]
    lines += [f"split: {context.run.config().data.split}; {'; '.join(data['audit'])}"]
    for name, kind, _ in each_of(context.spec):
        if kind.suffixes and not kind.is_bounded():  # Features, which only a known front end makes.
            lines.append(f"front end of the {kind.called(name)}s: {front_end_of(name, source) or 'not known'}")
    lines += [note] if note else []
    lines.append(f"licence: {source.get('licence') or 'not known'}")
    lines += [f"{what} {rows}" for what, rows in context.rows_used.items()] or ["not verified"]
    return "\n".join(["## Data", "", *(f"- {line}" for line in lines), ""])


def _figures(run: Run) -> str:
    rows = run.metrics()["views"].items()
    lines = ["## Test figures", "", "| view | accuracy | rows |", "| --- | --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {row['accuracy']:.4f} | {row['num_rows']} |" for name, row in rows]
    return "\n".join(lines) + "\n"


def _calibration(context: ExportContext) -> str:
    sentence = "The probabilities are the network's own, not calibrated."
    if context.temperature:
        listed = ", ".join(f"{view} {context.temperature[view]:.3f}" for view in context.spec.views)
        sentence = f"The probabilities are tempered, by temperatures fitted on validation: {listed}."
    return f"## Calibration\n\n{sentence}\n"


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


def write_examples(folder: Path, licence: str | None, pairs: Pairs) -> None:
    """Writes the first test sample of each class into a SavedModel's folder, where the data's licence is known.

        {"licence": "…", "examples": [{"class_name": "0", "image": base64 of a PNG file, "audio": [features]}, …]}

    Args:
        folder: a SavedModel.
        licence: of the data; None: it is not known.
        pairs: samples of the test part.
    """
    labels, rows = np.unique(pairs.label, return_index=True)
    labels, rows = labels[:MAX_CLASSES], rows[:MAX_CLASSES]
    values, examples = pairs.read(rows), []
    for place, label in enumerate(labels):
        shown = {name: kind.example(values[name][place], shape) for name, kind, shape in each_of(pairs.spec)}
        examples.append({"class_name": pairs.spec.class_names[label], **shown})
    if licence and all(None not in each.values() for each in examples):
        text = json.dumps({"licence": licence, "examples": examples}, ensure_ascii=False)
        write_text(folder / EXAMPLES_FILE, f"{text}\n")


WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 8)


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
            predict = message("PredictRequest")(model_spec={"name": name, "signature_name": request.signature})
            for alias, values in request.inputs.items():
                fill_tensor(predict.inputs[alias], values)
            log = message("PredictionLog")(predict_log={"request": predict})
            writer.write(log.SerializeToString(deterministic=True))


def read_warmup(folder: Path) -> list[Request]:
    """The requests in a SavedModel's folder; their checksums are compared."""
    requests = []
    for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator():
        predict = message("PredictionLog").FromString(record).predict_log.request
        inputs = {alias: read_array(predict.inputs[alias]) for alias in sorted(predict.inputs)}
        requests.append(Request(predict.model_spec.signature_name, inputs))
    return requests
