"""The server as an ASGI application: the REST interface, health, metrics, and the page.

/v1/…                                          TensorFlow Serving's REST interface
/healthz                                       200 while a version answers, else 503
/monitoring/prometheus/metrics, /metrics       for Prometheus
/                                              the page, and /model.json, what it has to know of the model

What the page has to know of the model, beyond what the REST interface tells: `/model.json`.
"""

import base64
import binascii
import logging
import sys
import time
from collections.abc import Callable
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
from kfusion.runtime.protos import ASSETS, LABELS, read_labels
from kfusion.serving.middleware import JSON, SECURITY, Answer, Limits, Refusal, check_sender, error_body
from kfusion.serving.model_manager import Models, Version
from kfusion.serving.observability import Monitoring, RequestLog
from kfusion.serving.rest_api import Api
from kfusion.validation import UserError

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


PAGE = Path(__file__).parent / "page"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
SENTENCES = {404: "nothing is here; the REST interface begins at /v1/models", 405: "use GET here"}
NO_STORE = (b"cache-control", b"no-store")


class App:
    """Every request passes here: admitted, answered, counted and logged.

    Args:
        api: what answers below /v1.
        models: for the health.
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
        if scope["type"] != "http":
            return await self._site(scope, receive, send)
        if scope["path"][:4].lower() != "/v1/":
            return await self._other(scope, receive, send)
        began = time.perf_counter()
        answer = await self._admit(scope, receive)
        seconds = time.perf_counter() - began
        if scope["method"] == "POST":
            self._monitoring.predicted(answer.status, seconds)
        self._log.add(
            method=scope["method"],
            path=scope["path"][:200],
            status=answer.status,
            milliseconds=round(seconds * 1e3, 3),
            bytes=len(answer.body),
            **answer.facts,
        )
        length = str(len(answer.body)).encode()
        headers = [(b"content-type", answer.kind.encode()), (b"content-length", length), NO_STORE]
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": [*headers, *answer.headers, *SECURITY]}
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _admit(self, scope: Any, receive: Any) -> Answer:
        """The answer to a REST request, whatever happens."""
        if self._in_work >= self._limits.max_requests:
            sentence = f"{self._limits.max_requests} requests are in work, as many as may be; come back later"
            return Refusal(503, sentence).answer()
        self._in_work += 1
        self._monitoring.in_work.set(self._in_work)
        try:
            headers = dict(scope["headers"])
            check_sender(headers, self._hosts)
            return await self._api.answer(scope, headers, receive)
        except Refusal as refusal:
            return refusal.answer()
        except Exception:
            logger.exception("request failed")
            return Answer(500, error_body("the server failed to answer; its log says where"))
        finally:
            self._in_work -= 1
            self._monitoring.in_work.set(self._in_work)

    async def _other(self, scope: Any, receive: Any, send: Any) -> None:
        """Health, metrics and the page."""

        async def send_secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY]
            await send(message)

        try:
            check_sender(dict(scope["headers"]), self._hosts)
        except Refusal as refusal:
            response = Response(error_body(refusal.sentence), refusal.status, media_type=JSON)
            return await response(scope, receive, send_secured)
        await self._site(scope, receive, send_secured)


def _site(models: Models, monitoring: Monitoring) -> Starlette:
    """All but the REST interface."""

    async def health(_: Request) -> Response:
        ready = models.ready
        body = b'{"status": "ok"}' if ready else error_body("no version of the model is loaded")
        return Response(body, 200 if ready else 503, {"cache-control": "no-store"}, JSON)

    async def metrics(_: Request) -> Response:
        return Response(monitoring.page(), media_type=METRICS)

    async def model(_: Request) -> Response:
        facts = await run_in_threadpool(about, models)
        if facts is None:
            return Response(error_body("no version of the model is loaded"), 503, media_type=JSON)
        return JSONResponse(facts, headers={"cache-control": "no-store"})

    def fail(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return Response(error_body(SENTENCES.get(status, "failed")), status, media_type=JSON)

    routes: list[BaseRoute] = [
        Route("/healthz", health),
        Route("/monitoring/prometheus/metrics", metrics),
        Route("/metrics", metrics),
        Route("/model.json", model),
    ]
    if (PAGE / "index.html").is_file():
        routes.append(Mount("/", StaticFiles(directory=PAGE, html=True)))
    return Starlette(routes=routes, exception_handlers={HTTPException: fail, 404: fail, 405: fail})
