"""Corruptions of sounds on their grid of frames × coefficients, by severity; see those of images.

White noise and babble are added at a given ratio of signal to noise, where the features are known to be decibels of
mel bands or MFCC of them: a cepstrum is turned into a smooth spectrum, the noise's power is added, and the difference
is turned back.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

from kfusion.modalities.audio.recipe import MEL, SPOKEN_DIGITS, SoundRecipe
from kfusion.modalities.base import Corruption, Shape, normal

NUM_BANDS = 32
"""Bands in which powers are added; with fewer than the recipe has, levels in decibels must be scaled to agree."""
NUM_TALKERS = 4
"""Voices of the babble."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the corruptions of sounds need besides the sounds.

    Args:
        std: standard deviation of each feature over the training part, (frames, coefficients).
        babble: sounds of other people, to mix in, float32 (m, frames, coefficients).
        recipe: by which the features were made, where they are known to be decibels.
    """

    std: NDArray
    babble: NDArray
    recipe: SoundRecipe = SPOKEN_DIGITS


def add_feature_noise(sounds: NDArray, amount: float, draws: NDArray, around: Surroundings) -> NDArray:
    """Normally distributed noise, `amount` of each feature's own standard deviation."""
    return sounds + amount * around.std * normal(draws).reshape(sounds.shape)


def add_white_noise(sounds: NDArray, amount: float, draws: NDArray, around: Surroundings) -> NDArray:
    """Steady noise with equal power per Hz, `amount` decibels below the sound; its level wavers as a band's does."""
    # Mel bands grow wider with 10^(mel/2595), and unnormalised filters gather the more power the wider they are.
    num_bands = sounds.shape[2] if around.recipe.values == "log-mel" else NUM_BANDS
    width_db = 10 * np.linspace(0, around.recipe.top_mel, num_bands) / MEL
    wavering_db = normal(draws).reshape(len(sounds), sounds.shape[1], num_bands)
    return _with_noise(sounds, 10 ** ((width_db + wavering_db) / 10), amount, around.recipe)


def add_babble(sounds: NDArray, amount: float, draws: NDArray, around: Surroundings) -> NDArray:
    """Four other people speaking at once, `amount` decibels below the sound."""
    talker = np.minimum((draws * len(around.babble)).astype(np.int64), len(around.babble) - 1)
    power = _power(around.babble, around.recipe)
    power /= power.mean(axis=(1, 2), keepdims=True)
    return _with_noise(sounds, power[talker].sum(axis=1), amount, around.recipe)


def shift(sounds: NDArray, amount: float, draws: NDArray, around: Surroundings) -> NDArray:
    """Earlier or later by the share `amount` of the frames; what moves in is the sound's quietest frame."""
    frames = sounds.shape[1]
    steps = round(amount * frames)
    place = np.arange(frames)[None] + np.where(draws[:, 0] < 0.5, steps, -steps)[:, None]
    moved = np.take_along_axis(sounds, np.clip(place, 0, frames - 1)[..., None], axis=1)
    return np.where(((place < 0) | (place >= frames))[..., None], _quietest(sounds, around), moved)


def clip_start(sounds: NDArray, amount: float, draws: NDArray, around: Surroundings) -> NDArray:
    """The share `amount` of the frames is missing at the start, and silent instead: recorded too late."""
    lost = np.arange(sounds.shape[1]) < round(amount * sounds.shape[1])
    return np.where(lost[None, :, None], _quietest(sounds, around), sounds)


def drop_frames(sounds: NDArray, amount: float, draws: NDArray, around: Surroundings) -> NDArray:
    """About the share `amount` of the frames, at random places, is lost and silent instead."""
    return np.where((draws < amount)[..., None], _quietest(sounds, around), sounds)


def _quietest(sounds: NDArray, around: Surroundings) -> NDArray:
    """The frame of each sound with the least energy (coefficient 0, or the bands' mean): (n, 1, coefficients)."""
    energy = sounds.mean(axis=2) if around.recipe.values == "log-mel" else sounds[..., 0]
    return np.take_along_axis(sounds, energy.argmin(axis=1)[:, None, None], axis=1)


def _levels_db(sounds: NDArray, recipe: SoundRecipe = SPOKEN_DIGITS) -> NDArray:
    """The spectrum in decibels: (n, frames, bands), or of a cepstrum the smooth one, (n, frames, NUM_BANDS)."""
    if recipe.values == "log-mel":
        return np.asarray(sounds, np.float32)
    padding = max(NUM_BANDS - sounds.shape[2], 0)
    padded = np.pad(np.asarray(sounds[..., :NUM_BANDS], np.float32), [(0, 0), (0, 0), (0, padding)])
    return idct(padded, norm="ortho", axis=2) / np.float32(np.sqrt(recipe.num_mel_bands / NUM_BANDS))


def _power(sounds: NDArray, recipe: SoundRecipe) -> NDArray:
    return 10 ** (_levels_db(sounds, recipe) / 10)


def _with_noise(sounds: NDArray, noise: NDArray, ratio_db: float, recipe: SoundRecipe) -> NDArray:
    """Adds the power of `noise` (n, frames, bands), scaled so that the sound's is `ratio_db` decibels above it."""
    clean = _power(sounds, recipe)
    scale = clean.mean(axis=(1, 2), keepdims=True) / noise.mean(axis=(1, 2), keepdims=True) * 10 ** (-ratio_db / 10)
    change_db = 10 * np.log1p(noise * scale / clean) / np.log(10)
    if recipe.values == "log-mel":
        return sounds + change_db
    fewer = np.sqrt(recipe.num_mel_bands / NUM_BANDS)
    change = dct(change_db, norm="ortho", axis=2)[..., : sounds.shape[2]] * fewer
    return sounds + np.pad(change, [(0, 0), (0, 0), (0, sounds.shape[2] - change.shape[2])])


def _one_per_feature(shape: Shape) -> int:
    return int(np.prod(shape))


AUDIO_CORRUPTIONS: dict[str, Corruption] = {
    "white_noise": Corruption(
        "white noise", "dB above it", (20, 15, 10, 5, 0), lambda shape: shape[0] * NUM_BANDS, add_white_noise
    ),
    "babble": Corruption("babble", "dB above it", (20, 15, 10, 5, 0), lambda shape: NUM_TALKERS, add_babble),
    "feature_noise": Corruption(
        "feature noise", "of the deviation", (0.25, 0.5, 1.0, 1.5, 2.0), _one_per_feature, add_feature_noise
    ),
    "time_shift": Corruption("time shift", "of the frames", (0.05, 0.1, 0.2, 0.3, 0.4), lambda shape: 1, shift),
    "clipped_start": Corruption(
        "clipped start", "of the frames", (0.1, 0.2, 0.3, 0.4, 0.5), lambda shape: 1, clip_start
    ),
    "dropped_frames": Corruption(
        "dropped frames", "of the frames", (0.1, 0.2, 0.35, 0.5, 0.65), lambda shape: shape[0], drop_frames
    ),
}


def fitting(grid: tuple[int, int], decibels: bool, bands: bool = False) -> dict[str, Corruption]:
    """The corruptions that make sense for some sounds.

    Args:
        grid: frames and coefficients; a single frame has no time.
        decibels: whether the features are known to be decibels or MFCC of them; noise can be added at a ratio to those
            only.
        bands: whether they are the decibels of bands themselves.
    """
    names = ["feature_noise"]
    if grid[0] > 1:
        names = [*(["white_noise", "babble"] if decibels else ["feature_noise"])]
        names += ["time_shift", "clipped_start", "dropped_frames"]
    chosen = {name: AUDIO_CORRUPTIONS[name] for name in names}
    if bands and "white_noise" in chosen:
        chosen["white_noise"] = replace(chosen["white_noise"], num_draws=_one_per_feature)
    return chosen
