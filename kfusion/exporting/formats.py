"""A run -> one file for another runtime, proved before it is put in place.

    saved_models/NAME-litert/VERSION/model.tflite         float32
    saved_models/NAME-litert-int8/VERSION/model.tflite    8-bit integers
    saved_models/NAME-onnx/VERSION/model.onnx

A folder for each format: one that TensorFlow Serving watches must hold SavedModels only.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from kfusion import __version__
from kfusion.data.pairs import Pairs
from kfusion.exporting.convert import to_int8, to_litert, to_onnx, with_facts
from kfusion.exporting.exporter import Options, say
from kfusion.exporting.frozen import freeze
from kfusion.exporting.parity import same_accuracy, same_answers
from kfusion.exporting.portable import FORMATS, check_extra
from kfusion.exporting.publish import Shelf
from kfusion.exporting.verify import Check, Unproven, table
from kfusion.material import load_own
from kfusion.run import Run
from kfusion.spec import Spec
from kfusion.system.environment import environment
from kfusion.system.files import write_atomically
from kfusion.system.terminal import quiet
from kfusion.temperature import read_temperature

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
