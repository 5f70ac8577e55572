"""A request's body, read within the limits: size, time, and size after decompression."""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

from kfusion.serving.answers import Refusal
from kfusion.serving.limits import Limits

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
