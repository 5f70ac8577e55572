"""Contender (a): PyTorch as the paper's author would write it.

PIL flips, turns and crops one image at a time in a `Dataset`; a `DataLoader` with two workers; eager float32.
Run by the benchmark: `python -m tests.benchmarks.torch_paper`.
"""

import itertools
import os
import random
import time
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tests.benchmarks.answering import answer
from tests.benchmarks.arrays import Arrays, read
from tests.benchmarks.torch_network import Fusion, warmup_cosine

TURN_DEGREES = 18.0  # 0.05 of a full turn
CROP_PIXELS = 2


class PairDataset(Dataset):
    """Row -> (image float32 (1, 28, 28) in [0, 1], audio float32 (507,), label)."""

    def __init__(self, arrays: Arrays, augment: bool) -> None:
        self.arrays = arrays
        self.augment = augment

    def __len__(self) -> int:
        return len(self.arrays.labels)

    def __getitem__(self, row: int):
        image = Image.fromarray(self.arrays.images[row])
        if self.augment:
            image = augmented(image)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 28, 28)
        return pixels.float() / 255, torch.from_numpy(self.arrays.audio[row]), int(self.arrays.labels[row])


def augmented(image: Image.Image) -> Image.Image:
    """A random flip either way, a random turn, a random crop of the padded image."""
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    image = image.rotate(random.uniform(-TURN_DEGREES, TURN_DEGREES), resample=Image.Resampling.BILINEAR)
    left, top = random.randint(0, 2 * CROP_PIXELS), random.randint(0, 2 * CROP_PIXELS)
    return ImageOps.expand(image, CROP_PIXELS).crop((left, top, left + 28, top + 28))


class Paper:
    """Args: folder and its number of training rows; batch_size; total_steps of the schedule; seed."""

    def __init__(self, folder: str, num_rows: int | None, batch_size: int, total_steps: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        arrays = read(folder, num_rows)
        train, test = PairDataset(arrays, augment=True), PairDataset(arrays, augment=False)
        # Kept alive between epochs, which spares PyTorch the forking of new workers.
        workers = {"batch_size": batch_size, "num_workers": 2, "persistent_workers": True}
        self.train_loader = DataLoader(train, shuffle=True, drop_last=True, **workers)
        self.test_loader = DataLoader(test, batch_size=batch_size)
        self.batches = itertools.chain.from_iterable(itertools.repeat(self.train_loader))
        audio = torch.from_numpy(arrays.audio)
        self.network = Fusion(audio.mean(0), audio.std(0))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=1e-2)
        self.schedule = warmup_cosine(self.optimizer, total_steps // 10, total_steps)
        self.loss = nn.CrossEntropyLoss()

    def train(self, steps: int) -> float:
        """Train for `steps` batches; the mean loss."""
        self.network.train()
        total = 0.0
        for image, audio, label in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = self.loss(self.network(image, audio), label)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
        return total / steps

    def reach(self, accuracy: float, val_folder: str, epochs: int) -> dict[str, float]:
        """Train until the accuracy on the rows of `val_folder` is reached, or for all epochs."""
        began, best, epoch = time.perf_counter(), 0.0, 0
        while epoch < epochs and best < accuracy:
            self.train(len(self.train_loader))
            best, epoch = max(best, self.evaluate(val_folder)["accuracy"]), epoch + 1
        training = time.perf_counter() - began
        return {"reached": best >= accuracy, "accuracy": best, "epochs": epoch, "training": training}

    def evaluate(self, folder: str | None = None) -> dict[str, float]:
        """Accuracy on the rows of `folder`, or on the training rows as they are."""
        loader = self.test_loader
        if folder:
            loader = DataLoader(PairDataset(read(folder), augment=False), batch_size=loader.batch_size)
        self.network.eval()
        num_right = num_rows = 0
        with torch.no_grad():
            for image, audio, label in loader:
                num_right += int((self.network(image, audio).argmax(1) == label).sum())
                num_rows += len(label)
        return {"rows": num_rows, "accuracy": num_right / num_rows}

    def versions(self) -> dict[str, Any]:
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    answer(Paper)
