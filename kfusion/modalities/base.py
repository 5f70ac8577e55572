"""What a kind of input must offer, so that everything else goes by its name: the base class of all modalities.

A new kind is a folder beside this file with one subclass of `Modality`, and one `register` call in
`kfusion.modalities`. What the base class does suits rows of numbers: a subclass overrides what it does otherwise.

A kind knows five things: the arrays and files that it comes in, how the network encodes it, how training changes it,
how an evaluation spoils it, and how a person is shown it. Nothing at the top of this module needs TensorFlow: whoever
only asks for a file's ending does not wait for it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kfusion.spec import ModalitySpec
from kfusion.validation import broken

if TYPE_CHECKING:
    import keras

    from kfusion.config import AugmentConfig, DataConfig, ModelConfig

MAX_MAGNITUDE = 1e18
"""Of any value: a network computes with squares, which must be within float32."""
SEVERITIES = (1, 2, 3, 4, 5)
UNKNOWN = "another beginning"
"""Of a file of a format that nobody knows, and no text."""
Shape = tuple[int, ...]
BadValues = tuple[str, Any, str]
"""What is wrong, the wrong values, and words that the refusal must hold."""
FileReader = Callable[[Any, ModalitySpec], tuple[Any, Any]]
Variants = Callable[[bytes, int, int], list[bytes]]


@dataclass(frozen=True)
class Corruption:
    """One way to corrupt a sample.

    Args:
        title: what it is called in tables and figures.
        unit: what the amounts are measured in.
        amounts: one per severity, from the mildest on.
        num_draws: the shape of a sample -> how many random numbers in [0, 1) it takes.
        apply: (samples, amount, draws (n, num_draws)[, what else it needs]) -> corrupted samples of the same shape.
    """

    title: str
    unit: str
    amounts: tuple[float, ...]
    num_draws: Callable[[Shape], int]
    apply: Callable[..., NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Samples as pictures that `matplotlib.axes.Axes.imshow` shows.

    Args:
        pixels: (n, height, width) or (n, height, width, 3).
        show: arguments for `imshow`.
        cell_in: width and height of one picture in a grid, in inches.
        caption: what the axes are, in words; "" where that needs no words.
    """

    pixels: NDArray[Any]
    show: dict[str, Any] = field(default_factory=dict)
    cell_in: tuple[float, float] = (1.0, 1.0)
    caption: str = ""


class Modality:
    """A kind of input. Attributes are words and file names; methods get the shapes as a `ModalitySpec`.

    Attributes:
        kind: its name in the registry, and the usual name of a modality of this kind.
        noun: one sample, in sentences.
        file_noun: one file of it.
        item_noun: one sample in the audit of a split; two rows may hold the same one.
        value_noun: its numbers, in the plural.
        array_file: the .npy file of kfusion's own layout.
        suffixes: endings of files that are read, in lower case.
        unread_suffixes: endings of files that are of this kind and not read: who has such files should hear of it.
        formats: what `suffixes` stand for, in words.
        column_words: other words for a file of this kind in the headers of tables, beside `kind` and the nouns.
        file_limits: what its files can be, in words, where that is less than any shape.
        standardised: the network standardises each value by the training part's mean and variance.
        allows_missing: its numbers may be missing, as NaN; a row without any number is an absent modality.
        teacher_temperature: what tempers this kind's answer as a teacher of the fused one, since it answers for rows
            that it was trained on.
        ops: TensorFlow's operations that an exported graph needs for this kind alone.
    """

    kind = ""
    noun = "row"
    file_noun = "file"
    item_noun = "row"
    value_noun = "values"
    array_file = ""
    suffixes: tuple[str, ...] = ()
    unread_suffixes: tuple[str, ...] = ()
    formats = ""
    column_words: tuple[str, ...] = ()
    file_limits = ""
    standardised = True
    allows_missing = False
    teacher_temperature = 1.5
    ops: frozenset[str] = frozenset()

    def called(self, name: str) -> str:
        """One sample in sentences: the noun, or the modality's own name where that is not the kind's."""
        return self.noun if name == self.kind else name

    # Arrays

    def spec_of(self, shape: Shape, path: Path, scale: int, known: Shape = ()) -> tuple[ModalitySpec, str]:
        """What the rows of an array are.

        Args:
            shape: of the whole array, (N, ...).
            path: of the file, for messages.
            scale: from `scale_of`.
            known: the grid that rows of this layout must have; empty: any.

        Returns:
            The spec, and a sentence on what was taken for the rows where the array leaves that open; else "".

        Raises:
            UserError: rows of this shape cannot be of this kind.
        """
        if len(shape) != 2:
            raise broken(path, "must have the shape (N, D)", f"shape {shape}")
        return ModalitySpec(self.kind, shape[1:]), ""

    def scale_of(self, low: float, high: float, path: Path) -> int:
        """What 1.0 in a request is in the unit of an array with values from `low` to `high`.

        Raises:
            UserError: values of this kind cannot be so.
        """
        if max(-low, high) > MAX_MAGNITUDE:
            rule = f"{self.kind} features must be within {-MAX_MAGNITUDE:g} and {MAX_MAGNITUDE:g}"
            raise broken(path, rule, f"{low:g} to {high:g}")
        return 1

    def in_order(self, array: np.ndarray, spec: ModalitySpec) -> np.ndarray:
        """The array with its axes as the spec has them; no value of it is copied."""
        return array

    def note_on(self, shape: Shape, path: Path, spec: ModalitySpec) -> str:
        """What is taken for rows that a model of this spec is to answer, where their shape leaves that open; else "".

        Args:
            shape: of the whole array, (N, ...).
            path: of the file, for messages.
            spec: the model's.

        Raises:
            UserError: they cannot be the model's.
        """
        if shape[1:] not in (spec.shape, spec.grid):
            raise broken(path, f"rows must have the model's {spec.num_values:,} values", f"shape {shape}")
        return ""

    def row_shapes(self, spec: ModalitySpec) -> set[Shape]:
        """Shapes of one row that stands alone, without an axis for the batch."""
        return {spec.shape, (spec.num_values,)}

    def is_bounded(self) -> bool:
        """Whether requests must be in [0, 1]; else any value about as large as the training data's will do."""
        return False

    def shape_in_words(self, spec: ModalitySpec) -> str:
        """What one sample is made of, for a report."""
        return f"{spec.num_values} values"

    def request(self, name: str, values: Any) -> NDArray[np.float32]:
        """A batch as a request carries it, from one sample or many; nothing is known of the model.

        Args:
            name: of the modality, for messages.
            values: array-like.

        Returns:
            float32 (batch, ...).

        Raises:
            UserError: the values have too few or too many axes.
        """
        return np.atleast_2d(np.asarray(values, np.float32))

    # Files

    def unreadable(self, front_end: str | None, spec: ModalitySpec) -> str:
        """Why files cannot become what a network was trained on; "" where they can.

        Args:
            front_end: what made the training features, as a run notes it; None where nobody knows.
            spec: their shape.
        """
        return f"rows of numbers ({self.kind}) are not read from files"

    def spec_of_files(self, config: "DataConfig", paths: Sequence[Path]) -> tuple[ModalitySpec, str]:
        """What files are brought to for training, as the settings of the data say or leave to the files.

        Args:
            config: the settings.
            paths: of all files.

        Returns:
            The spec, and a sentence on what the files decided; else "".
        """
        raise NotImplementedError

    def file_settings(self, spec: ModalitySpec) -> dict[str, Any]:
        """The settings of `DataConfig` with which files become rows of this shape."""
        return {}

    def front_end(self, spec: ModalitySpec) -> str:
        """The name of what reads files into this spec, as a run notes it."""
        raise NotImplementedError

    def standard_file(self, content: bytes) -> bytes:
        """A file that `reader` reads: the file itself, or what is in it, written in a format that `reader` reads.

        Whoever reads files calls it before `reader`; nothing in it needs TensorFlow.

        Args:
            content: a whole file of any format, not empty.

        Raises:
            UserError: the rule that the file breaks, and what was found; without the file's name.
        """
        return content

    def file_fault(self, head: bytes, tail: bytes, size: int) -> str:
        """Why a file cannot be read, as far as its first and last bytes tell; "" where nothing speaks against it.

        Args:
            head: the file's first bytes; all of them, where it is short.
            tail: its last bytes.
            size: of the whole file, in bytes.
        """
        return ""

    def raw_reader(self) -> FileReader:
        """What an exported graph reads files by that nobody made standard; else as `reader`."""
        return self.reader()

    def reader(self) -> FileReader:
        """What turns whole files into what a network takes, in TensorFlow's graph.

        Returns:
            A function (contents, spec) -> (values, reasons): contents string (batch,), where an empty string is a
            sample that is absent; values float32 (batch, *spec.shape), zeros where there is nothing or a reason; and
            reasons string (batch,): the rule that a file breaks and what was found, or "".
        """
        raise NotImplementedError

    def variants(self, spec: ModalitySpec, paths: Sequence[Path] = ()) -> Variants | None:
        """What makes files for training of those at `paths`: (file, how many, seed) -> files; "" for itself."""
        return None

    def windows(self, spec: ModalitySpec, in_graph: bool = False) -> Callable[[Any], Any] | None:
        """What cuts a file that has more in it than a row of this spec holds into `Window`s; None: nothing does.

        In TensorFlow's graph raw files, string (batch,), are cut into string (windows,), of each int32 (batch,), ≥ 1.
        """
        return None

    def sample_file(self, values: np.ndarray, spec: ModalitySpec, seed: int = 0) -> bytes:
        """A file from which `reader` makes about these values.

        Args:
            values: (*shape), in the data's own unit.
            spec: their shape.
            seed: of what is random in it.
        """
        raise NotImplementedError

    def hears(self, spec: ModalitySpec) -> dict[str, Any]:
        """What a page must know of files beyond their shape to send them and to show what was read, ready for JSON."""
        return {}

    def example(self, values: np.ndarray, spec: ModalitySpec) -> Any:
        """A sample ready for JSON, as a page shows and sends it; None where it cannot be shown.

        Args:
            values: (*shape), in the data's own unit.
            spec: their shape.
        """
        return [round(value, 3) for value in np.nan_to_num(values).ravel().tolist()]

    def bad_files(self, good: bytes) -> list[BadValues]:
        """Files that must be refused, made from a good one."""
        return []

    def bad_values(self, name: str, good: np.ndarray) -> list[BadValues]:
        """Arrays that must be refused beyond wrong shapes and numbers that are not finite.

        Args:
            name: of the input, as messages have it.
            good: float32 (n, *shape), three rows or more.
        """
        return [
            ("an absurd number", with_wrong_value(good, 3e38), f"{name} must be within"),
            ("an absurd number below 0", with_wrong_value(good, -3e38), "Received: -3e+38, in row 2"),
        ]

    # Network

    def fitted(self, config: "ModelConfig", spec: ModalitySpec) -> tuple["ModelConfig", str]:
        """The settings of the network, fitted to a shape where nobody set them.

        Args:
            config: the network's settings.
            spec: of the modality.

        Returns:
            The settings; and a sentence on what was changed, "" where nothing was.
        """
        return config, ""

    def normalisation(self, config: "ModelConfig", name: str, spec: ModalitySpec) -> Callable[[Any], Any] | None:
        """The layer that normalises each sample by itself, before `encode`; None: there is none.

        Args:
            config: the network's settings.
            name: of the modality.
            spec: its shape.
        """
        return None

    def encode(
        self, values: Any, name: str, spec: ModalitySpec, config: "ModelConfig", mean: Any = None, variance: Any = None
    ) -> Any:
        """One modality in, one embedding out, in Keras' functional API.

        Args:
            values: float32 (batch, *shape), in the data's own unit, after `normalisation`.
            name: of the modality; every layer's name begins with it. The embedding's must be `{name}_embedding`, and
                the last layer's, a dropout, `{name}_embedding_dropout`: others find them by these names.
            spec: its shape.
            config: the network's settings.
            mean: of each value over the training part, after `normalisation`, where `standardised`; else None.
            variance: likewise.

        Returns:
            float32 (batch, embed_dim).
        """
        from kfusion.modalities.encoders import encode_dense

        return encode_dense(values, name, config, mean, variance)

    # Training and evaluation

    def augmentations(
        self, config: "AugmentConfig", name: str, spec: ModalitySpec, mean: Any, front_end: str | None
    ) -> list[Callable[..., Any]]:
        """Layers (values, keys, training=…) -> values that change training samples at random, in their order.

        Args:
            config: which changes, and how far.
            name: of the modality.
            spec: its shape.
            mean: of each value over the training part, (num_values,), where `standardised`; else None.
            front_end: what made the features; None where nobody knows.
        """
        return []

    def left_out(self, config: "AugmentConfig", front_end: str | None) -> str:
        """Which change that the config wants is not made of some data, and why; "" where there is none.

        Args:
            config: which changes, and how far.
            front_end: what made the features; None where nobody knows.
        """
        return ""

    def all_corruptions(self) -> dict[str, Corruption]:
        """Every corruption of this kind, in the order of their random streams."""
        return {"feature_noise": FEATURE_NOISE}

    def corruptions(self, spec: ModalitySpec, front_end: str | None) -> dict[str, Corruption]:
        """Those that make sense for some data; samples come as (n, *grid), in the unit of a request.

        Args:
            spec: their shape.
            front_end: what made the features; None where nobody knows.
        """
        return self.all_corruptions()

    def surroundings(self, std: NDArray | None, others: NDArray, spec: ModalitySpec) -> tuple[Any, ...]:
        """What `Corruption.apply` needs besides.

        Args:
            std: of each value over the training part, (num_values,), where `standardised`; else None.
            others: other samples, (m, *shape).
            spec: their shape.
        """
        return () if std is None else (std.reshape(spec.grid).astype(np.float32),)

    def unknowns(
        self, values: NDArray, label: NDArray, spec: ModalitySpec, rng: np.random.Generator, names: Sequence[str] = ()
    ) -> dict[str, NDArray]:
        """Samples of no class by how they were made, (n, *shape) each; see `kfusion.modalities.unknowns`.

        Args:
            values: samples of the classes, (n, *shape), in the data's own unit.
            label: their classes, int (n,).
            spec: their shape.
            rng: what is random.
            names: of all classes.
        """
        from kfusion.modalities.unknowns import of_numbers

        return of_numbers(values, rng)

    def summaries(self, name: str, spec: ModalitySpec) -> "list[keras.layers.Layer]":
        """Layers that bring samples to fewer numbers, for a linear model to decide by; cross-validation takes one.

        Args:
            name: of the modality, with which each layer's name begins.
            spec: its shape.

        Returns:
            One or more layers, float32 (batch, *shape) in the data's own unit -> (batch, k); the shortest rows first.
        """
        from keras import layers

        return [layers.Flatten(name=f"{name}_summary")]

    def pictures(self, values: NDArray, spec: ModalitySpec, reference: NDArray | None = None) -> Pictures:
        """Samples as pictures.

        Args:
            values: (n, *shape), in the data's own unit.
            spec: their shape.
            reference: the samples on whose scale they are shown, (m, *shape); themselves if left out.
        """
        original = np.ma.masked_invalid(values if reference is None else reference).astype(np.float64)
        mean, spread = original.mean(axis=0).filled(0), original.std(axis=0).filled(0)
        bars = ((values - mean) / np.where(spread > 0, spread, 1)).reshape(len(values), 1, -1)
        show = {"vmin": -3, "vmax": 3, "cmap": "viridis", "aspect": "auto"}
        return Pictures(bars, show, (1.5, 0.5), f"{spec.num_values} values, each standardised")


def text_or_unknown(content: bytes) -> str:
    """What a file of no known beginning is, in words, by its first bytes."""
    if not content:
        return "an empty file"
    try:
        text = content[:512].decode("utf-8")
    except UnicodeDecodeError as error:  # A letter of several bytes may be cut in two at the end.
        text = content[: error.start].decode("utf-8") if error.start > 500 else "\0"
    return UNKNOWN if "\0" in text or not text.strip() else "a text"


def with_wrong_value(values: np.ndarray, wrong: float) -> np.ndarray:
    """A copy with one wrong value, in row 2."""
    copy = values.copy()
    copy[2].flat[copy[2].size // 2] = wrong
    return copy


def normal(draws: NDArray) -> NDArray[np.float32]:
    """Normally distributed numbers from uniform ones in [0, 1)."""
    from scipy.special import ndtri

    # Away from 0, where it is infinite: the draws are multiples of 2^-24.
    return ndtri(np.asarray(draws, np.float64) + 2.0**-25).astype(np.float32)


def corrupt(
    corruption: Corruption, samples: NDArray, severity: int, draws: NDArray, more: Sequence[Any] = ()
) -> NDArray[np.float32]:
    """Samples as they are after a corruption.

    Args:
        corruption: from `Modality.corruptions`.
        samples: float32 (n, *grid), in the unit of a request.
        severity: 0 to 5; at 0 nothing is changed.
        draws: float (n, num_draws), in [0, 1).
        more: from `Modality.surroundings`.
    """
    if severity == 0:
        return np.asarray(samples, np.float32)
    return np.asarray(corruption.apply(samples, corruption.amounts[severity - 1], draws, *more), np.float32)


def _add_noise(samples: NDArray, amount: float, draws: NDArray, std: NDArray) -> NDArray:
    """Normally distributed noise, `amount` of each value's own standard deviation."""
    return samples + amount * std * normal(draws).reshape(samples.shape)


FEATURE_NOISE = Corruption("feature noise", "of the deviation", (0.25, 0.5, 1, 1.5, 2), math.prod, _add_noise)
