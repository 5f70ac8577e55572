"""Corruptions of images, by severity: what goes wrong between a stroke and its picture.

Each is a pure function of the images, an amount and the samples' own random numbers, so that it can be repeated. At
every severity the same numbers are used: a sample is turned to the same side at each, only further.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from kfusion.modalities.base import Corruption, Shape, normal

COLOURS = 3


def add_noise(images: NDArray, amount: float, draws: NDArray) -> NDArray[np.float32]:
    """Normally distributed noise of standard deviation `amount` in each pixel, cut to [0, 1]."""
    return np.clip(images + amount * normal(draws).reshape(images.shape), 0, 1)


def blur(images: NDArray, amount: float, draws: NDArray) -> NDArray[np.float32]:
    """A Gaussian blur whose standard deviation is the share `amount` of the height."""
    sigma = amount * images.shape[1]
    return gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def occlude(images: NDArray, amount: float, draws: NDArray) -> NDArray[np.float32]:
    """A black square whose side is the share `amount` of the image's; it grows about one random centre."""
    _, height, width, _ = images.shape
    widest = IMAGE_CORRUPTIONS["occlusion"].amounts[-1]
    covered = np.ones(images.shape[:3], bool)
    for axis, size in ((1, height), (2, width)):
        centre = widest / 2 + draws[:, axis - 1] * (1 - widest)
        place = (np.arange(size) + 0.5) / size
        inside = np.abs(place[None] - centre[:, None]) <= amount / 2
        covered &= inside[:, :, None] if axis == 1 else inside[:, None, :]
    return np.where(covered[..., None], np.float32(0), images)


def turn(images: NDArray, amount: float, draws: NDArray) -> NDArray[np.float32]:
    """A rotation by `amount` degrees, to either side; around a colour picture, its nearest pixels go on."""
    out, left = np.empty_like(images), draws[:, 0] < 0.5
    mode = "nearest" if images.shape[-1] == COLOURS else "constant"
    for chosen, angle in ((left, amount), (~left, -amount)):
        if chosen.any():
            out[chosen] = rotate(images[chosen], angle, axes=(2, 1), reshape=False, order=1, mode=mode)
    return out


def weaken_contrast(images: NDArray, amount: float, draws: NDArray) -> NDArray[np.float32]:
    """The share `amount` of the contrast is lost: each pixel moves that far towards the image's mean."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return images + np.float32(amount) * (mean - images)


def invert(images: NDArray, amount: float, draws: NDArray) -> NDArray[np.float32]:
    """A negative of the share `amount` of the image, from its left or its right edge; 1: of all of it."""
    place = (np.arange(images.shape[2]) + 0.5) / images.shape[2]
    place = np.where((draws[:, 0] < 0.5)[:, None], place[None], 1 - place[None])
    return np.where((place <= amount)[:, None, :, None], 1 - images, images)


def _one_per_pixel(shape: Shape) -> int:
    return int(np.prod(shape))


def _one(shape: Shape) -> int:
    return 1


IMAGE_CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption("noise", "of full brightness", (0.1, 0.2, 0.3, 0.4, 0.6), _one_per_pixel, add_noise),
    "blur": Corruption("blur", "of the height", (0.02, 0.035, 0.05, 0.07, 0.1), _one, blur),
    "occlusion": Corruption("occlusion", "of the side", (0.2, 0.3, 0.4, 0.5, 0.6), lambda shape: 2, occlude),
    "rotation": Corruption("rotation", "degrees", (10, 20, 30, 45, 60), _one, turn),
    "contrast": Corruption("lost contrast", "of the contrast", (0.4, 0.6, 0.8, 0.9, 0.95), _one, weaken_contrast),
    "inverted": Corruption("inverted", "of the width", (0.2, 0.4, 0.6, 0.8, 1.0), _one, invert),
}
