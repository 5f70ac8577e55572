"""What the page has to know of the model, beyond what the REST interface tells: `/model.json`."""

import base64
import binascii
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kfusion.rules import UserError
from kfusion.runtime.saved_model import ASSETS, LABELS, read_labels
from kfusion.serving.models import Models
from kfusion.serving.versions import Version
from kfusion.system.files import read_json

T = TypeVar("T")
logger = logging.getLogger("kfusion.serve")
EXAMPLES = "examples.json"
NOTHING = "", 0, ()


def about(models: Models) -> dict[str, Any] | None:
    """Name, version, endpoints, class names and examples of the newest version that answers; None: there is none.

    {"name", "version", "signatures": [names], "image_shape": [height, width, channels], "class_names": [names],
    "licence": of the examples, "examples": [{"class_name", "image": base64 of a PNG file, "audio": [features]}, …]}

    A file that is damaged counts as one that is not there; the log says so once.
    """
    version = newest(models)
    if version is None:
        return None
    image_only = version.signatures.get("image_only")
    _, _, shape = image_only.inputs.get("image", NOTHING) if image_only else NOTHING
    default = version.signatures.get("serving_default")
    names = _read(version, LABELS, lambda _: read_labels(version.folder, default), [])
    licence, examples = _read(version, EXAMPLES, read_examples, ("", []))
    return {
        "name": models.name,
        "version": version.number,
        "signatures": sorted(name for name, each in version.signatures.items() if each.inputs),
        "image_shape": list(shape or ())[1:],
        "class_names": names,
        "licence": licence,
        "examples": examples,
    }


def newest(models: Models) -> Version | None:
    """The version that answers a request which names none."""
    ready = [version for version in models.versions.values() if version.state == "AVAILABLE"]
    return max(ready, key=lambda version: version.number, default=None)


def _read(version: Version, name: str, read: Callable[[Path], T], nothing: T) -> T:
    """What a file that travels with a version holds; `nothing` where it is missing or damaged."""
    path = version.folder / ASSETS / name
    if not path.exists():
        return nothing
    try:
        return read(path)
    except (UserError, OSError, RecursionError) as error:
        if name not in version.damaged:
            version.damaged.add(name)
            found = str(error).replace(str(version.folder), str(version.number))
            logger.warning("file left out", extra={"version": version.number, "file": name, "error": found})
        return nothing


def read_examples(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Licence and examples in `examples.json`.

    Raises:
        UserError: the file is damaged.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("examples"), list):
        raise UserError(f"{path}: must hold a list 'examples'. Found: {type(found).__name__}")
    for row, example in enumerate(found["examples"]):
        if not _is_example(example):
            raise UserError(
                f"{path}: example {row} must have 'class_name', 'image' and 'audio'. Found: {example!r:.80}"
            )
    return str(found.get("licence") or ""), found["examples"]


def _is_example(example: Any) -> bool:
    if not isinstance(example, dict) or not isinstance(example.get("class_name"), str):
        return False
    image, audio = example.get("image"), example.get("audio")
    if not isinstance(image, str) or not isinstance(audio, list):
        return False
    try:
        base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        return False
    # JSON that browsers read has no NaN.
    return all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in audio)
