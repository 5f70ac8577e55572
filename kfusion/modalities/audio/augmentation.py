"""Random changes of training sounds: of their grid of frames × coefficients at every step, of recorded words before.

An augmentation of the grid is a function here, its settings in `config.AugmentConfig`, and its random stream;
`RandomSound` applies them in their order, keyed by sample (`random_streams`), to a whole batch at once: frequency,
noise, level, time, and masks. Background noise is added in the power domain to the decibels of bands. Sounds that are
known by their MFCC alone are turned back into a smooth spectrum in decibels, and the difference is turned into a
cepstrum again. What the first coefficients cannot hold stays as it was.

Recorded words get another speed, microphone, room, noise and loudness (`vary`). These are made of the recording itself,
before its features, since a grid of bands no longer holds what a room or a narrow telephone does to a sound.
`kfusion.data.media_features` makes some copies of each word once; training draws. References: Ko et al. 2015 (speed);
Ko et al. 2017 (rooms); Habets 2006 for decaying noise as a room's response.
"""

import io
import math
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.fft import dct

from kfusion.config import AugmentConfig
from kfusion.modalities.audio.recipe import SPOKEN_DIGITS
from kfusion.random_streams import Stream, uniform

Unit = Literal["coefficients", "bands", "unknown"]
"""Of features: a cosine transform of decibels, the decibels of bands themselves, or anything else."""
NUM_MEL_BANDS = SPOKEN_DIGITS.num_mel_bands
NUM_BANDS = 32
"""Bands in which powers are added; with fewer than the recipe has, levels in decibels must be scaled to agree."""
QUIETEST_DB, LOUDEST_DB = 45.0, 5.0
"""How far the noise lies below the loudest frame, in decibels."""
TILTS_DB = (4.0, 4.0, 3.0, 2.0)
"""Standard deviations of the noise spectrum's first cosine terms: rooms hum, hiss and everything between."""


def layers_of(config: AugmentConfig, grid: Any, mean: Any, unit: Unit, prefix: str = "") -> list[keras.layers.Layer]:
    """The layer that some settings ask for, or none.

    Args:
        config: which changes, and how far.
        grid: frames and coefficients of a sound.
        mean: of each feature over the training part; masks fill with it.
        unit: what the features are.
        prefix: of the layer's name.
    """
    in_time = config.time_shift or config.time_stretch or config.time_warp
    in_frequency = config.frequency_warp or config.frequency_mask
    in_level = unit == "bands" and (config.gain or config.mix)
    if not (in_time or in_frequency or in_level or config.time_mask or config.background):
        return []
    return [RandomSound(config, grid, mean, unit, name=f"{prefix}random_sound", dtype="float32")]


def cosines(num: int, num_bands: int = NUM_BANDS) -> np.ndarray:
    """The first rows of the orthonormal DCT-II: float32 (num, num_bands).

    Args:
        num: rows, up to `num_bands`.
        num_bands: over which the cosines run.
    """
    return dct(np.eye(num_bands), type=2, norm="ortho", axis=0)[:num].astype(np.float32)


def add_background(grid: Any, draws: Any, probability: float, unit: Unit = "coefficients") -> tf.Tensor:
    """Adds a steady noise of random level and colour to some of the sounds.

    Args:
        grid: float32 (batch, frames, coefficients), orthonormal DCT-II of decibels in `NUM_MEL_BANDS` bands; or
            decibels of bands.
        draws: float32 (batch, 6) in [0, 1): whether, how loud, and four cosine terms of the noise's spectrum.
        probability: that a sound gets noise.
        unit: what the features are; not "unknown".
    """
    if unit == "bands":
        return tf.where((draws[:, 0] < probability)[:, None, None], _with_noise(grid, draws), grid)
    coefficients = min(int(grid.shape[2]), NUM_BANDS)
    scale = math.sqrt(NUM_MEL_BANDS / NUM_BANDS)
    to_bands = tf.constant(cosines(coefficients))
    level_db = tf.einsum("btc,cm->btm", grid[..., :coefficients], to_bands) / scale
    change = tf.einsum("btm,cm->btc", _with_noise(level_db, draws) - level_db, to_bands) * scale
    change = tf.pad(change, [[0, 0], [0, 0], [0, int(grid.shape[2]) - coefficients]])
    return tf.where((draws[:, 0] < probability)[:, None, None], grid + change, grid)


def _with_noise(level_db: Any, draws: Any) -> tf.Tensor:
    """Levels (batch, frames, bands) in decibels with a steady noise, whose level and colour the draws say."""
    num_bands = int(level_db.shape[2])
    loudest = tf.reduce_max(tf.reduce_mean(level_db, axis=2), axis=1)
    below = LOUDEST_DB + (QUIETEST_DB - LOUDEST_DB) * draws[:, 1]
    # Away from 0 and 1, where the inverse of the normal distribution is infinite.
    terms = tf.math.ndtri(draws[:, 2:] * (1.0 - 2e-6) + 1e-6) * tf.constant(TILTS_DB)
    colour = tf.constant(cosines(len(TILTS_DB) + 1, num_bands)[1:] * math.sqrt(num_bands / 2))
    noise_db = (loudest - below)[:, None] + tf.einsum("bc,cm->bm", terms, colour)
    return _add_power(level_db, noise_db[:, None])


def mix_and_amplify(grid: Any, draws: Any, probability: float, gain_db: float) -> tf.Tensor:
    """Puts the next sound of the batch beneath some of the sounds, and makes each louder or fainter as a whole.

    The loudest frame of the other sound lies as far below the loudest of the first as noise does.

    Args:
        grid: float32 (batch, frames, bands), decibels.
        draws: float32 (batch, 3) in [0, 1): whether, how faint, and the gain.
        probability: that a sound gets another one.
        gain_db: most, to either side.
    """
    loudest = tf.reduce_max(tf.reduce_mean(grid, axis=2), axis=1)
    below = LOUDEST_DB + (QUIETEST_DB - LOUDEST_DB) * draws[:, 1]
    other = tf.roll(grid - loudest[:, None, None], 1, axis=0) + (loudest - below)[:, None, None]
    grid = tf.where((draws[:, 0] < probability)[:, None, None], _add_power(grid, other), grid)
    return grid + (2.0 * draws[:, 2, None, None] - 1.0) * gain_db


def _add_power(one_db: tf.Tensor, other_db: tf.Tensor) -> tf.Tensor:
    """10 log10(10^(a/10) + 10^(b/10)), without overflow."""
    larger, smaller = tf.maximum(one_db, other_db), tf.minimum(one_db, other_db)
    return larger + tf.math.log1p(tf.exp((smaller - larger) * (math.log(10.0) / 10.0))) * (10.0 / math.log(10.0))


def warp_frequency(grid: Any, draws: Any, amount: float, unit: Unit = "coefficients") -> tf.Tensor:
    """Reads each sound at other frequencies, as a longer or shorter vocal tract has them.

    With x = 2u - 1, band m is read at (m + ½) exp(amount x |x|) - ½ on the mel axis, between bands linearly, beyond the
    edges at the edge band: half of the sounds are moved by less than a quarter of the amount, since those who are known
    are to be heard best as they are. That is a matrix over the bands, W, and over a cepstrum of cosines C the matrix
    C (W - 1) Cᵀ + 1.
    Reference: Jaitly and Hinton 2013, vocal tract length perturbation.

    Args:
        grid: float32 (batch, frames, coefficients), as for `add_background`.
        draws: float32 (batch, 1) in [0, 1): u.
        amount: logarithm of the largest factor.
        unit: what the features are; not "unknown".
    """
    size = int(grid.shape[2])
    num_bands = size if unit == "bands" else max(NUM_BANDS, size)
    band = tf.range(num_bands, dtype=tf.float32)
    x = 2.0 * draws - 1.0
    place = (band + 0.5) * tf.exp(amount * x * tf.abs(x)) - 0.5
    place = tf.expand_dims(tf.clip_by_value(place, 0.0, num_bands - 1.0), 2)
    change = tf.maximum(1.0 - tf.abs(place - band), 0.0) - tf.eye(num_bands)
    if unit == "coefficients":
        rows = tf.constant(cosines(size, num_bands))
        change = tf.einsum("cm,bmn,dn->bcd", rows, change, rows)
    return grid + tf.matmul(grid, change, transpose_b=True)


def warp_time(grid: Any, draws: Any, config: AugmentConfig) -> tf.Tensor:
    """Reads each sound at other moments: shifted, faster or slower, and unevenly so.

    With t from 0 to 1 over the sound, frame t is read at

        0.5 + (t - 0.5) (1 + stretch) + shift + warp sin(πt) / π + ½ warp' sin(2πt) / π

    and beyond the edges at the edge frame; between frames linearly.

    Args:
        grid: float32 (batch, frames, coefficients).
        draws: float32 (batch, 4) in [0, 1): stretch, shift, warp, warp'.
        config: `time_stretch` and `time_warp`, shares; `time_shift`, frames.
    """
    last = int(grid.shape[1]) - 1.0
    stretch, shift, warp, second = tf.split(2.0 * draws - 1.0, 4, axis=1)
    t = tf.range(last + 1.0)[None] / last
    place = 0.5 + (t - 0.5) * (1.0 + stretch * config.time_stretch) + shift * config.time_shift / last
    place += config.time_warp / math.pi * (warp * tf.sin(math.pi * t) + 0.5 * second * tf.sin(2.0 * math.pi * t))
    place = tf.clip_by_value(place * last, 0.0, last)
    left = tf.minimum(tf.floor(place), last - 1.0)
    weight = (place - left)[..., None]
    before = tf.cast(left, tf.int32)
    return tf.gather(grid, before, batch_dims=1) * (1.0 - weight) + tf.gather(grid, before + 1, batch_dims=1) * weight


def hidden_span(draws: tf.Tensor, longest: int, size: int) -> tf.Tensor:
    """Spans of random length in [0, longest] at a random place: bool (batch, size), true where hidden.

    Args:
        draws: float32 (batch, 2) in [0, 1): length and place.
        longest: in [0, size].
        size: of the axis.
    """
    length = tf.floor(draws[:, 0] * (longest + 1))
    start = tf.floor(draws[:, 1] * (size - length + 1))
    place = tf.range(size, dtype=tf.float32)[None]
    return (place >= start[:, None]) & (place < (start + length)[:, None])


@keras.saving.register_keras_serializable("kfusion")
class RandomSound(keras.layers.Layer):
    """Change of frequency, background noise, another sound, gain, change of time, and masks, in this order.

    Args:
        config: which of them, and how far.
        grid: frames and coefficients of a sound.
        mean: of each feature over the training part, (frames · coefficients,); masks fill with it.
        unit: what the features are; those that are known get all of them, but other sounds and gain only bands do.

    Input shape:
        audio float32 (batch, frames · coefficients), frame-major, and keys int64 (batch,).

    Output shape:
        As the audio's; outside training, the audio itself. Reference: Park et al. 2019 (SpecAugment) for the masks.
    """

    def __init__(self, config: AugmentConfig | dict[str, Any], grid: Any, mean: Any, unit: Unit, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = AugmentConfig(**config) if isinstance(config, dict) else config
        self.grid = (int(grid[0]), int(grid[1]))
        self.mean = np.asarray(mean, np.float32)
        self.unit: Unit = unit

    def call(self, audio: Any, keys: Any, training: bool | None = None) -> Any:
        """Changes sounds in training; see the class."""
        if not training:
            return audio
        config, (frames, coefficients) = self.config, self.grid
        grid = tf.reshape(audio, (-1, frames, coefficients))
        if config.frequency_warp and self.unit != "unknown":
            draws = uniform(keys, Stream.FREQUENCY_WARP, 1)
            grid = warp_frequency(grid, draws, config.frequency_warp, self.unit)
        if config.background and self.unit != "unknown":
            grid = add_background(grid, uniform(keys, Stream.BACKGROUND, 6), config.background, self.unit)
        if self.unit == "bands" and (config.gain or config.mix):
            grid = mix_and_amplify(grid, uniform(keys, Stream.LEVEL, 3), config.mix, config.gain)
        if frames > 1 and (config.time_shift or config.time_stretch or config.time_warp):
            grid = warp_time(grid, uniform(keys, Stream.TIME_WARP, 4), config)
        if frames > 1 and (config.time_mask or config.frequency_mask):
            grid = self._masked(grid, uniform(keys, Stream.MASKS, 4))
        return tf.reshape(grid, (-1, frames * coefficients))

    def _masked(self, grid: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        frames, coefficients = self.grid
        in_time = hidden_span(draws[:, :2], min(self.config.time_mask, frames), frames)
        in_frequency = hidden_span(draws[:, 2:], min(self.config.frequency_mask, coefficients), coefficients)
        # The training part's mean, which the network sees as 0.
        fill = tf.constant(self.mean.reshape(1, frames, coefficients))
        return tf.where(in_time[:, :, None] | in_frequency[:, None, :], fill, grid)

    def compute_output_shape(self, audio_shape: Any, keys_shape: Any) -> Any:
        """The shape of the output, for Keras."""
        return audio_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same object, for saving."""
        own = {"config": vars(self.config), "grid": list(self.grid), "unit": self.unit}
        return {**super().get_config(), **own, "mean": self.mean.tolist()}


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
