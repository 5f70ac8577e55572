"""The recordings behind the built-in sounds, for tests and benchmarks: the original samples of each feature row."""

import io
import wave
from pathlib import Path

import numpy as np

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


def wav_bytes(values: np.ndarray, rate: int = 8000) -> bytes:
    """A WAV file as the standard library writes it.

    Args:
        values: uint8 or int16, (n,) or (n, channels).
        rate: samples a second.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(values.itemsize)
        file.setframerate(rate)
        file.writeframes(values.tobytes())
    return buffer.getvalue()
