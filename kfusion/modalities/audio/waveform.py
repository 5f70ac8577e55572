"""Random changes of recorded words: other speed, microphone, room, noise and loudness; without TensorFlow.

They are made of the recording itself, before its features, since a grid of bands no longer holds what a room or a
narrow telephone does to a sound. `kfusion.data.media_features` makes some copies of each word once; training draws.
References: Ko et al. 2015 (speed); Ko et al. 2017 (rooms); Habets 2006 for decaying noise as a room's response.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_SPEED = 0.25
"""Logarithm of the largest factor of speed, and so of pitch."""
AROUND_S = 0.2
"""Of silence that is added before and after, for the room and the noise to be heard in."""
FILTER_DB, NOISE_FILTER_DB = 6.0, 5.0
"""Standard deviations of the gains at `NUM_KNOTS` frequencies."""
NUM_KNOTS = 6
ECHOED, NARROW, UNSTEADY = 0.6, 0.3, 0.3
"""Shares of the copies with a room, with a telephone's band, and with noise that comes and goes."""
DECAY_S, LONGEST_S = (0.08, 0.6), 0.3
"""Time in which an echo loses 60 dB, and how much of it is computed."""
LOW_HZ, HIGH_SHARE = (50.0, 350.0), (0.65, 1.0)
"""Edges of a narrow band, the upper one as a share of half the rate."""
NOISE_DB, QUIETER_DB = (3.0, 40.0), 30.0
"""How far noise lies below the word, and how much fainter than full scale a copy may be."""


def varied_files(content: bytes, num: int, seed: int) -> list[bytes]:
    """WAV files of one recording, each changed in its own way.

    Args:
        content: a WAV file; of one that cannot be read, all are empty.
        num: how many.
        seed: decides the changes.
    """
    import soundfile

    try:
        samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        samples, rate_hz = np.zeros((0, 1)), 1
    if not len(samples):
        return [b""] * num
    files = []
    for number in range(num):
        file = io.BytesIO()
        varied = vary(samples.mean(axis=1), rate_hz, np.random.default_rng([seed, number]))
        soundfile.write(file, varied, rate_hz, "FLOAT", format="WAV")
        files.append(file.getvalue())
    return files


def vary(samples: NDArray[Any], rate_hz: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """One recording, as somebody else's microphone might have recorded somebody else.

    Args:
        samples: floats (n,), n ≥ 1, in [-1, 1].
        rate_hz: their rate.
        rng: decides every change.

    Returns:
        float32 (m,), in [-1, 1]; m depends on the speed.
    """
    factor = np.exp(rng.uniform(-MOST_SPEED, MOST_SPEED))
    word = np.interp(np.arange(0, len(samples), factor), np.arange(len(samples)), samples)
    around = round(AROUND_S * rate_hz)
    num = len(word) + 2 * around
    size = num + round(LONGEST_S * rate_hz)  # Nothing comes round to the beginning again.
    size += -size % 1000  # Sizes with small factors are transformed quickly.
    hertz = np.fft.rfftfreq(size, 1 / rate_hz)
    spectrum = np.fft.rfft(np.pad(word, around), size) * _random_gain(rng, len(hertz), FILTER_DB)
    if rng.random() < ECHOED:
        spectrum *= np.fft.rfft(_room(rate_hz, rng), size)
    if rng.random() < NARROW:
        low, high = rng.uniform(*LOW_HZ), rng.uniform(*HIGH_SHARE) * rate_hz / 2
        spectrum /= np.sqrt((1 + (low / np.maximum(hertz, 1.0)) ** 6) * (1 + (hertz / high) ** 10))
    heard = np.fft.irfft(spectrum, size)[:num]
    loudness = np.sqrt(np.mean(heard[around : num - around] ** 2))
    heard = heard + _noise(num, size, rng) * loudness * 10 ** (-rng.uniform(*NOISE_DB) / 20)
    gain = 10 ** (-rng.uniform(0.0, QUIETER_DB) / 20) / max(float(np.abs(heard).max()), 1e-9)
    return (gain * heard).astype(np.float32)


def _curve(rng: np.random.Generator, num: int, deviation: float, knots: int) -> NDArray[np.float64]:
    """Normally distributed numbers at some places, and straight lines between them: (num,)."""
    return np.interp(np.linspace(0, knots - 1, num), np.arange(knots), rng.normal(0, deviation, knots))


def _random_gain(rng: np.random.Generator, num: int, deviation_db: float) -> NDArray[np.float64]:
    return 10 ** (_curve(rng, num, deviation_db, NUM_KNOTS) / 20)


def _room(rate_hz: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The response of a room: the sound itself, then noise that decays."""
    length, decay_s = round(LONGEST_S * rate_hz), rng.uniform(*DECAY_S)
    response = rng.normal(size=length) * np.exp(-np.log(1000.0) * np.arange(length) / (decay_s * rate_hz))
    response *= rng.uniform(0.1, 1.0) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return response


def _noise(num: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of a random colour, from white to -6 dB an octave, of deviation 1: (num,)."""
    share = np.maximum(np.linspace(0, 1, size // 2 + 1), 2e-3)
    colour = share ** -rng.uniform(0.0, 1.0) * _random_gain(rng, len(share), NOISE_FILTER_DB)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * colour, size)[:num]
    if rng.random() < UNSTEADY:
        noise *= np.maximum(0.05, 1 + _curve(rng, num, 0.7, NUM_KNOTS + 3))
    return noise / max(float(noise.std()), 1e-9)
