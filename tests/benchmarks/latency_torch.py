"""PyTorch eager in `latency`: the same network, answering from both modalities, or in all three views as the files do.

Run by the benchmark: `python -m tests.benchmarks.latency_torch`, as `latency_ways`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.answering import answer
from tests.benchmarks.torch_network import Fusion


def in_all_views(network: Fusion, image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """Logits (3, num_classes), of one pair: from both, the image, the sound. The encoders run once."""
    seen, heard = network.image(image), network.audio((audio - network.mean) / network.deviation)
    steps = torch.stack([seen, heard], dim=1)
    states = [network.lstm(part)[1][0][0] for part in (steps, steps[:, :1], steps[:, 1:])]
    return network.head(torch.cat(states))


def make(work: Path, threads: int, all_views: bool = False) -> Callable[[], torch.Tensor]:
    """The network with its weights loaded from a file, which is written where there is none."""
    torch.set_num_threads(threads)
    network, weights = Fusion(torch.zeros(507), torch.ones(507)).eval(), work / "torch.pt"
    if not weights.exists():
        torch.save(network.state_dict(), weights)
    network.load_state_dict(torch.load(weights, weights_only=True))
    with np.load(work / "pair.npz") as pair:
        image, audio = torch.tensor(pair["image"]).permute(0, 3, 1, 2), torch.tensor(pair["audio"])

    def ask() -> torch.Tensor:
        with torch.inference_mode():
            logits = in_all_views(network, image, audio) if all_views else network(image, audio)
            return torch.softmax(logits, dim=1)

    return ask


class Way:
    """Args: work, the folder of `latency_files`; threads; all_views."""

    def __init__(self, work: str, threads: int, all_views: bool) -> None:
        self.ask_once = make(Path(work), threads, all_views)
        self.ask_once()

    def ask(self, seconds: float) -> list[float]:
        """Questions for so long; how long each took, in seconds."""
        from tests.benchmarks.latency_ways import timed

        return timed(self.ask_once, seconds)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(make(Path(sys.argv[1]), 1)().shape, flush=True)
        os._exit(0)
    answer(Way)
