"""The papers that travel with a model, in `assets.extra`: `labels.txt`, `data.json` and `model_card.md`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfusion.contents import CLASSES, OWN_DATA
from kfusion.data.classes import read_classes, write_classes
from kfusion.data.front_ends import note_on
from kfusion.exporting.signatures import OUTPUTS
from kfusion.run import Run
from kfusion.runtime.saved_model import Tensors, read_signatures
from kfusion.spec import VIEWS
from kfusion.system.environment import environment
from kfusion.system.files import read_json, write_json, write_text

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
