"""Requests gone wrong, for the fuzz test: documents, texts, base64, PNG and WAV files, and HTTP framing.

Everything is a function of a `random.Random`, so that a failure can be repeated from its seed.
"""

import base64
import json
import struct
from random import Random
from typing import Any

from kfusion.modalities.image.files import png_file

ODD = [0, 1, -1, 7, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
TOKENS = [
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\", b"\x00", b"\xff", b"\xf0\x9f\x98\x80", b"NaN", b"Infinity"),
    *(b"-Infinity", b"true", b"null", b"1e999", b"-0", b"99999999999999999999", b'{"b64":"', b"\\ud800", b"[[[[", b" "),
]
WAV_FIELDS = [(4, "<I"), (16, "<I"), (20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (34, "<H"), (40, "<I")]
PATH = "/v1/models/kfusion:predict"


def mutate(data: bytes, rng: Random, tokens: list[bytes] | None = None) -> bytes:
    """The bytes with one to four random changes: flipped, cut, doubled, moved, or with something put in."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice([1, 1, 2, 4, 16, 200]))
        act = rng.randrange(6)
        if act == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif act == 1:
            del out[at:end]
        elif act == 2:
            out[at:at] = out[at:end]
        elif act == 3:
            out[at:at] = rng.choice(tokens or TOKENS)
        elif act == 4:
            out[at:end] = rng.randbytes(end - at)
        else:
            del out[at:]
    return bytes(out)


def bad_png(good: bytes, rng: Random) -> bytes:
    """A PNG with odd sizes and depths in a header whose checksum is right, or with random changes."""
    if rng.random() < 0.5:
        return mutate(good, rng)
    size = [rng.choice([0, 1, 28, 100, 5000, 20000, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
    head = (*size, rng.choice([1, 2, 4, 8, 16, 3]), rng.randrange(8), *(rng.randrange(2) for _ in "xyz"))
    return png_file(head, b"")[:33] + good[33:]


def bad_wav(good: bytes, rng: Random) -> bytes:
    """A WAV with odd fields in its header, or with random changes."""
    if rng.random() < 0.5:
        return mutate(good, rng)
    out = bytearray(good)
    for _ in range(rng.randint(1, 3)):
        at, form = rng.choice(WAV_FIELDS)
        top = 2**16 if form == "<H" else 2**32
        struct.pack_into(form, out, at, rng.choice(ODD) % top)
    return bytes(out)


def bad_text(text: str, rng: Random) -> str:
    """Base64 gone wrong."""
    return mutate(text.encode(), rng, [b"=", b"==", b"-", b"_", b"\n", b" ", b"%"]).decode("latin-1")


def bad_files(kind: str, image: bytes, audio: bytes, rng: Random) -> bytes:
    """A raw_bytes request with one to three rows, one of them wrong in its image, its sound or its base64."""
    rows = []
    for _ in range(rng.randint(1, 3)):
        rows.append({"image_bytes": image, "audio_bytes": audio})
    wrong = rng.choice(rows)
    if kind == "png":
        wrong["image_bytes"] = bad_png(image, rng)
    if kind == "wav":
        wrong["audio_bytes"] = bad_wav(audio, rng)
    coded: list[Any] = [{k: {"b64": base64.b64encode(v).decode()} for k, v in row.items()} for row in rows]
    if kind == "base64":
        row, name = rng.choice(coded), rng.choice(["image_bytes", "audio_bytes"])
        row[name]["b64"] = bad_text(row[name]["b64"], rng)
    return json.dumps({"signature_name": "raw_bytes", "instances": coded}).encode()


def bad_framing(body: bytes, rng: Random) -> bytes:
    """An HTTP request over the wire: wrong lengths, chunks, lines, methods and headers, or random changes."""
    length = rng.choice([len(body), len(body) - 5, len(body) + 5, -1, 2**63, "x", "", "0x10", "1, 2"])
    method = rng.choice(["POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO", "\x00"])
    path = rng.choice(
        [PATH, PATH, "/", "*", "//", "/v1/../..", "/%00", "/v1/models/" + "a" * 9000, "http://x/", "/é", "/v1/%zz"]
    )
    lines = [f"{method} {path} HTTP/{rng.choice(['1.1', '1.1', '1.0', '2.0', '0.9', '9'])}", "Host: localhost"]
    lines += rng.choice(
        [
            [f"Content-Length: {length}"],
            ["Content-Length: 5", "Content-Length: 6"],
            ["Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", f"Content-Length: {length}"],
            ["Transfer-Encoding: gzip, chunked"],
            [f"Content-Length: {len(body)}", f"Content-Encoding: {rng.choice(['gzip', 'br', 'gzip, gzip'])}"],
            [f"Content-Length: {len(body)}", "Expect: 100-continue"],
            [f"Content-Length: {len(body)}", "Upgrade: websocket", "Connection: Upgrade"],
            [f"X-{number}: {'y' * rng.choice([1, 500])}" for number in range(rng.choice([3, 99, 300]))],
            ["Broken header", ": empty", "A\x00: b"],
        ]
    )
    sent = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if "chunked" in sent.decode("latin-1"):
        size = rng.choice([b"%x" % len(body), b"-1", b"zz", b"ffffffffffffffffff", b"5"])
        sent += size + b"\r\n" + body + b"\r\n" + rng.choice([b"0\r\n\r\n", b"", b"0\r\nA: b\r\n\r\n"])
    else:
        sent += body
    return mutate(sent, rng) if rng.random() < 0.5 else sent
