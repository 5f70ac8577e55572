"""What data and model agree on: the modalities by name, their shapes, and the classes.

A batch is `{name: (batch, *shape) for each modality, "present": (batch, modalities)}` and `label (batch,)`. Modalities
go by name; wherever an axis runs over them, it has the order of `Spec.modalities`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from kfusion.validation import UserError, require

FUSED = "fused"
"""The view of everything that is present."""
AVERAGES = ("accuracy", "macro avg", "weighted avg")
"""Rows of the test report that are no classes."""
DIGITS = tuple(str(digit) for digit in range(10))
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""What the digits are called in collections of words."""
DIGIT_SHAPE = (28, 28, 1)
"""Of a written digit: height, width and channels."""
TRUSTED = ("familiarity", "used", "accepted", "prediction_set")
"""What is said of an answer by a model of whose trust something is known; see `kfusion.model.trust`."""
SHARES = "shares"
"""What each modality adds to an answer; see `kfusion.model.answers`."""
RESERVED = (
    *TRUSTED,
    SHARES,
    *(FUSED, "present", "label", "keys", "class_name", "embedding", "probabilities", "confidence", "agree", "reason"),
    *("id", "row_id", "index", "group", "speaker", "accuracy", "ece"),
)
"""What no modality may be called: batches, predictions, tables and evaluations use these names."""


@dataclass(frozen=True)
class ModalitySpec:
    """One kind of input: its shape, and the unit of its values.

    Args:
        kind: its name in the registry (`kfusion.modalities`), which says how it is read, encoded and drawn.
        shape: of one sample as the network takes it.
        grid: the same values with their axes, where the network takes them flat: (39, 13) for the 507 features of a
            spoken digit. The shape if left out.
        scale: what a request's 1.0 is in the network's own unit: 255 for pixels stored as bytes, else 1.
        front_end: the name of what makes the values from files, where that is not the kind's usual one; see
            `Modality.front_end`.

    Raises:
        UserError: a size below 1, a grid of other values, or a scale below 1.
    """

    kind: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] = ()
    scale: int = 1
    front_end: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "grid", tuple(self.grid) or self.shape)
        for name in ("shape", "grid"):
            sizes = getattr(self, name)
            if not sizes or not all(type(size) is int and size >= 1 for size in sizes):
                raise UserError(f"'{name}' of a modality must be sizes ≥ 1. Received: {sizes}")
        if math.prod(self.grid) != self.num_values:
            raise UserError(f"'grid' must have the values of the shape, {self.shape}. Received: {self.grid}")
        if type(self.scale) is not int or self.scale < 1:
            raise UserError(f"'scale' must be a whole number ≥ 1. Received: {self.scale}")

    @property
    def num_values(self) -> int:
        """Numbers of one sample."""
        return math.prod(self.shape)


class Window(NamedTuple):
    """A part of a file that is as long as what a network was trained on: its place in seconds, and it as a file."""

    start_s: float
    end_s: float
    content: bytes


@dataclass(frozen=True)
class Caution:
    """How much a model is to be trusted.

    Args:
        turn_away: share of known inputs of each modality that may be turned away as unfamiliar, in [0, 0.5]. 0: none.
        coverage: probability with which a prediction set is to hold the right class, in (0, 1).
    """

    turn_away: float = 0.05
    coverage: float = 0.95

    def __post_init__(self) -> None:
        require(0 <= self.turn_away <= 0.5, "turn_away", "in [0, 0.5]", self.turn_away)
        require(0 < self.coverage < 1, "coverage", "in (0, 1)", self.coverage)


def image_spec(shape: tuple[int, ...] = (28, 28, 1), pixel_max: int = 255) -> ModalitySpec:
    """Pictures.

    Args:
        shape: height, width and channels, in pixels.
        pixel_max: the brightest value a pixel may have in this data, 1 or 255.

    Raises:
        UserError: another number of sizes, or another `pixel_max`.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"'image_shape' must be (height, width, channels), each ≥ 1. Received: {shape}")
    if pixel_max not in (1, 255):
        raise UserError(f"'pixel_max' must be 1 or 255. Received: {pixel_max}")
    return ModalitySpec("image", shape, scale=pixel_max)


def audio_spec(grid: tuple[int, ...] = (39, 13)) -> ModalitySpec:
    """Sounds, as features.

    Args:
        grid: frames and coefficients per frame of one sound, stored frame-major; (39, 13) for the digits. Audio without
            a known grid is one frame: `(1, num_values)`.

    Raises:
        UserError: another number of sizes.
    """
    if len(grid) != 2 or min(grid) < 1:
        raise UserError(f"'audio_grid' must be (frames, coefficients), each ≥ 1. Received: {grid}")
    return ModalitySpec("audio", (math.prod(grid),), grid)


def _digits() -> dict[str, ModalitySpec]:
    return {"image": image_spec(), "audio": audio_spec()}


@dataclass(frozen=True)
class Spec:
    """The shapes and names that the data decides and the model is built from.

    Args:
        modalities: what each modality is, by its name; the written and spoken digits if left out.
        class_names: one name per class, in the order of the labels 0, 1, …

    Raises:
        UserError: no modality, a name that is reserved, fewer than two classes, or repeated names.
    """

    modalities: Mapping[str, ModalitySpec] = field(default_factory=_digits)
    class_names: tuple[str, ...] = DIGITS

    def __post_init__(self) -> None:
        if not self.modalities:
            raise UserError("'modalities' must hold at least one. Received: none")
        wrong = [name for name in self.modalities if not name.isidentifier() or name in RESERVED]
        if wrong:
            raise UserError(f"'modalities' must have names other than {', '.join(RESERVED)}. Received: {wrong}")
        if len(self.class_names) < 2 or len(set(self.class_names)) != len(self.class_names):
            raise UserError(f"'class_names' must be at least two different names. Received: {self.class_names}")
        reserved = sorted(set(self.class_names) & set(AVERAGES))
        if reserved:
            raise UserError(f"'class_names' must leave {', '.join(AVERAGES)} to the report. Received: {reserved}")

    def __getitem__(self, name: str) -> ModalitySpec:
        return self.modalities[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in their order."""
        return tuple(self.modalities)

    @property
    def views(self) -> dict[str, tuple[bool, ...]]:
        """The ways to ask one model, and which modalities each may see: all of them, or each alone."""
        return views_of(self.names)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @classmethod
    def pair(
        cls,
        image_shape: tuple[int, ...] = (28, 28, 1),
        audio_grid: tuple[int, ...] = (39, 13),
        class_names: tuple[str, ...] = DIGITS,
        pixel_max: int = 255,
    ) -> "Spec":
        """The spec of a picture and a sound.

        Args:
            image_shape: see `image_spec`.
            audio_grid: see `audio_spec`.
            class_names: one name per class.
            pixel_max: see `image_spec`.

        Example:
            >>> Spec.pair(image_shape=(32, 32, 3), class_names=("cat", "dog")).names
            ('image', 'audio')
        """
        return cls({"image": image_spec(image_shape, pixel_max), "audio": audio_spec(audio_grid)}, class_names)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; a picture and a sound as format 1 of a run folder has always had them."""
        names = {"class_names": self.class_names}
        if [(name, each.kind) for name, each in self.modalities.items()] == [("image", "image"), ("audio", "audio")]:
            image, audio = self.modalities.values()
            if not image.front_end + audio.front_end:
                return {"image_shape": image.shape, "audio_grid": audio.grid, **names, "pixel_max": image.scale}
        return {"modalities": self.modalities_json(), **names}

    def modalities_json(self) -> dict[str, dict[str, Any]]:
        """Kind, shape, grid and scale of each modality, and a front end that is not the usual one, ready for JSON."""
        listed = {name: asdict(each) for name, each in self.modalities.items()}
        return {
            name: {key: value for key, value in each.items() if value or key != "front_end"}
            for name, each in listed.items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Spec":
        """Reads what `to_json` gave."""
        names = tuple(values["class_names"])
        if "modalities" in values:
            return cls({name: ModalitySpec(**each) for name, each in values["modalities"].items()}, names)
        return cls.pair(tuple(values["image_shape"]), tuple(values["audio_grid"]), names, values["pixel_max"])


def views_of(names: tuple[str, ...]) -> dict[str, tuple[bool, ...]]:
    """The views of some modalities: `FUSED`, then each alone; which of them each view may see, in their order."""
    alone = {name: tuple(other == name for other in names) for name in names}
    return {FUSED: (True,) * len(names), **alone}


def together(names: Iterable[str], last: str = "and") -> str:
    """Names in a sentence: "image, sound and vector".

    Args:
        names: one or more.
        last: the word before the last one.
    """
    *first, end = names
    return f"{', '.join(first)} {last} {end}" if first else end
