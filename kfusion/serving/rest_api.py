"""TensorFlow Serving's REST interface, all below /v1: paths, status, metadata and predict requests of one model.

Status and metadata have the JSON form of protocol buffers: numbers of 64 bits are strings, and fields with their
default value are written too.

Reference: tensorflow.org/tfx/serving/api_rest; a path of another form is 400, "Malformed request", there too.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
from starlette.exceptions import HTTPException

from kfusion.runtime.c_api import Refused
from kfusion.runtime.protos import Signature, type_name
from kfusion.serving.batching import Batcher
from kfusion.serving.json_codec import read_inputs, read_request, write_outputs
from kfusion.serving.limits import Limits
from kfusion.serving.middleware import GRPC_TO_HTTP, JsonResponse, read_body
from kfusion.serving.model_manager import Models, Version

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
    """GetModelMetadataResponse with the field signature_def.

    Args:
        name: the model's.
        version: the version whose signatures are written.
    """
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


_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(classify|regress|predict)", re.ASCII | re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(?:/(metadata))?", re.ASCII | re.IGNORECASE)
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Target:
    """A parsed path.

    Args:
        verb: "status", "metadata", "predict", "classify" or "regress".
        model: the model's name.
        version, label: which version; neither: the latest.
    """

    verb: str
    model: str
    version: int | None
    label: str | None


def read_path(method: str, path: str) -> Target:
    """Parses a path below /v1.

    Args:
        method: GET or POST.
        path: still percent-encoded.

    Raises:
        HTTPException: 400, as the real server has it.
    """
    if method == "GET" and path.rstrip("/").lower() == "/v1/models":
        raise HTTPException(400, "Missing model name in request.")
    pattern = {"POST": _PREDICT, "GET": _STATUS}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise HTTPException(400, f"Malformed request: {method} {path[:200]}")
    model, version, label, verb = match.groups()
    # Shortened first: Python refuses to read thousands of digits.
    number = None if version is None else int(version.lstrip("0")[:20] or "0")
    if number is not None and number > MAX_INT64:
        raise HTTPException(400, f"Failed to convert version: {(version or '')[:40]} to numeric.")
    return Target(
        verb=(verb or "status").lower(),
        model=unquote(model),
        version=number,
        label=None if label is None else unquote(label),
    )


ASSERTED = "assertion failed: ["


class Api:
    """TensorFlow Serving's REST interface for one model.

    Args:
        models: its versions.
        batcher: runs them.
        limits: of requests.
    """

    def __init__(self, models: Models, batcher: Batcher, limits: Limits) -> None:
        self._models, self._batcher, self._limits = models, batcher, limits

    async def respond(self, scope: Any, headers: Mapping[bytes, bytes], receive: Any) -> JsonResponse:
        """The response to one request below /v1.

        Args:
            scope: ASGI's.
            headers: the request's, names in lower case.
            receive: ASGI's, which gives the body.

        Raises:
            HTTPException: the request is bad, or cannot be served now.
        """
        target = read_path(scope["method"], scope["raw_path"].decode("latin-1"))
        if target.verb == "status":
            return self._status(target)
        version = self._models.find(target.model, target.version, target.label)
        if target.verb == "metadata":
            return JsonResponse(metadata_body(self._models.name, version))
        if target.verb != "predict":
            raise HTTPException(
                400, f"Expected a signature for {target.verb}; this model has signatures for predict only"
            )
        return await self._predict(target, await read_body(headers, receive, self._limits))

    def _status(self, target: Target) -> JsonResponse:
        versions = self._models.versions if target.model == self._models.name else {}
        number = target.version
        if target.label is not None and versions:
            number = self._models.find(target.model, None, target.label).number
        if number is None:
            if not versions:
                raise HTTPException(404, f"Could not find any versions of model {target.model[:100]}")
            return JsonResponse(status_body(versions.values()))
        if number not in versions:
            raise HTTPException(404, f"Could not find version {number} of model {target.model[:100]}")
        return JsonResponse(status_body([versions[number]]))

    async def _predict(self, target: Target, body: bytes) -> JsonResponse:
        limits = self._limits
        request = read_request(body, limits.max_depth)
        # Found once more, and from here to `submit` without waiting: the version may have changed meanwhile.
        version = self._models.find(target.model, target.version, target.label)
        signature = version.signatures.get(request.signature)
        if signature is None:
            raise HTTPException(400, f'Serving signature name: "{request.signature[:100]}" not found in signature def')
        inputs, num_rows = read_inputs(request, signature, limits.max_batch)
        name, by_rows = request.signature, request.by_rows
        del request, body  # Frees their memory while the model runs.
        outputs = await self._outputs(version, name, inputs, num_rows)
        body = write_outputs(outputs, by_rows)
        return JsonResponse(body, version=version.number, signature=name, rows=num_rows)

    async def _outputs(
        self, version: Version, signature: str, inputs: dict[str, np.ndarray], num_rows: int
    ) -> dict[str, np.ndarray]:
        job = self._batcher.submit(version, signature, inputs, num_rows)
        late = asyncio.get_running_loop().call_later(self._limits.timeout_s, job.cancel)
        try:
            return await job
        except Refused as error:
            raise HTTPException(GRPC_TO_HTTP.get(error.number, 500), _sentence(str(error))) from error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            sentence = f"no answer within {self._limits.timeout_s:g} s; send fewer rows at a time, or come back later"
            raise HTTPException(504, sentence) from None
        finally:
            late.cancel()
            # An error holds this frame, and the future the error: a circle that would keep the tensors.
            del job


def _sentence(text: str) -> str:
    """The runtime's error without the places in the graph that it names after the sentence."""
    text = text.partition("\n\t [[")[0].partition(" [[{{node")[0].strip()
    asserted = text.startswith(ASSERTED) and text.endswith("]")
    return (text[len(ASSERTED) : -1] if asserted else text)[:1000]
