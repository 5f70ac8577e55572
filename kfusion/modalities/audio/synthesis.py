"""Sound files made from features, to warm up and to prove what reads files; and WAV files put together by hand.

Runs keep features, not recordings. A sound is made anew from its features: noise, whose spectrum in each frame is what
the features say. It is no voice, but it has what a network listens to.
"""

import io
import wave

import numpy as np
from scipy.fft import idct

from kfusion.modalities.audio.recipe import BREAK_HZ, SPOKEN_DIGITS, SoundRecipe
from kfusion.spec import ModalitySpec

LOUDEST_BAND_DB = 60.0
LOWEST_PEAK = 0.1
"""Of full scale: what is fainter is made as loud, since noise may be too faint to be heard where a word is not."""


def sound_file(features: np.ndarray, spec: ModalitySpec, seed: int = 0, recipe: SoundRecipe = SPOKEN_DIGITS) -> bytes:
    """A WAV file, 16 bit, mono, at the recipe's rate, one hop of time for each frame of the features.

    Args:
        features: float32 (num_values,), MFCC or decibels of bands, as the recipe has them.
        spec: their grid.
        seed: of the noise.
        recipe: by which they were made.
    """
    frames, coefficients = spec.grid
    num_bands, window, hop = recipe.num_mel_bands, recipe.window, recipe.hop
    grid = np.zeros((frames, num_bands))
    grid[:, :coefficients] = features.reshape(frames, coefficients)
    levels_db = grid if recipe.values == "log-mel" else idct(grid, type=2, norm="ortho", axis=1)
    bands = np.clip(levels_db, recipe.lowest_db, LOUDEST_BAND_DB)
    hertz = np.fft.rfftfreq(window, 1 / recipe.sample_rate_hz)
    # Evenly spaced on the HTK mel scale, so a bin's band is its own place on that scale.
    mel = np.log10(1 + hertz / BREAK_HZ) / np.log10(1 + hertz[-1] / BREAK_HZ) * (num_bands - 1)
    power = np.stack([np.interp(mel, np.arange(num_bands), 10 ** (row / 10)) for row in bands])
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, power.shape)
    pieces = np.fft.irfft(np.sqrt(power) * np.exp(1j * phase), window, axis=1) * np.hanning(window)
    samples = np.zeros(hop * (frames - 1) + window)
    for frame, piece in enumerate(pieces):
        samples[frame * hop : frame * hop + window] += piece
    samples *= max(1.0, LOWEST_PEAK / max(float(np.abs(samples).max()), 1e-12))
    content = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    return wav_file(content, sample_rate_hz=recipe.sample_rate_hz)


def wav_file(
    data: bytes, sample_bytes: int = 2, num_channels: int = 1, sample_rate_hz: int = SPOKEN_DIGITS.sample_rate_hz
) -> bytes:
    """A WAV file around samples.

    Args:
        data: the samples, the channels' values of one moment side by side.
        sample_bytes: of one value.
        num_channels: values of one moment.
        sample_rate_hz: moments a second.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(sample_bytes)
        file.setframerate(sample_rate_hz)
        file.writeframes(data)
    return buffer.getvalue()
