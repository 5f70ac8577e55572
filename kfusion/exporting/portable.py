"""A run -> one file for another runtime, proved before it is put in place.

    saved_models/NAME-litert/VERSION/model.tflite         float32
    saved_models/NAME-litert-int8/VERSION/model.tflite    8-bit integers
    saved_models/NAME-onnx/VERSION/model.onnx

A folder for each format: one that TensorFlow Serving watches must hold SavedModels only.

The proof of a file for another runtime: it answers as the network does, or classifies as well.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from kfusion import __version__
from kfusion.cli import quiet
from kfusion.data.dataset import Pairs
from kfusion.environment import environment
from kfusion.exporting.converters import freeze, to_int8, to_litert, to_onnx, with_facts
from kfusion.exporting.model_store import Shelf
from kfusion.exporting.portable_runtime import FORMATS, OUTPUTS, check_extra, open_portable
from kfusion.exporting.sample_requests import Arrays, Expected
from kfusion.exporting.saved_model import Options, say
from kfusion.exporting.verify import BATCHES, TOLERANCE, Check, Unproven, distance, table
from kfusion.io import write_atomically
from kfusion.prepared_data import load_own
from kfusion.run_dir import Run, read_temperature
from kfusion.spec import FUSED, VIEWS, Spec

PARTS = {"probabilities": tuple(name for name in OUTPUTS if name != "embedding"), "embedding": ("embedding",)}
EMBEDDING_TOLERANCE = 1e-4
"""Of an embedding, in which the runtimes' roundings have not gone through a softmax yet, as a share of its scale."""
MAX_DROP, MAX_ROWS = 0.005, 2
"""An 8-bit file may lose this share of its accuracy, or this many rows where that is more, in each view."""
BATCH_SIZE = 250


def same_answers(path: Path, network: keras.Model, pairs: Pairs, temperature: Mapping[str, float]) -> list[Check]:
    """Whether a file gives the network's answers to real pairs, one check for each of the `VIEWS`.

    An absent modality is given as NaN, which must have no influence.

    Args:
        path: the file.
        network: what it was made from, asked through Keras.
        pairs: as many as the largest of the `BATCHES` are used.
        temperature: as for `frozen.freeze`.
    """
    with quiet():
        model = open_portable(path)
    rows = np.arange(max(BATCHES)) % len(pairs)
    pixels, audio = pairs.read(rows)
    expected = Expected(network, pairs.spec.class_names, temperature)
    image = pixels / np.float32(pairs.spec.pixel_max)
    checks = []
    for view, there in VIEWS.items():
        present = np.tile([there], (len(rows), 1))
        known = expected.answer(pixels, audio, present)
        # Embeddings of another scale than a probability's, as late fusion's, are compared by their scale.
        scale = max(1.0, float(np.abs(known["embedding"]).max()))
        given = [
            values if is_there else np.full_like(values, np.nan)
            for values, is_there in zip((image, audio), there, strict=True)
        ]
        off = dict.fromkeys(PARTS, 0.0)
        for size in BATCHES:
            answer = model.ask(given[0][:size], given[1][:size], present[:size])
            for part, names in PARTS.items():
                off[part] = max(off[part], distance(_only(answer, names), _only(known, names, size)))
        found = ", ".join(f"{part} ± {value:.1e}" for part, value in off.items())
        passed = off["probabilities"] <= TOLERANCE and off["embedding"] <= EMBEDDING_TOLERANCE * scale
        checks.append(Check(_title(view), passed, found))
    return checks


def _only(answer: Arrays, names: tuple[str, ...], size: int | None = None) -> Arrays:
    return {name: answer[name][:size] for name in names}


def same_accuracy(path: Path, exact: Path, pairs: Pairs) -> list[Check]:
    """Whether a file classifies as well as an exact one, in each of the `VIEWS`.

    Args:
        path: the file, of 8-bit integers.
        exact: of the same network, in float32.
        pairs: labelled; all are used.
    """
    right, wanted = _num_right(path, pairs), _num_right(exact, pairs)
    allowed = max(MAX_ROWS, int(MAX_DROP * len(pairs)))
    checks = []
    for view in VIEWS:
        share = {"int8": right[view] / len(pairs), "float32": wanted[view] / len(pairs)}
        drop = 100 * (share["float32"] - share["int8"])
        found = f"accuracy {share['int8']:.4f}, drop {drop:.2f} points, {len(pairs)} rows"
        checks.append(Check(f"int8, {_title(view)}", wanted[view] - right[view] <= allowed, found))
    return checks


def _title(view: str) -> str:
    return "both" if view == FUSED else f"{view} alone"


def _num_right(path: Path, pairs: Pairs) -> dict[str, int]:
    """How many pairs a file gets right, for each of the `VIEWS`."""
    right = dict.fromkeys(VIEWS, 0)
    for label, answer in _answers(path, pairs):
        said = {FUSED: answer["label"]}
        said |= {view: answer[f"{view}_probabilities"].argmax(axis=1) for view in VIEWS if view != FUSED}
        for view, classes in said.items():
            right[view] += int((classes == label).sum())
    return right


def _answers(path: Path, pairs: Pairs) -> Iterator[tuple[np.ndarray, Arrays]]:
    with quiet():
        model = open_portable(path)
    for start in range(0, len(pairs), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(pairs)))
        pixels, audio = pairs.read(rows)
        image = pixels / np.float32(pairs.spec.pixel_max)
        yield pairs.label[rows], model.ask(image, audio, np.ones((len(rows), 2), bool))


NUM_CALIBRATION = 300
"""Training pairs that fix the ranges of an int8 file's convolutions."""
Temperature = Mapping[str, float]
Checks = list[Check]
Proof = Callable[[Path], Checks]


def export_portable(
    kind: str, run: Run, network: keras.Model, shelf: Shelf, options: Options, console: Console | None = None
) -> Path:
    """Exports a run's network as one file, proves it, and publishes it.

    Args:
        kind: one of `FORMATS`.
        run, network, shelf, options, console: as `exporter.export`.

    Returns:
        The file.

    Raises:
        UserError: the run, the data or the shelf break a rule, or an extra is missing.
        Unproven: the file does not answer as the network does; nothing is published.
    """
    check_extra(FORMATS[kind].extra)
    if options.version is not None:
        shelf.check_free(options.version)
    _, parts = load_own(run)
    temperature = read_temperature(run) if options.calibrate else {}
    say(console, run, temperature, "")
    with shelf.workshop() as place:
        made = place / "model"
        made.mkdir()
        path = made / f"model{FORMATS[kind].suffix}"
        calibration = parts.train if kind == "litert-int8" else None
        test = parts.test if options.verify else None
        facts = facts_of(run, temperature)
        if kind == "onnx":
            checks = write_onnx(network, run.spec(), path, test, facts, temperature)
        else:
            checks = write_litert(network, run.spec(), path, test, facts, temperature, calibration)
        if console and checks:
            console.print(table(checks))
        return shelf.publish(made, options.version) / path.name


def write_litert(
    network: keras.Model,
    spec: Spec,
    path: Path,
    test: Pairs | None,
    facts: Mapping[str, Any],
    temperature: Temperature | None = None,
    calibration: Pairs | None = None,
) -> Checks:
    """Writes a .tflite file, unless it answers otherwise than the network.

    Args:
        network: {"image", "audio", "present"} -> probabilities.
        spec: its shapes.
        path: the file to be.
        test: real labelled pairs to prove it on; None: it is not proved.
        facts: what the file carries: see `facts_of`.
        temperature: for each of the `VIEWS`, by which its probabilities are tempered; None: they stay as they are.
        calibration: training pairs; with them, the file is of 8-bit integers.

    Returns:
        What was proved.

    Raises:
        Unproven: it answers otherwise; no file is there then.
        UserError: an extra is missing.
    """
    check_extra("litert")
    with quiet():
        content = to_litert(freeze(network, spec, temperature or {}))
    whole, same = with_facts(content, facts), _same(network, test, temperature)
    if calibration is None:
        return put_in_place(path, whole, same)
    with quiet():
        small = with_facts(to_int8(content, one_by_one(calibration)), facts)
    if test is None:
        return put_in_place(path, small, lambda _: [])
    exact = path.with_name(f".float32-{path.name}")
    try:
        # The float32 file, itself proved, is what the 8-bit one is measured against.
        checks = put_in_place(exact, whole, same)
        return checks + put_in_place(path, small, lambda file: same_accuracy(file, exact, test))
    finally:
        exact.unlink(missing_ok=True)


def write_onnx(
    network: keras.Model,
    spec: Spec,
    path: Path,
    test: Pairs | None,
    facts: Mapping[str, Any],
    temperature: Temperature | None = None,
) -> Checks:
    """Writes a .onnx file, unless it answers otherwise than the network; arguments as `write_litert`."""
    check_extra("onnx")
    with quiet():
        content = to_onnx(freeze(network, spec, temperature or {}), facts)
    return put_in_place(path, content, _same(network, test, temperature))


def facts_of(run: Run, temperature: Temperature) -> dict[str, Any]:
    """What a file says of itself, ready for JSON."""
    data, spec = run.data(), run.spec()
    return {
        "class_names": list(spec.class_names),
        "image_shape": list(spec.image_shape),
        "image_range": [0, 1],
        "num_audio": spec.num_audio,
        "audio_range": data["audio_range"],
        "front_end": data["source"]["front_end"],
        "data": Path(data["source"]["name"]).name,
        "licence": data["source"].get("licence"),
        "test": {view: row["accuracy"] for view, row in run.metrics()["views"].items()},
        "temperature": dict(temperature),
        "versions": {**environment("float32")["packages"], "kfusion": __version__},
    }


def _same(network: keras.Model, test: Pairs | None, temperature: Temperature | None) -> Proof:
    return lambda file: same_answers(file, network, test, temperature or {}) if test else []


def put_in_place(path: Path, content: bytes, prove: Proof) -> Checks:
    """Writes a file, opens it again and proves it, and only then gives it its name."""
    checks: Checks = []

    def write(partial: Path) -> None:
        partial.write_bytes(content)
        checks.extend(prove(partial))
        failed = [check for check in checks if not check.passed]
        if failed:
            raise Unproven(f"{path.name}: must answer as the network does. Found: {failed[0].title}: {failed[0].found}")

    write_atomically(path, write)
    return checks


def one_by_one(pairs: Pairs) -> Iterator[dict[str, np.ndarray]]:
    """Some pairs, evenly over a part, as the inputs of a file."""
    rows = np.linspace(0, len(pairs) - 1, min(NUM_CALIBRATION, len(pairs))).astype(int)
    pixels, audio = pairs.read(rows)
    image = pixels / np.float32(pairs.spec.pixel_max)
    for row in range(len(rows)):
        yield {"image": image[row : row + 1], "audio": audio[row : row + 1], "present": np.ones((1, 2), bool)}
