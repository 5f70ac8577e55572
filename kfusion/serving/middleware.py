"""A request's body, read within the limits: size, time, and size after decompression.

Who may ask, and what every answer says to a browser: no other site, no embedding, no guessing of types.

What a request ends with: a status, a body, and, where it is refused, the sentence that says what to change.

How much one request, and all of them together, may ask of the server.
"""

import asyncio
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfusion.validation import check_fields, require

JSON = "application/json"
GRPC_TO_HTTP = {
    **dict.fromkeys((3, 9, 11), 400),  # INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
    **{4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 10: 409, 12: 501, 14: 503, 16: 401},
}
"""TensorFlow's status codes as TensorFlow Serving's HTTP server gives them on; any other is 500."""


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    body: bytes
    kind: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    """What the log says of it: rows, version, signature."""


class Refusal(Exception):
    """A request that cannot be answered, with the HTTP status and the sentence that its sender gets."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def answer(self) -> Answer:
        # Whoever is told to come back, or whose request was not read to its end, gets what that takes.
        extra = {413: (b"connection", b"close"), 408: (b"connection", b"close"), 503: (b"retry-after", b"1")}
        headers = (extra[self.status],) if self.status in extra else ()
        return Answer(self.status, error_body(self.sentence), headers=headers)


def error_body(sentence: str) -> bytes:
    """TensorFlow Serving's form of an error."""
    return json.dumps({"error": sentence}, ensure_ascii=False).encode("utf-8", "replace")


LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        *("script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", "media-src 'self' data: blob:"),
        *("connect-src 'self'", "worker-src 'self' blob:", "font-src 'self'", "manifest-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)
"""Content security policy of the page: its own files only, and what it records and draws itself."""
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (b"x-frame-options", b"DENY"),
]


def allowed_hosts(host: str, more: tuple[str, ...]) -> frozenset[str] | None:
    """The names under which the server answers; None: under any, since it was told to listen beyond this machine."""
    given = host if ":" not in host else f"[{host}]"
    if not more and given not in LOCAL_NAMES:
        return None
    return frozenset(name.lower() for name in (*LOCAL_NAMES, given, *more))


def check_sender(headers: Mapping[bytes, bytes], hosts: frozenset[str] | None) -> None:
    """Refuses a browser that asks on behalf of another site.

    A site could otherwise reach a loopback server through its visitors' browsers: by a request across origins, or by
    giving its own name the address 127.0.0.1 (DNS rebinding).

    Raises:
        Refusal: 421 for another host name, 403 for another origin.
    """
    host = (headers.get(b"host") or b"").decode("latin-1").lower()
    if hosts is not None and host and _without_port(host) not in hosts:
        raise Refusal(421, "this server answers to the names it was started with only; see --allow-host")
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host:
        raise Refusal(403, "requests from other sites are not answered (CORS is closed)")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Past a limit a request is refused with a sentence that says what to change; the server goes on."""

    max_body_mib: float = 8.0
    """Largest request body, also after decompression, in MiB."""
    max_batch: int = 256
    """Most rows in one request."""
    max_joined: int = 64
    """Most rows of several requests that one run of the model answers together."""
    max_depth: int = 16
    """Deepest nesting of lists and objects in a request's JSON."""
    max_requests: int = 128
    """Most requests in work at a time; further ones are told to come back."""
    max_connections: int = 512
    """Most connections open at a time."""
    timeout_s: float = 30.0
    """Longest time for an answer, and for a request to arrive, in seconds."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.max_body_mib > 0, "max_body_mib", "> 0", self.max_body_mib)
        require(self.timeout_s > 0, "timeout_s", "> 0", self.timeout_s)
        require(6 <= self.max_depth <= 256, "max_depth", "in [6, 256]", self.max_depth)
        for name in ("max_batch", "max_joined", "max_requests", "max_connections"):
            require(getattr(self, name) >= 1, name, "≥ 1", getattr(self, name))

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mib * MIB)


GZIP = 31
"""zlib's `wbits` for gzip with its header."""
READ_ON = 8
"""Up to how many times the largest body is read before the connection is closed on its sender."""


async def read_body(headers: Mapping[bytes, bytes], receive: Any, limits: Limits) -> bytes:
    """The whole body, decompressed.

    Raises:
        Refusal: 413 too large, 408 too slow, 415 compressed in another way than gzip, 400 damaged.
    """
    encoding = (headers.get(b"content-encoding") or b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip", b"x-gzip"):
        raise Refusal(415, "'Content-Encoding' must be gzip or absent")
    length = headers.get(b"content-length")
    patient = headers.get(b"expect") is not None
    if patient and length is not None and length.isdigit() and int(length[:20]) > limits.max_body_bytes:
        raise too_large(limits)  # The sender waits for leave before it sends the body.
    try:
        async with asyncio.timeout(limits.timeout_s):
            body = await _receive(receive, limits)
    except TimeoutError:
        raise Refusal(408, f"the request must arrive within {limits.timeout_s:g} s") from None
    return body if encoding == b"identity" else decompress(body, limits)


async def _receive(receive: Any, limits: Limits) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body") and len(body) <= limits.max_body_bytes:
        return body
    parts, size = [body], len(body)
    # What is too large is read on and thrown away, within reason: most clients see no answer before they have sent all.
    while message.get("more_body") and size <= READ_ON * limits.max_body_bytes:
        message = await receive()
        size += len(message.get("body", b""))
        if size > limits.max_body_bytes:
            parts.clear()
        else:
            parts.append(message.get("body", b""))
    if size > limits.max_body_bytes:
        raise too_large(limits)
    return b"".join(parts)


def decompress(body: bytes, limits: Limits) -> bytes:
    """A gzip body's content.

    Raises:
        Refusal: 413 it becomes too large, 400 it is damaged.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        content = unpacker.decompress(body, limits.max_body_bytes + 1)
    except zlib.error as error:
        raise Refusal(400, "the body must be gzip, as 'Content-Encoding' says") from error
    if len(content) > limits.max_body_bytes:
        raise too_large(limits)
    if not unpacker.eof:
        raise Refusal(400, "the body must be gzip, as 'Content-Encoding' says; it is cut off")
    return content


def too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body must be at most {limits.max_body_mib:g} MiB; send fewer rows at a time")
