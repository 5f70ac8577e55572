"""The server as an ASGI application.

/v1/…                                          TensorFlow Serving's REST interface
/healthz                                       200 while a version is served, else 503
/monitoring/prometheus/metrics, /metrics       for Prometheus
/                                              the page, and /model.json, what the page needs to know of the model
"""

import base64
import binascii
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from kfusion.io import read_json
from kfusion.runtime.protos import ASSETS, LABELS, Signature, read_labels
from kfusion.serving.limits import Limits
from kfusion.serving.middleware import (
    SECURITY,
    JsonResponse,
    Monitoring,
    RequestLog,
    check_sender,
    error_body,
    error_response,
)
from kfusion.serving.model_manager import Models, Version
from kfusion.serving.rest_api import Api
from kfusion.spec import Spec
from kfusion.validation import UserError

T = TypeVar("T")
logger = logging.getLogger("kfusion.serve")
EXAMPLES = "examples.json"
NO_SIGNATURE = Signature({}, {})


def model_info(models: Models) -> dict[str, Any] | None:
    """What the page needs to know of the newest version that is served; None: there is none.

    {"name", "version", "signatures": [names], "modalities": [{"name", "shape": of one sample, "takes_files"[,
    "hears"]}, …], "image_shape": [height, width, channels], "class_names": [names], "licence": of the examples,
    "examples": [{"class_name", and for each modality a file in base64, a list of numbers, or null}, …]}

    A damaged file counts as missing, and is logged once.
    """
    version = models.newest
    if version is None:
        return None
    default = version.signatures.get("serving_default", NO_SIGNATURE)
    facts = _read(version, "data.json", read_json, {})
    modalities = modalities_of(version.signatures, facts if isinstance(facts, dict) else {})
    names = [modality["name"] for modality in modalities]
    class_names = _read(version, LABELS, lambda _: read_labels(version.folder, default), [])
    licence, examples = _read(version, EXAMPLES, lambda path: read_examples(path, names), ("", []))
    return {
        "name": models.name,
        "version": version.number,
        "signatures": sorted(name for name, signature in version.signatures.items() if signature.inputs),
        "modalities": modalities,
        # Clients of versions of two modalities know the shape by this key.
        "image_shape": next((modality["shape"] for modality in modalities if modality["name"] == "image"), []),
        "class_names": class_names,
        "licence": licence,
        "examples": examples,
    }


def modalities_of(signatures: dict[str, Signature], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The modalities of a version of kfusion's, by name; none of any other SavedModel.

    Args:
        signatures: the version's.
        facts: the content of its data.json.

    Returns:
        {"name", "shape": of one sample, "takes_files": whether `raw_bytes` and `read_bytes` read it} for each; "hears"
        of sounds in files: see `Modality.hears`. Their order is the model's, in which outputs such as "used" have a
        column for each; a signature's inputs have lost it.
    """
    default = signatures.get("serving_default", NO_SIGNATURE)
    file_inputs = [signatures.get(name, NO_SIGNATURE).inputs for name in ("raw_bytes", "read_bytes")]
    hears = facts.get("hears")
    heard = hears if isinstance(hears, dict) else {}
    noted = facts.get("modalities")
    order = [*(noted if isinstance(noted, dict) else Spec().names), *default.inputs]
    return [
        {
            "name": name,
            "shape": list(shape or ())[1:],
            "takes_files": all(f"{name}_bytes" in inputs for inputs in file_inputs),
            **({"hears": heard[name]} if name in heard else {}),
        }
        for name, (_, _, shape) in sorted(default.inputs.items(), key=lambda each: order.index(each[0]))
        if "probabilities" in default.outputs
    ]


def _read(version: Version, name: str, read: Callable[[Path], T], nothing: T) -> T:
    """The content of a file beside the model; `nothing` where it is missing or damaged."""
    path = version.folder / ASSETS / name
    if not path.exists():
        return nothing
    try:
        return read(path)
    except (UserError, OSError, RecursionError) as error:
        if name not in version.damaged:
            version.damaged.add(name)
            text = str(error).replace(str(version.folder), str(version.number))
            logger.warning("file left out", extra={"version": version.number, "file": name, "error": text})
        return nothing


def read_examples(path: Path, names: Sequence[str] = ()) -> tuple[str, list[dict[str, Any]]]:
    """Licence and examples in `examples.json`.

    Args:
        path: of the file.
        names: modalities of which each example must have a value.

    Raises:
        UserError: the file is damaged.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("examples"), list):
        raise UserError(f"{path}: must hold a list 'examples'. Found: {type(document).__name__}")
    for row, example in enumerate(document["examples"]):
        if not _is_example(example, names):
            rule = f"example {row} must have 'class_name' and a value of each modality"
            raise UserError(f"{path}: {rule}. Found: {example!r:.80}")
    return str(document.get("licence") or ""), document["examples"]


def _is_example(example: Any, names: Sequence[str]) -> bool:
    if not isinstance(example, dict) or not isinstance(example.get("class_name"), str):
        return False
    values = {name: value for name, value in example.items() if name != "class_name"}
    return values.keys() >= set(names) and all(map(_is_value, values.values()))


def _is_value(value: Any) -> bool:
    """Whether a browser can show and send it: base64 of a file, or numbers; null where a sample cannot be shown."""
    if isinstance(value, str):
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return True
    if not isinstance(value, list):
        return value is None
    # JSON that browsers read has no NaN.
    return all(type(number) in (int, float) and abs(number) <= sys.float_info.max for number in value)


PAGE = Path(__file__).parent / "page"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
SENTENCES = {404: "nothing is here; the REST interface begins at /v1/models", 405: "use GET here"}
NOT_LOADED = "no version of the model is loaded"
NO_STORE = (b"cache-control", b"no-store")


class App:
    """The application: checks, answers, counts and logs each request.

    Args:
        api: responds below /v1.
        models: the served versions.
        limits: of requests.
        monitoring: counts requests.
        log: gets a line for each request below /v1.
        hosts: the names the server answers to; None: any.
    """

    def __init__(
        self,
        api: Api,
        models: Models,
        limits: Limits,
        monitoring: Monitoring,
        log: RequestLog,
        hosts: frozenset[str] | None,
    ) -> None:
        self._api, self._limits, self._monitoring, self._log, self._hosts = api, limits, monitoring, log, hosts
        self._in_work = 0
        self._site = _site(models, monitoring)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request; `scope`, `receive` and `send` are ASGI's."""
        if scope["type"] != "http":
            return await self._site(scope, receive, send)
        if scope["path"][:4].lower() != "/v1/":
            return await self._other(scope, receive, send)
        began = time.perf_counter()
        response = await self._respond(scope, receive)
        seconds = time.perf_counter() - began
        if scope["method"] == "POST":
            self._monitoring.predicted(response.status_code, seconds)
        self._log.add(
            method=scope["method"],
            path=scope["path"][:200],
            status=response.status_code,
            milliseconds=round(seconds * 1e3, 3),
            bytes=len(response.body),
            **response.log_fields,
        )
        response.raw_headers += [NO_STORE, *SECURITY]
        await response(scope, receive, send)

    async def _respond(self, scope: Any, receive: Any) -> JsonResponse:
        """The response to a REST request, whatever happens."""
        if self._in_work >= self._limits.max_requests:
            sentence = f"{self._limits.max_requests} requests are in work, as many as may be; come back later"
            return error_response(HTTPException(503, sentence))
        self._in_work += 1
        self._monitoring.in_work.set(self._in_work)
        try:
            headers = dict(scope["headers"])
            check_sender(headers, self._hosts)
            return await self._api.respond(scope, headers, receive)
        except HTTPException as error:
            return error_response(error)
        except Exception:
            logger.exception("request failed")
            return JsonResponse(error_body("the server failed to answer; its log says where"), 500)
        finally:
            self._in_work -= 1
            self._monitoring.in_work.set(self._in_work)

    async def _other(self, scope: Any, receive: Any, send: Any) -> None:
        """Health, metrics and the page."""

        async def send_secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY]
            await send(message)

        application: Any = self._site
        try:
            check_sender(dict(scope["headers"]), self._hosts)
        except HTTPException as error:
            application = error_response(error)
        await application(scope, receive, send_secured)


def _site(models: Models, monitoring: Monitoring) -> Starlette:
    """Health, metrics and the page."""

    async def health(_: Request) -> Response:
        body, status = (b'{"status": "ok"}', 200) if models.ready else (error_body(NOT_LOADED), 503)
        return JsonResponse(body, status, {"cache-control": "no-store"})

    async def metrics(_: Request) -> Response:
        return Response(monitoring.text(), media_type=METRICS)

    async def model(_: Request) -> Response:
        info = await run_in_threadpool(model_info, models)
        if info is None:
            return JsonResponse(error_body(NOT_LOADED), 503)
        return JSONResponse(info, headers={"cache-control": "no-store"})

    def fail(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return JsonResponse(error_body(SENTENCES.get(status, "failed")), status)

    routes: list[BaseRoute] = [
        Route("/healthz", health),
        Route("/monitoring/prometheus/metrics", metrics),
        Route("/metrics", metrics),
        Route("/model.json", model),
    ]
    if (PAGE / "index.html").is_file():
        routes.append(Mount("/", StaticFiles(directory=PAGE, html=True)))
    return Starlette(routes=routes, exception_handlers={HTTPException: fail, 404: fail, 405: fail})
