"""What the page has to know of the model, beyond what the REST interface tells: `/model.json`."""

import json
from pathlib import Path
from typing import Any

from kfusion.serving.models import Models
from kfusion.serving.versions import Version

FOLDER = "assets.extra"
NOTHING = "", 0, ()


def about(models: Models) -> dict[str, Any] | None:
    """Name, version, endpoints, class names and examples of the newest version that answers; None: there is none.

    {"name", "version", "signatures": [names], "image_shape": [height, width, channels], "class_names": [names],
    "licence": of the examples, "examples": [{"class_name", "image": base64 of a PNG file, "audio": [features]}, …]}
    """
    version = newest(models)
    if version is None:
        return None
    given = version.folder / FOLDER
    image_only = version.signatures.get("image_only")
    _, _, shape = image_only.inputs.get("image", NOTHING) if image_only else NOTHING
    return {
        "name": models.name,
        "version": version.number,
        "signatures": sorted(name for name, each in version.signatures.items() if each.inputs),
        "image_shape": list(shape or ())[1:],
        "class_names": _text(given / "labels.txt").splitlines(),
        "licence": "",
        "examples": [],
        **json.loads(_text(given / "examples.json") or "{}"),
    }


def newest(models: Models) -> Version | None:
    """The version that answers a request which names none."""
    ready = [version for version in models.versions.values() if version.state == "AVAILABLE"]
    return max(ready, key=lambda version: version.number, default=None)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
