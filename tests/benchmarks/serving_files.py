"""PNG and WAV to a network's inputs by Pillow, soundfile and NumPy, as somebody would write it around another server.

The sound's features are those of the built-in data (8 kHz, windows of 50 ms each 25 ms, 128 mel bands, 13 coefficients,
stretched to 39 frames); no word is sought in the room's noise, no digit in a photo: less than kfusion's graph does.
"""

import base64
import io

import numpy as np
import soundfile
from PIL import Image
from scipy.fft import dct
from scipy.signal import resample_poly

RATE, WINDOW, HOP, BANDS, COEFFICIENTS, FRAMES = 8000, 400, 200, 128, 13, 39


def mel_bands() -> np.ndarray:
    """Triangles of HTK's mel scale from 0 to 4 kHz: (WINDOW // 2 + 1, BANDS)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


MEL, HANN = mel_bands(), np.hanning(WINDOW + 1)[:-1]


def read_image(text: str) -> np.ndarray:
    """A PNG in base64 -> float32 (28, 28, 1), 0 to 1."""
    picture = Image.open(io.BytesIO(base64.b64decode(text))).convert("L").resize((28, 28))
    return np.asarray(picture, np.float32)[..., None] / 255


def read_sound(text: str) -> np.ndarray:
    """A WAV in base64 -> float32 (507,)."""
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(text)), dtype="float32", always_2d=True)
    wave = wave.mean(axis=1)
    if rate != RATE:
        wave = resample_poly(wave, RATE, rate)
    wave = np.pad(wave, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * HANN
    level = 10 * np.log10(np.maximum(np.abs(np.fft.rfft(frames)) ** 2 @ MEL, 1e-10))
    level = np.maximum(level, level.max() - 80)
    cepstrum = dct(level, axis=1, norm="ortho")[:, :COEFFICIENTS]
    place = np.linspace(0, len(cepstrum) - 1, FRAMES)
    columns = [np.interp(place, np.arange(len(cepstrum)), column) for column in cepstrum.T]
    return np.stack(columns, axis=1).reshape(-1).astype(np.float32)
