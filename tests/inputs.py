"""Inputs for predictions, made of the built-in digits and of sounds made here."""

from pathlib import Path

import numpy as np

from kfusion.data.loaders import load_builtin
from tests.media import encoded, tone_bytes


def digits(num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 28, 28) and sounds float32 (n, 507), drawn from the built-in ones; seldom of one class."""
    source, rng = load_builtin(), np.random.default_rng(seed)
    images, audio = (each.values[rng.integers(len(each), size=num_rows)] for each in source.data.values())
    return images, audio


def write_arrays(folder: Path, images: np.ndarray, audio: np.ndarray, names=("images.npy", "audio.npy")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / names[0], images)
    np.save(folder / names[1], audio)
    return folder


def wav(pitch_hz: float) -> bytes:
    """The sound that `write_media` writes for a pitch."""
    return tone_bytes(pitch_hz)


def write_media(folder: Path, num_rows: int) -> np.ndarray:
    """NAME.png and NAME.wav for each row; the images uint8 (n, 28, 28)."""
    folder.mkdir()
    images, _ = digits(num_rows)
    for row, image in enumerate(images):
        (folder / f"row{row:03d}.png").write_bytes(encoded(image))
        (folder / f"row{row:03d}.wav").write_bytes(wav(200 + 40 * row))
    return images
