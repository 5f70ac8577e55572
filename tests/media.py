"""Picture and sound files for tests, made from the built-in images and of tones."""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from kfusion.data.builtin import load_builtin
from tests.recordings import wav_bytes

RATE_HZ = 8000


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (5000, 28, 28) and int64 (5000,)."""
    source = load_builtin()
    return source.images, source.image_label


def encoded(picture: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """uint8 or uint16 (h, w[, channels]) -> a file; `mode`: converted to Pillow's pixel format of this name."""
    image, written = Image.fromarray(picture), io.BytesIO()
    (image.convert(mode) if mode else image).save(written, kind, **options)  # type: ignore[arg-type]
    return written.getvalue()


def tone_bytes(pitch_hz: float, seed: int = 0, seconds: float = 0.4) -> bytes:
    """A WAV file of a note with a few overtones in faint noise, 8 kHz, 16 bit."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz *= 1 + rng.normal(0, 0.01)
    wave_form = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in (1, 2, 3)) * np.hanning(len(t))
    samples = 6000 * wave_form + rng.normal(0, 20, len(t))
    return wav_bytes(samples.astype("<i2"), RATE_HZ)


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_media(folder: Path, num: int, paired: bool, classes: tuple[str, ...] = ("one", "three", "two")) -> None:
    """`num` digits and as many notes of each class; class `one` is MNIST's 1s and the lowest notes, and so on."""
    images, label = digit_images()
    digits = {"one": 1, "two": 2, "three": 3}
    for name in classes:
        digit = digits.get(name, len(name) % 10)
        for number, row in enumerate(np.flatnonzero(label == digit)[:num]):
            places = ("", "") if paired else ("images", "sounds")
            for place, ending, content in (
                (places[0], "png", encoded(images[row])),
                (places[1], "wav", tone_bytes(220 * 2 ** (digit / 3), seed=100 * digit + number)),
            ):
                path = folder / name / place / f"{number:03}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
