"""Picture and sound files for tests, made from the built-in images, of tones, and of the recordings behind the data."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from kfusion.data.loaders import load_builtin
from kfusion.modalities.audio.files import wav_file
from kfusion.modalities.image.files import png_file

RATE_HZ = 8000
FSDD = Path(__file__).resolve().parents[2] / "shared" / "data" / "fsdd.npz"
"""Not part of the project: what needs it is skipped without it."""
SPEAKERS = Path(__file__).resolve().parents[1] / "kfusion" / "data" / "fsdd_speakers.npz"


class Recordings:
    """int16 samples at 8000 Hz of each row of the built-in sounds, matched by speaker, digit and take."""

    def __init__(self) -> None:
        with np.load(FSDD) as file, np.load(SPEAKERS) as table:
            self.samples, self.offsets = file["audio"], file["offsets"]
            names = (file["speaker_names"].tolist(), table["speaker_names"].tolist())
            place = {
                (names[0][speaker], label, take): index
                for index, (speaker, label, take) in enumerate(
                    zip(file["speaker"], file["label"], file["take"], strict=True)
                )
            }
            keys = zip(table["speaker"], table["label"], table["take"], strict=True)
            self.place = [place[names[1][speaker], label, take] for speaker, label, take in keys]

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, row: int) -> np.ndarray:
        place = self.place[row]
        return self.samples[self.offsets[place] : self.offsets[place + 1]]


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (5000, 28, 28) and int64 (5000,)."""
    source = load_builtin()
    return source["image"].values, source["image"].label


def encoded(picture: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """uint8 or uint16 (h, w[, channels]) -> a file; `mode`: converted to Pillow's pixel format of this name."""
    image, written = Image.fromarray(picture), io.BytesIO()
    (image.convert(mode) if mode else image).save(written, kind, **options)  # type: ignore[arg-type]
    return written.getvalue()


def wav_bytes(values: np.ndarray, rate: int = RATE_HZ) -> bytes:
    """A WAV file as the standard library writes it.

    Args:
        values: uint8 or int16, (n,) or (n, channels).
        rate: samples a second.
    """
    return wav_file(values.tobytes(), values.itemsize, 1 if values.ndim == 1 else values.shape[1], rate)


def tone_bytes(pitch_hz: float, seed: int = 0, seconds: float = 0.4) -> bytes:
    """A WAV file of a note with a few overtones in faint noise, 8 kHz, 16 bit."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz *= 1 + rng.normal(0, 0.01)
    wave_form = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in (1, 2, 3)) * np.hanning(len(t))
    samples = 6000 * wave_form + rng.normal(0, 20, len(t))
    return wav_bytes(samples.astype("<i2"), RATE_HZ)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass of an interlaced PNG: first column and row, and steps of columns and rows."""


def any_png(
    samples: np.ndarray,
    depth: int = 8,
    colour: int = 0,
    interlaced: bool = False,
    before: tuple[tuple[bytes, bytes], ...] = (),
    after: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG of any kind, bit by bit as ISO/IEC 15948 has it.

    Args:
        samples: (height, width, channels) or (height, width), whole numbers below 2 ** depth.
        depth: bits of a sample.
        colour: 0 grey, 2 colour, 3 palette, 4 grey with alpha, 6 colour with alpha.
        interlaced: in the seven passes of Adam7.
        before, after: names and data of chunks before the pixels and after them.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width = samples.shape[:2]
    rows = []
    for column, row, columns, step in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for line in samples[row::step, column::columns]:
            bits = (line.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
            rows.append(b"\0" + np.packbits(bits.ravel().astype(np.uint8)).tobytes() if line.size else b"")
    return png_file((width, height, depth, colour, 0, 0, interlaced), b"".join(rows), before, after)


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    return png_file((width, height, 8, 2, 0, 0, 0), b"")


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
