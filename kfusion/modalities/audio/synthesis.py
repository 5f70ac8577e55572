"""Sound files made from features, to warm up and to prove what reads files; and WAV files put together by hand.

Runs keep features, not recordings. A sound is made anew from its features: noise, whose spectrum in each frame is what
the features say. It is no voice, but it has what a network listens to.
"""

import io
import wave

import numpy as np
from scipy.fft import idct

from kfusion.spec import ModalitySpec

SAMPLE_RATE_HZ, WINDOW, HOP = 8000, 400, 200
NUM_BANDS, LOUDEST_BAND_DB, QUIETEST_BAND_DB = 128, 60.0, -100.0
LOWEST_PEAK = 0.1
"""Of full scale: what is fainter is made as loud, since noise may be too faint to be heard where a word is not."""


def sound_file(features: np.ndarray, spec: ModalitySpec, seed: int = 0) -> bytes:
    """A WAV file, 16 bit, mono, 8 kHz, 25 ms for each frame of the features.

    Args:
        features: float32 (num_values,), MFCC as the built-in sounds have them.
        spec: their grid.
        seed: of the noise.
    """
    frames, coefficients = spec.grid
    grid = np.zeros((frames, NUM_BANDS))
    grid[:, :coefficients] = features.reshape(frames, coefficients)
    bands = np.clip(idct(grid, type=2, norm="ortho", axis=1), QUIETEST_BAND_DB, LOUDEST_BAND_DB)
    hertz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE_HZ)
    # Evenly spaced on the HTK mel scale, so a bin's band is its own place on that scale.
    mel = np.log10(1 + hertz / 700) / np.log10(1 + hertz[-1] / 700) * (NUM_BANDS - 1)
    power = np.stack([np.interp(mel, np.arange(NUM_BANDS), 10 ** (row / 10)) for row in bands])
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, power.shape)
    pieces = np.fft.irfft(np.sqrt(power) * np.exp(1j * phase), WINDOW, axis=1) * np.hanning(WINDOW)
    samples = np.zeros(HOP * (frames - 1) + WINDOW)
    for frame, piece in enumerate(pieces):
        samples[frame * HOP : frame * HOP + WINDOW] += piece
    samples *= max(1.0, LOWEST_PEAK / max(float(np.abs(samples).max()), 1e-12))
    return wav_file(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def wav_file(data: bytes, sample_bytes: int = 2, num_channels: int = 1, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """A WAV file around samples, the channels' values of one moment side by side."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(sample_bytes)
        file.setframerate(sample_rate_hz)
        file.writeframes(data)
    return buffer.getvalue()
