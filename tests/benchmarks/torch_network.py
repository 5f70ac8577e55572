"""The benchmark's network, optimizer and schedule in PyTorch: the paper's model with blocks 32,32|64,64.

Images float32 (batch, 1, 28, 28) in [0, 1] and audio float32 (batch, 507) -> logits (batch, 10).
"""

import math

import torch
from torch import nn

NUM_CLASSES = 10
EMBED_DIM = 128
HIDDEN_DIM = 256


class Fusion(nn.Module):
    """Two encoders, whose embeddings an LSTM reads as a sequence of two steps.

    Args:
        audio_mean, audio_deviation: float32 (507,), of the training rows; the network standardises with them.
        pool_first: pooling before the ReLU, not after it: the same values with a quarter of the work.
    """

    def __init__(self, audio_mean: torch.Tensor, audio_deviation: torch.Tensor, pool_first: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", audio_mean)
        self.register_buffer("deviation", audio_deviation)
        end = [nn.MaxPool2d(2), nn.ReLU(inplace=True)] if pool_first else [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.image = nn.Sequential(
            *[nn.Conv2d(1, 32, 5, padding="same"), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 5, padding="same")],
            *end,
            *[nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(inplace=True), nn.Conv2d(64, 64, 3, padding="same")],
            *end,
            nn.Flatten(),
            *[nn.Linear(7 * 7 * 64, EMBED_DIM), nn.ReLU()],
        )
        self.audio = nn.Sequential(
            *[nn.Linear(len(audio_mean), 512), nn.ReLU(), nn.Dropout(0.3)],
            *[nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3)],
            *[nn.Linear(256, EMBED_DIM), nn.ReLU()],
        )
        self.lstm = nn.LSTM(EMBED_DIM, HIDDEN_DIM, batch_first=True)
        self.head = nn.Linear(HIDDEN_DIM, NUM_CLASSES)

    def forward(self, image: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        audio = (audio - self.mean) / self.deviation
        steps = torch.stack([self.image(image), self.audio(audio)], dim=1)
        _, (last, _) = self.lstm(steps)
        return self.head(last[0])


def warmup_cosine(optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int):
    """Learning rate: a linear rise over `warmup_steps`, then half a cosine down to 0 at `total_steps`."""

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
