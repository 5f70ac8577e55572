"""Contender (b): the strongest PyTorch found on the processor; with `device` "cuda", the same on a GPU.

The data rest in memory; flip, turn and crop are one `grid_sample` of the whole batch; channels-last, bfloat16
autocast, fused AdamW; eager. Each of these settings was tried on and off; `--fast-settings` of `training_speed` lets
one repeat that, and try `torch.compile`.
Run by the benchmark: `python -m tests.benchmarks.torch_fast`.
"""

import math
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.answering import answer
from tests.benchmarks.arrays import read
from tests.benchmarks.torch_network import Fusion, warmup_cosine

TURNS = 0.05  # of a full turn, either way
CROP_PIXELS = 2


def warped(image: torch.Tensor) -> torch.Tensor:
    """A random flip either way, a random turn, a random crop of each image (batch, 1, 28, 28), as one warp."""
    num_rows, size = len(image), image.shape[-1]
    place = {"device": image.device}
    angle = (torch.rand(num_rows, **place) * 2 - 1) * (TURNS * 2 * math.pi)
    flip = torch.randint(0, 2, (2, num_rows), **place) * 2.0 - 1
    shift = torch.randint(-CROP_PIXELS, CROP_PIXELS + 1, (2, num_rows), **place) * (2 / size)
    cosine, sine = angle.cos(), angle.sin()
    rows = (cosine * flip[0], -sine * flip[1], shift[0], sine * flip[0], cosine * flip[1], shift[1])
    grid = F.affine_grid(torch.stack(rows, dim=1).view(num_rows, 2, 3), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False)


class Fast:
    """Args: folder and its number of training rows; batch_size; total_steps of the schedule; seed.

    The rest are the settings that were tried.
    """

    def __init__(
        self,
        folder: str,
        num_rows: int | None,
        batch_size: int,
        total_steps: int,
        seed: int = 0,
        channels_last: bool = True,
        bfloat16: bool = True,
        fused: bool = True,
        pool_first: bool = True,
        compiled: bool = False,
        matmul: str = "highest",
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.set_float32_matmul_precision(matmul)
        arrays = read(folder, num_rows)
        # Converted once: a few thousand float32 images are some 15 MB.
        self.image = torch.from_numpy(arrays.images).to(device).float().div_(255).unsqueeze(1)
        self.audio = torch.from_numpy(arrays.audio).to(device)
        self.label = torch.from_numpy(arrays.labels).to(device)
        self.batch_size, self.bfloat16, self.device = batch_size, bfloat16, device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        network = Fusion(self.audio.mean(0), self.audio.std(0), pool_first)
        self.network: Any = network.to(device, memory_format=self.layout)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2, fused=fused)
        self.schedule = warmup_cosine(self.optimizer, total_steps // 10, total_steps)
        self.loss = nn.CrossEntropyLoss()
        self.batches = self._endless()
        if compiled:
            self.network = torch.compile(network)

    def _endless(self):
        while True:
            for rows in torch.randperm(len(self.label), device=self.device).split(self.batch_size):
                if len(rows) == self.batch_size:
                    yield rows

    def _logits(self, image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bfloat16):
            return self.network(image.contiguous(memory_format=self.layout), audio)

    def train(self, steps: int) -> float:
        """Train for `steps` batches; the mean loss."""
        self.network.train()
        total = torch.zeros((), device=self.device)
        for _ in range(steps):
            rows = next(self.batches)
            logits = self._logits(warped(self.image[rows]), self.audio[rows])
            loss = self.loss(logits.float(), self.label[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach()
        return float(total) / steps

    def evaluate(self, batch_size: int = 256) -> dict[str, float]:
        """Accuracy on the training rows as they are."""
        self.network.eval()
        num_right = 0
        with torch.inference_mode():
            for start in range(0, len(self.label), batch_size):
                rows = slice(start, start + batch_size)
                answer_of = self._logits(self.image[rows], self.audio[rows]).argmax(1)
                num_right += int((answer_of == self.label[rows]).sum())
        return {"rows": len(self.label), "accuracy": num_right / len(self.label)}

    def versions(self) -> dict[str, Any]:
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    answer(Fast)
