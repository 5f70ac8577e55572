"""The paths of TensorFlow Serving's REST interface, read.

Reference: tensorflow.org/tfx/serving/api_rest; a path that has another form is 400, "Malformed request", there too.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from kfusion.serving.answers import Refusal

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(classify|regress|predict)", re.ASCII | re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(?:/(metadata))?", re.ASCII | re.IGNORECASE)
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Target:
    """What a path means.

    Args:
        verb: "status", "metadata", "predict", "classify" or "regress".
        model: the model's name.
        version, label: which version is asked; neither: the latest.
    """

    verb: str
    model: str
    version: int | None
    label: str | None


def read_path(method: str, path: str) -> Target:
    """The meaning of a path below /v1, still percent-encoded.

    Raises:
        Refusal: 400, as the real server has it.
    """
    if method == "GET" and path.rstrip("/").lower() == "/v1/models":
        raise Refusal(400, "Missing model name in request.")
    pattern = {"POST": _PREDICT, "GET": _STATUS}.get(method)
    found = pattern.fullmatch(path) if pattern else None
    if found is None:
        raise Refusal(400, f"Malformed request: {method} {path[:200]}")
    model, version, label, verb = found.groups()
    # Shortened first: Python refuses to read thousands of digits.
    number = None if version is None else int(version.lstrip("0")[:20] or "0")
    if number is not None and number > MAX_INT64:
        raise Refusal(400, f"Failed to convert version: {(version or '')[:40]} to numeric.")
    return Target(
        verb=(verb or "status").lower(),
        model=unquote(model),
        version=number,
        label=None if label is None else unquote(label),
    )
