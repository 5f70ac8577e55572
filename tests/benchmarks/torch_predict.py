"""Prediction from raw files in PyTorch as a user would write it: PIL, SciPy, a `DataLoader` with two workers, batch 64.

Run by the benchmark: `python -m tests.benchmarks.torch_predict`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.fft import dct
from scipy.io import wavfile
from torch.utils.data import DataLoader, Dataset

from tests.benchmarks.answering import answer
from tests.benchmarks.torch_network import Fusion

NUM_FFT, HOP, NUM_BANDS, NUM_COEFFICIENTS, NUM_FRAMES, SAMPLE_RATE_HZ = 400, 200, 128, 13, 39, 8000


def mel_filters() -> np.ndarray:
    """Triangles over the HTK mel scale, float32 (201, 128)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, NUM_BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, SAMPLE_RATE_HZ / 2, NUM_FFT // 2 + 1)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


FILTERS, WINDOW = mel_filters(), np.hanning(NUM_FFT + 1)[:-1].astype(np.float32)


def mfcc(samples: np.ndarray) -> np.ndarray:
    """float32 (n,) -> float32 (507,): 13 coefficients every 25 ms, stretched to 39 frames."""
    padded = np.pad(samples, NUM_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, NUM_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * WINDOW)) ** 2
    decibels = 10 * np.log10(np.maximum(power @ FILTERS, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    sequence = dct(decibels, norm="ortho")[:, :NUM_COEFFICIENTS]
    places = np.linspace(0, len(sequence) - 1, NUM_FRAMES)
    low = np.minimum(places.astype(int), max(len(sequence) - 2, 0))
    weight = (places - low)[:, None]
    high = np.minimum(low + 1, len(sequence) - 1)
    return (sequence[low] * (1 - weight) + sequence[high] * weight).astype(np.float32).ravel()


class Files(Dataset):
    """A picture and a sound of each stem in a folder."""

    def __init__(self, folder: str) -> None:
        self.stems = sorted(Path(folder).glob("*.png"))

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self.stems[row]
        image = np.asarray(Image.open(path).convert("L").resize((28, 28)), np.float32) / 255
        _, samples = wavfile.read(path.with_suffix(".wav"))
        return torch.from_numpy(image[None]), torch.from_numpy(mfcc(samples.astype(np.float32) / 32768))


class Script:
    """Args: folder of PNG and WAV files. The weights are untrained: they do not change the speed."""

    def __init__(self, folder: str) -> None:
        self.network = Fusion(torch.zeros(507), torch.ones(507)).eval()
        # The workers live on between rounds, which a script that runs once does not have.
        self.loader = DataLoader(Files(folder), batch_size=64, num_workers=2, persistent_workers=True)

    def predict(self) -> int:
        """All rows once; how many there are."""
        label = []
        with torch.inference_mode():
            for image, audio in self.loader:
                label.append(self.network(image, audio).argmax(1))
        return len(torch.cat(label))

    def versions(self) -> dict[str, Any]:
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    answer(Script)
