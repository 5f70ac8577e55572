"""Status and metadata of a model, in the JSON form of TensorFlow Serving's protocol buffers.

Numbers of 64 bits are strings there, and fields with their default value are written too.
"""

import json
from collections.abc import Iterable
from typing import Any

from kfusion.runtime.dtypes import type_name
from kfusion.runtime.saved_model import Signature
from kfusion.serving.versions import Version

PREDICT = "tensorflow/serving/predict"


def status_body(versions: Iterable[Version]) -> bytes:
    """GetModelStatusResponse, the newest version first."""
    rows = [
        {
            "version": str(version.number),
            "state": version.state,
            "status": {"error_code": "UNKNOWN" if version.error else "OK", "error_message": version.error},
        }
        for version in sorted(versions, key=lambda version: -version.number)
    ]
    return _text({"model_version_status": rows})


def metadata_body(name: str, version: Version) -> bytes:
    """GetModelMetadataResponse with the field signature_def."""
    signatures = {key: _signature(value) for key, value in version.signatures.items()}
    return _text(
        {
            "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
    )


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {alias: _tensor(*info) for alias, info in signature.inputs.items()},
        "outputs": {alias: _tensor(*info) for alias, info in signature.outputs.items()},
        "method_name": PREDICT if signature.inputs else "",
        "defaults": {},
    }


def _tensor(name: str, dtype: int, shape: tuple[int, ...] | None) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in shape or ()]
    return {
        "dtype": type_name(dtype),
        "tensor_shape": {"dim": dims, "unknown_rank": shape is None},
        "name": name,
    }


def _text(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
