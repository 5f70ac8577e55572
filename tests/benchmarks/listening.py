"""How well networks hear WAV files, against the features they were trained on: audio alone, held-out recordings.

    python -m tests.benchmarks.listening runs/robust runs/paper [--part test] [--draws 5]

For runs on the built-in data. Each recording of the part goes as a WAV file through `read_sounds`: as it is, in other
formats, and placed anywhere in a second (in its own length and 0.25 to 0.5 s more, where that is longer) of nothing or
of room noise. The noise's power lies 30 dB below the word's; white, or falling by 3 or 6 dB an octave. Then with room
noise for 0.35 to 0.6 s before and after, and something else in it: clicks of 5 ms, a key, a step of direct current.
Needs the original recordings (`../shared/data/fsdd.npz`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tyro
from rich.table import Table
from scipy.signal import resample_poly

from kfusion.data.loaders import load_builtin
from kfusion.inference import load_network
from kfusion.modalities.audio.features import read_sounds
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS
from kfusion.run_dir import open_run
from kfusion.spec import Spec
from tests.benchmarks.tables import wide_console
from tests.media import Recordings, wav_bytes

RATE_HZ, SNR_DB = SPOKEN_DIGITS.sample_rate_hz, 30.0
GOALS = {"clean": "-0.5", "noise": "-3", "disturbed": "≥ .96"}
"""Points of accuracy that may be lost, or an accuracy."""
LOWEST_NOISE_HZ = 30


@dataclass(frozen=True)
class Settings:
    """Measure how well networks hear."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    part: str = "test"
    """val, to choose by; test, to report."""
    draws: int = 5
    """Scenes of noise for each recording."""
    trim: bool = True


def room_noise(num_samples: int, fall_db: float, rng: np.random.Generator) -> np.ndarray:
    """Steady noise of power 1, whose spectrum falls by so many decibels an octave."""
    spectrum = np.fft.rfft(rng.normal(size=num_samples))
    place = np.maximum(np.arange(len(spectrum)), LOWEST_NOISE_HZ * num_samples / RATE_HZ)
    noise = np.fft.irfft(spectrum * place ** (-fall_db / (20 * np.log10(2))), num_samples)
    return noise / np.sqrt(np.mean(noise**2))


def as_int16(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), -32768, 32767).astype(np.int16)


def in_room(word: np.ndarray, fall_db: float | None, rng: np.random.Generator) -> bytes:
    """The word anywhere in at least a second of noise; of digital silence, if that falls by None."""
    size = RATE_HZ if len(word) <= RATE_HZ else len(word) + int(rng.integers(RATE_HZ // 4, RATE_HZ // 2))
    scene = np.zeros(size)
    if fall_db is not None:
        scene += room_noise(size, fall_db, rng) * np.sqrt(np.mean(word.astype(float) ** 2) * 10 ** (-SNR_DB / 10))
    start = int(rng.integers(0, size - len(word) + 1))
    scene[start : start + len(word)] += word
    return wav_bytes(as_int16(scene))


def stereo_44100(word: np.ndarray, rng: np.random.Generator) -> bytes:
    """The word at 44.1 kHz, its right side as loud as the left, which is how a voice in the middle is recorded."""
    higher = as_int16(resample_poly(word.astype(float), 441, 80))
    return wav_bytes(np.stack([higher, higher], axis=1), 44100)


def eight_bits(word: np.ndarray, rng: np.random.Generator) -> bytes:
    """The word in 256 steps, as loud as they allow."""
    return wav_bytes(np.round(word / np.abs(word.astype(float)).max() * 127 + 128).astype(np.uint8))


def burst(level_db: float, length_ms: float, rng: np.random.Generator) -> np.ndarray:
    """A click, of 5 ms, a key or a thud: noise that fades away, of this power against a full scale."""
    num = int(length_ms * RATE_HZ / 1000)
    values = rng.normal(size=num) * np.exp(-3.0 * np.arange(num) / num)
    return values / np.sqrt(np.mean(values**2)) * 32768 * 10 ** (level_db / 20)


Disturb = Callable[[np.ndarray, int, int, np.random.Generator], None]
"""Adds to a scene, in place; the word lies between two samples of it."""


def disturbed(disturb: Disturb) -> Callable[[np.ndarray, np.random.Generator], bytes]:
    """Puts a word into room noise, of -3 dB/octave, with something else that is heard in the room."""

    def make(word: np.ndarray, rng: np.random.Generator) -> bytes:
        before, after = (int(rng.uniform(0.35, 0.6) * RATE_HZ) for _ in range(2))
        scene = room_noise(before + len(word) + after, 3.0, rng)
        scene *= np.sqrt(np.mean(word.astype(float) ** 2) * 10 ** (-SNR_DB / 10))
        scene[before : before + len(word)] += word
        disturb(scene, before, before + len(word), rng)
        return wav_bytes(as_int16(scene))

    return make


def bursts(level_db: float, length_ms: float, *from_word_s: float) -> Disturb:
    """Bursts that begin so long before the word (below zero) or after it."""

    def disturb(scene: np.ndarray, start: int, end: int, rng: np.random.Generator) -> None:
        for seconds in from_word_s:
            add(scene, (start if seconds < 0 else end) + int(seconds * RATE_HZ), burst(level_db, length_ms, rng))

    return disturb


def add(scene: np.ndarray, place: int, values: np.ndarray) -> None:
    """Adds values at a place, or as near to it as they fit."""
    place = min(max(place, 0), len(scene) - len(values))
    scene[place : place + len(values)] += values


def at_both_ends(scene: np.ndarray, start: int, end: int, rng: np.random.Generator) -> None:
    """The clicks of a mouse that starts and stops the recording."""
    add(scene, 0, burst(-20.0, 5, rng))
    add(scene, len(scene), burst(-20.0, 5, rng))


def step(scene: np.ndarray, start: int, end: int, rng: np.random.Generator) -> None:
    """Direct current of a twentieth of full scale, from some moment at least 0.15 s before or after the word on."""
    apart = int(0.15 * RATE_HZ)
    places = np.r_[0 : start - apart, end + apart : len(scene)]
    scene[rng.choice(places) :] += rng.choice([-1, 1]) * 32768 / 20


def steady(scene: np.ndarray, start: int, end: int, rng: np.random.Generator) -> None:
    """Direct current of a twentieth of full scale throughout."""
    scene += rng.choice([-1, 1]) * 32768 / 20


def breath(scene: np.ndarray, start: int, end: int, rng: np.random.Generator) -> None:
    """Noise that swells and fades within 0.15 s, from 0.2 s after the word on, 20 dB below it."""
    num, at = int(0.15 * RATE_HZ), end + int(0.2 * RATE_HZ)
    add(scene, at, rng.normal(size=num) * np.hanning(num) * np.sqrt(np.mean(scene[start:end] ** 2)) / 10)


CONDITIONS: dict[str, tuple[str, Callable[[np.ndarray, np.random.Generator], bytes]]] = {
    "as recorded": ("clean", lambda word, rng: wav_bytes(word)),
    "44.1 kHz, stereo": ("clean", stereo_44100),
    "8 bit": ("", eight_bits),
    "in a second of digital silence": ("", lambda word, rng: in_room(word, None, rng)),
    "in room noise, white": ("noise", lambda word, rng: in_room(word, 0.0, rng)),
    "in room noise, -3 dB/octave": ("noise", lambda word, rng: in_room(word, 3.0, rng)),
    "in room noise, -6 dB/octave": ("noise", lambda word, rng: in_room(word, 6.0, rng)),
    "in room noise, and nothing else": ("disturbed", disturbed(lambda *_: None)),
    "… a click of -41 dB, 0.25 s before": ("disturbed", disturbed(bursts(-41, 5, -0.255))),
    "… a click of -41 dB, 0.25 s after": ("disturbed", disturbed(bursts(-41, 5, 0.25))),
    "… clicks of -20 dB, 0.2 and 0.3 s after": ("disturbed", disturbed(bursts(-20, 5, 0.2, 0.3))),
    "… a click of -10 dB, 0.25 s after": ("disturbed", disturbed(bursts(-10, 5, 0.25))),
    "… clicks of -20 dB as it starts and stops": ("disturbed", disturbed(at_both_ends)),
    "… a step of direct current": ("disturbed", disturbed(step)),
    "… steady direct current": ("", disturbed(steady)),
    "… two taps of a key, -25 dB, before": ("", disturbed(bursts(-25, 30, -0.3, -0.2))),
    "… a thud of 80 ms, -25 dB, before": ("", disturbed(bursts(-25, 80, -0.3))),
    "… a breath, 0.2 s after": ("", disturbed(breath)),
}
"""What becomes of a recording, and which goal holds for it."""
ONE_SCENE = ("as recorded", "44.1 kHz, stereo", "8 bit")
"""Of these there is nothing to draw."""


def heard(network: keras.Model, audio: np.ndarray) -> np.ndarray:
    """The class that a network hears in each sound, int64 (n,)."""
    image_shape = network.input["image"].shape[1:]
    present = np.tile(Spec().views["audio"], (len(audio), 1))
    batch = {"image": np.zeros((len(audio), *image_shape), np.float32), "audio": audio, "present": present}
    return np.asarray(network.predict(batch, batch_size=256, verbose=0)).argmax(axis=1)


def measure(folder: Path, settings: Settings, read: Callable) -> dict[str, tuple[float, str]]:
    """Accuracy under each condition, and the goal that holds for it."""
    run, recordings, source = open_run(folder), Recordings(), load_builtin()
    network, rows = load_network(run), np.unique(run.split()[f"{settings.part}_audio"])
    features, label = source["audio"].values, source["audio"].label
    results = {"stored features": (float(np.mean(heard(network, features[rows]) == label[rows])), "")}
    for name, (goal, make) in CONDITIONS.items():
        rng = np.random.default_rng(0)
        scenes = np.repeat(rows, 1 if name in ONE_SCENE else settings.draws)
        audio, reason = read(tf.constant([make(recordings[row], rng) for row in scenes]))
        if set(reason.numpy()) != {b""}:
            raise ValueError(f"{name}: every file must be readable. Found: {set(reason.numpy())}")
        results[name] = (float(np.mean(heard(network, audio.numpy()) == label[scenes])), goal)
    return results


def main() -> None:
    settings = tyro.cli(Settings)
    signature = [tf.TensorSpec((None,), tf.string)]
    recipe = replace(SPOKEN_DIGITS, trim=settings.trim, denoise=settings.trim)
    read = tf.function(lambda files: read_sounds(files, Spec()["audio"], recipe), input_signature=signature)
    table = Table(title=f"Audio alone, {settings.part} recordings", title_justify="left")
    columns = [measure(folder, settings, read) for folder in settings.runs]
    table.add_column("")
    for folder in settings.runs:
        table.add_column(folder.name, justify="right")
        table.add_column("points", justify="right")
    table.add_column("goal", justify="right")
    for name, (_, goal) in columns[0].items():
        cells = [name]
        for results in columns:
            accuracy, stored = results[name][0], results["stored features"][0]
            cells += [f"{accuracy:.4f}", f"{100 * (accuracy - stored):+.2f}" if name != "stored features" else ""]
        table.add_row(*cells, GOALS.get(goal, ""))
    wide_console().print(table)


if __name__ == "__main__":
    main()
