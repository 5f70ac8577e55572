"""What data and model agree on: the names, shapes and classes of a batch.

A batch is `{"image": (batch, height, width, channels), "audio": (batch, num_audio), "present": (batch, 2)}` and
`label (batch,)`. Modalities go by name; `MODALITIES` fixes their order wherever an axis runs over them.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kfusion.validation import UserError

MAX_CHANNELS = 4


MODALITIES = ("image", "audio")
FUSED = "fused"
VIEWS: dict[str, tuple[bool, bool]] = {FUSED: (True, True), "image": (True, False), "audio": (False, True)}
"""The three ways to ask one model: which modalities are present, in the order of `MODALITIES`."""

AVERAGES = ("accuracy", "macro avg", "weighted avg")
"""Rows of the test report that are no classes."""
DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Spec:
    """The shapes and names that the data decides and the model is built from.

    Args:
        image_shape: height, width and channels of one image, in pixels.
        audio_grid: frames and coefficients per frame of one sound, stored frame-major; (39, 13) for the digits. Audio
            without a known grid is one frame: `(1, num_audio)`.
        class_names: one name per class, in the order of the labels 0, 1, …
        pixel_max: the brightest value a pixel may have in this data, 1 or 255.

    Raises:
        UserError: a size below 1, fewer than two classes, repeated names, or another `pixel_max`.
    """

    image_shape: tuple[int, int, int] = (28, 28, 1)
    audio_grid: tuple[int, int] = (39, 13)
    class_names: tuple[str, ...] = DIGITS
    pixel_max: int = 255

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise UserError(f"'image_shape' must be (height, width, channels), each ≥ 1. Received: {self.image_shape}")
        if len(self.audio_grid) != 2 or min(self.audio_grid) < 1:
            raise UserError(f"'audio_grid' must be (frames, coefficients), each ≥ 1. Received: {self.audio_grid}")
        if len(self.class_names) < 2 or len(set(self.class_names)) != len(self.class_names):
            raise UserError(f"'class_names' must be at least two different names. Received: {self.class_names}")
        reserved = sorted(set(self.class_names) & set(AVERAGES))
        if reserved:
            raise UserError(f"'class_names' must leave {', '.join(AVERAGES)} to the report. Received: {reserved}")
        if self.pixel_max not in (1, 255):
            raise UserError(f"'pixel_max' must be 1 or 255. Received: {self.pixel_max}")

    @property
    def num_audio(self) -> int:
        """Features of one sound: frames × coefficients."""
        return self.audio_grid[0] * self.audio_grid[1]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Spec":
        return cls(
            image_shape=tuple(values["image_shape"]),
            audio_grid=tuple(values["audio_grid"]),
            class_names=tuple(values["class_names"]),
            pixel_max=values["pixel_max"],
        )


def are_channels_first(shape: tuple[int, int, int]) -> bool:
    """Whether an image is (channels, height, width), as PyTorch has it, and not (height, width, channels).

    It is where its last axis is too long for channels and its first is not, or where it is square in its last two axes
    alone.
    """
    first, second, last = shape
    return last > MAX_CHANNELS and (first <= MAX_CHANNELS or first != second == last)


def without_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one sound without the axis of length 1 that networks for pictures want at its end or beginning."""
    if len(shape) == 3 and 1 in (shape[0], shape[-1]):
        return shape[:2] if shape[-1] == 1 else shape[1:]
    return shape
