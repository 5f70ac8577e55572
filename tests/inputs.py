"""Inputs for predictions, made of the built-in digits and of sounds made here, and the command in this process."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kfusion import predict as verb
from kfusion.data.builtin import load_builtin
from kfusion.data.pairs import Pairs
from kfusion.predictor import load_network, predict_views
from kfusion.run import Run
from kfusion.spec import Spec
from kfusion.system.terminal import run_main
from tests.processes import environment
from tests.recordings import wav_bytes


def digits(num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 28, 28) and sounds float32 (n, 507), drawn from the built-in ones; seldom of one class."""
    source, rng = load_builtin(), np.random.default_rng(seed)
    images, audio = (rng.integers(len(each), size=num_rows) for each in (source.images, source.audio))
    return source.images[images], source.audio[audio]


def write_arrays(folder: Path, images: np.ndarray, audio: np.ndarray, names=("images.npy", "audio.npy")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / names[0], images)
    np.save(folder / names[1], audio)
    return folder


def views(run: Path, images: np.ndarray, audio: np.ndarray) -> dict[str, np.ndarray]:
    """The run's answers, by the way that evaluates it: {view: probabilities (n, 10)}."""
    rows = np.arange(len(images))
    return predict_views(load_network(Run(run)), Pairs(images, audio, rows, rows, rows, Spec()))


def png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image[..., None]).numpy()


def wav(pitch_hz: float) -> bytes:
    """Half a second of a tone with an overtone that fades, 16 bit at 8 kHz."""
    time_s = np.arange(4000) / 8000
    sound = np.exp(-3 * time_s) * (np.sin(2 * np.pi * pitch_hz * time_s) + 0.3 * np.sin(6 * np.pi * pitch_hz * time_s))
    return wav_bytes((9000 * sound).astype(np.int16))


def write_media(folder: Path, num_rows: int) -> np.ndarray:
    """NAME.png and NAME.wav for each row; the images uint8 (n, 28, 28)."""
    folder.mkdir()
    images, _ = digits(num_rows)
    for row, image in enumerate(images):
        (folder / f"row{row:03d}.png").write_bytes(png(image))
        (folder / f"row{row:03d}.wav").write_bytes(wav(200 + 40 * row))
    return images


def run_verb(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """`python -m kfusion.predict` in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    try:
        run_main(verb.main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def start(cwd: Path, *words: object) -> subprocess.Popen[str]:
    """`python -m kfusion.predict` as a process of its own."""
    command = [sys.executable, "-m", "kfusion.predict", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(100), **pipes)


def copied(run: Path, folder: Path) -> Path:
    """A run that a test may change."""
    shutil.copytree(run, folder)
    return folder
