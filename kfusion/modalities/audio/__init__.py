"""Sounds: a grid of frames × coefficients, as features that the network takes flat."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kfusion.modalities.audio.recipe import (
    SPOKEN_DIGITS,
    SoundRecipe,
    chosen_recipe,
    has_windows,
    recipe_named,
    recipe_of,
    word_bands,
)
from kfusion.modalities.base import BadValues, Corruption, FileReader, Modality, Pictures, Shape, Variants
from kfusion.spec import ModalitySpec, audio_spec
from kfusion.validation import UserError, broken

if TYPE_CHECKING:
    import keras

    from kfusion.config import AugmentConfig, DataConfig, ModelConfig

GRAPH_OPS = """RFFT IRFFT Real Imag DecodePaddedRaw RaggedGather RaggedTensorToTensor SegmentMax SegmentMean
    TensorListConcatV2 TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem TensorListStack
    TensorScatterUpdate Unique StatelessCase"""
"""Of the reader of sounds."""


class Audio(Modality):
    """Sounds.

    Attributes:
        recipe: how recordings become features, where the spec does not name another recipe.
    """

    recipe: SoundRecipe = SPOKEN_DIGITS

    kind = "audio"
    noun = "sound"
    file_noun = "sound"
    item_noun = "clip"
    array_file = "audio.npy"
    suffixes = (
        *(".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".m4a", ".aac", ".webm"),
        *(".mp4", ".mov", ".mkv", ".mka", ".3gp", ".amr", ".wma", ".au", ".snd", ".caf", ".w64", ".rf64", ".bwf"),
        ".sph",
    )
    unread_suffixes = (".mid", ".midi", ".ra", ".dsf", ".ape", ".wv")
    formats = "WAV, FLAC, MP3, OGG, Opus, AIFF, M4A or WebM"
    column_words = ("wav", "recording")
    teacher_temperature = 1.6
    ops = frozenset(GRAPH_OPS.split())

    def spec_of(self, shape: Shape, path: Path, scale: int, known: Shape = ()) -> tuple[ModalitySpec, str]:
        """(N, D) or (N, frames, coefficients), with or without an axis of length 1 for channels; see `Modality`."""
        row = without_channel(shape[1:])
        grid = row if len(row) == 2 else audio_spec().grid if row == audio_spec().shape else (1, *row)
        if known and grid != known:
            flat, frames, coefficients = math.prod(known), *known
            raise broken(path, f"must have the shape (N, {flat}) or (N, {frames}, {coefficients})", f"shape {shape}")
        if len(grid) != 2:
            raise broken(path, "must have the shape (N, D) or (N, frames, coefficients)", f"shape {shape}")
        taken = f"{grid[0]} frames of {grid[1]} coefficients"
        if grid[0] == 1:
            taken = "one frame, which no change in time touches; (N, frames, coefficients) has several"
        note = f"{path.name}: rows of {' × '.join(map(str, row))} values are taken as {taken}"
        return self._spec(grid), "" if known else note

    def _spec(self, grid: Shape) -> ModalitySpec:
        """Sounds of this grid, of this kind."""
        return replace(audio_spec(grid), kind=self.kind)

    def note_on(self, shape: Shape, path: Path, spec: ModalitySpec) -> str:
        """Flat, or frames by coefficients, whose number an exported version does not tell."""
        row = without_channel(shape[1:])
        frames, coefficients = spec.grid
        if row in (spec.shape, spec.grid):
            return ""
        if frames == 1 and len(row) == 2 and math.prod(row) == spec.num_values:
            return f"{path.name}: rows of {row[0]} × {row[1]} values are taken as {row[0]} frames one after the other"
        rule = f"rows must have the model's {frames} × {coefficients} values, frame by frame"
        if row == (coefficients, frames):
            rule += "; np.swapaxes(audio, 1, 2) transposes them"
        raise broken(path, rule, f"shape {shape}")

    def row_shapes(self, spec: ModalitySpec) -> set[Shape]:
        """Flat only: two axes may as well be rows of features."""
        return {spec.shape}

    def shape_in_words(self, spec: ModalitySpec) -> str:
        """Frames and coefficients, or features where there is one frame."""
        frames, coefficients = spec.grid
        return f"{frames} frames × {coefficients} {self._unit(spec)}" if frames > 1 else f"{coefficients} features"

    def request(self, name: str, values: Any) -> NDArray[np.float32]:
        """Flat rows of features; frames of coefficients one after the other."""
        array = super().request(name, values)
        if array.ndim > 2 and len(without_channel(array.shape[1:])) != 2:
            raise UserError(f"'{name}' must have 1 to 3 axes. Received: shape {array.shape}")
        return array.reshape(len(array), -1)

    def unreadable(self, front_end: str | None, spec: ModalitySpec) -> str:
        """Only a known front end makes the features that a network was trained on."""
        from kfusion.modalities.audio.features import can_read_sounds

        recipe = recipe_named(spec.front_end) if spec.front_end else self.recipe
        if recipe and can_read_sounds(front_end, spec, recipe):
            return ""
        known = "is not known" if front_end is None else f"({front_end}) is none that reads files"
        return f"the front end of its training sounds {known}"

    def spec_of_files(self, config: "DataConfig", paths: Sequence[Path]) -> tuple[ModalitySpec, str]:
        """The grid of the recipe that the settings name, or that fits the recordings' lengths."""
        from kfusion.modalities.audio.files import lengths

        known = config.sound == "word" or (config.sound_seconds and config.sound_rate_hz)
        measured = [] if known else lengths(paths)
        recipe, note = chosen_recipe(
            config.sound, config.sound_seconds, config.sound_rate_hz, measured, config.sound_frames
        )
        if recipe is None and config.word_features == "log-mel":
            recipe = word_bands(config.sound_frames)
        if recipe is None:
            return self._spec(self.recipe.grid), note
        return replace(self._spec(recipe.grid), front_end=recipe.front_end), note

    def file_settings(self, spec: ModalitySpec) -> dict[str, Any]:
        """The recipe's name and numbers."""
        recipe = recipe_of(spec, self.recipe)
        if recipe == self.recipe:
            return {"sound": "word", "word_features": "mfcc"}
        if recipe.is_of_words:
            return {"sound": "word", "word_features": "log-mel", "sound_frames": recipe.num_frames}
        numbers = {"sound_seconds": recipe.seconds, "sound_rate_hz": recipe.sample_rate_hz}
        return {"sound": "sound", **numbers, "sound_frames": recipe.num_frames}

    def front_end(self, spec: ModalitySpec) -> str:
        """The recipe's name."""
        return recipe_of(spec, self.recipe).front_end

    def standard_file(self, content: bytes) -> bytes:
        """WAV as it is, others as WAV; see `files.standard_sound`."""
        from kfusion.modalities.audio.files import standard_sound

        return standard_sound(content)

    def file_fault(self, head: bytes, tail: bytes, size: int) -> str:
        """The chunks of a WAV, and whether it is a sound; see `files.fault`."""
        from kfusion.modalities.audio.files import fault

        return fault(head, size)

    def reader(self) -> FileReader:
        """WAV files; see `features.read_sounds`."""
        from kfusion.modalities.audio.features import read_sounds

        return partial(read_sounds, recipe=self.recipe)

    def variants(self, spec: ModalitySpec, paths: Sequence[Path] = ()) -> Variants | None:
        """Words as others might have said them elsewhere, see `augmentation.vary`; windows of longer recordings."""
        from kfusion.modalities.audio.files import is_longer, window_files

        recipe = recipe_of(spec, self.recipe)
        if recipe.is_of_words:
            from kfusion.modalities.audio.augmentation import varied_files

            return varied_files
        longer = has_windows(recipe) and any(is_longer(path, recipe) for path in paths)
        return partial(window_files, recipe=recipe) if longer else None

    def windows(self, spec: ModalitySpec, in_graph: bool = False) -> Callable[[Any], Any] | None:
        """Stretches of a recording as long as those of training, where no word is sought; see `files.windows`."""
        recipe = recipe_of(spec, self.recipe)
        if not has_windows(recipe):
            return None
        if in_graph:
            from kfusion.modalities.audio.decoding import cut

            return partial(cut, recipe=recipe)
        from kfusion.modalities.audio.files import windows

        return partial(windows, recipe=recipe)

    def sample_file(self, values: np.ndarray, spec: ModalitySpec, seed: int = 0) -> bytes:
        """A WAV file of noise that has these features."""
        from kfusion.modalities.audio.files import sound_file

        return sound_file(values, spec, seed, recipe_of(spec, self.recipe))

    def hears(self, spec: ModalitySpec) -> dict[str, Any]:
        """The grid, what its numbers are, and the rate and the length at which recordings are taken."""
        recipe = recipe_of(spec, self.recipe)
        seconds = recipe.seconds if spec.front_end else 1.0
        return {"grid": spec.grid, "unit": recipe.spoken, "rate_hz": recipe.sample_rate_hz, "seconds": seconds}

    def bad_files(self, good: bytes) -> list[BadValues]:
        """Sounds that must be refused."""
        from kfusion.modalities.audio.files import wav_file

        rate = self.recipe.sample_rate_hz
        return [
            ("a text as a sound", b"This is a text file.\n" * 20, ""),
            ("a WAV with a wrong header", b"RIFX" + good[4:], ""),
            ("a WAV cut off", good[:100], ""),
            ("a WAV of an unknown coding", good[:20] + b"\x11" + good[21:], ""),
            ("a WAV of no samples", wav_file(b""), ""),
            ("a silent WAV", wav_file(bytes(2 * rate)), "must hold a sound"),
            ("ten minutes of silence", wav_file(b"\x80" * 600 * rate, 1), ""),
        ]

    def normalisation(self, config: "ModelConfig", name: str, spec: ModalitySpec) -> Callable[[Any], Any] | None:
        """Cuts silence off and subtracts the mean spectrum of words, where the config asks for it."""
        if config.utterance_trim < 0 or self._are_bands(spec):
            return None
        from kfusion.modalities.audio.encoder import UtteranceNorm

        own = "" if name == self.kind else f"{name}_"
        return UtteranceNorm(spec.grid, config.utterance_trim, config.utterance_jitter, name=f"{own}utterance_norm")

    def encode(
        self, values: Any, name: str, spec: ModalitySpec, config: "ModelConfig", mean: Any = None, variance: Any = None
    ) -> Any:
        """Dense layers or convolutions, as the config or the features say; one frame has no time to convolve over."""
        dense = config.audio_encoder == "dense" or (config.audio_encoder == "auto" and not self._are_bands(spec))
        if dense or spec.grid[0] == 1:
            return super().encode(values, name, spec, config, mean, variance)
        from kfusion.modalities.audio.encoder import encode_grid

        if recipe_of(spec, self.recipe).is_of_words:  # A word is the same through any microphone.
            config = replace(config, audio_centre=True)
        return encode_grid(values, name, spec, config, mean, variance)

    def augmentations(
        self, config: "AugmentConfig", name: str, spec: ModalitySpec, mean: Any, front_end: str | None
    ) -> list[Callable[..., Any]]:
        """Changes of frequency, level and time, background, other sounds, and masks, as one layer."""
        from kfusion.modalities.audio.augmentation import layers_of

        # Only a front end that is known is known to give decibels.
        unit = "unknown" if front_end is None else self._unit(spec)
        return layers_of(config, spec.grid, mean, unit, "" if name == self.kind else f"{name}_")

    def left_out(self, config: "AugmentConfig", front_end: str | None) -> str:
        """Background noise and changes of frequency, of features that are not known to be decibels."""
        changes = {"background noise": config.background, "change of frequency": config.frequency_warp}
        wanted = " and ".join(name for name, amount in changes.items() if amount)
        if not wanted or front_end is not None:
            return ""
        are = "are" if all(changes.values()) else "is"
        return f"{wanted} {are} left out: these audio features are not known to be decibels"

    def all_corruptions(self) -> dict[str, Corruption]:
        """White noise, babble, feature noise, time shift, clipped start, dropped frames."""
        from kfusion.modalities.audio.corruption import AUDIO_CORRUPTIONS

        return AUDIO_CORRUPTIONS

    def corruptions(self, spec: ModalitySpec, front_end: str | None) -> dict[str, Corruption]:
        """Those for a grid of one frame or several, of features that are known to be decibels or not."""
        from kfusion.modalities.audio.corruption import fitting

        return fitting((spec.grid[0], spec.grid[1]), front_end is not None, self._are_bands(spec))

    def surroundings(self, std: NDArray | None, others: NDArray, spec: ModalitySpec) -> tuple[Any, ...]:
        """The features' deviations, and other voices to mix in."""
        from kfusion.modalities.audio.corruption import Surroundings

        deviation = np.ones(spec.grid) if std is None else std.reshape(spec.grid)
        return (
            Surroundings(deviation.astype(np.float32), others.reshape(-1, *spec.grid), recipe_of(spec, self.recipe)),
        )

    def _are_bands(self, spec: ModalitySpec) -> bool:
        """Whether the features are decibels of mel bands themselves, not cepstra of a word."""
        return bool(spec.front_end) and recipe_of(spec, self.recipe).values == "log-mel"

    def _unit(self, spec: ModalitySpec) -> Literal["bands", "coefficients"]:
        return "bands" if self._are_bands(spec) else "coefficients"

    def unknowns(
        self, values: NDArray, label: NDArray, spec: ModalitySpec, rng: np.random.Generator, names: Sequence[str] = ()
    ) -> dict[str, NDArray]:
        """Backwards, spliced, cut up, of two sounds, too fast or slow; any course of the coefficients, and hum."""
        from kfusion.modalities.audio.unknowns import of_sounds

        made = of_sounds(values.reshape(-1, *spec.grid), label, rng)
        return {name: each.reshape(values.shape) for name, each in made.items()}

    def summaries(self, name: str, spec: ModalitySpec) -> "list[keras.layers.Layer]":
        """Of each coefficient what it is over the sound, for sounds that last; and besides when, for words."""
        from kfusion.modalities.audio.encoder import LEAST_FRAMES, SoundSummary

        if spec.grid[0] < LEAST_FRAMES:
            return super().summaries(name, spec)
        return [SoundSummary(spec.grid, course, name=f"{name}_summary") for course in (False, True)]

    def pictures(self, values: NDArray, spec: ModalitySpec, reference: NDArray | None = None) -> Pictures:
        """Time to the right, coefficients upwards, each on the scale of the reference: the first are far larger."""
        grids = np.asarray(values, np.float64).reshape(-1, *spec.grid)
        original = grids if reference is None else np.asarray(reference, np.float64).reshape(-1, *spec.grid)
        spread = original.std(axis=(0, 1))
        grids = (grids - original.mean(axis=(0, 1))) / np.where(spread > 0, spread, 1)
        frames, coefficients = spec.grid
        unit = self._unit(spec)
        caption = f"{frames} frames to the right, {coefficients} {unit} upwards, each standardised"
        show = {"vmin": -3, "vmax": 3, "cmap": "viridis", "aspect": "auto"}
        return Pictures(np.swapaxes(grids, -1, -2)[..., ::-1, :], show, (1.5, 0.8), caption)


def without_channel(shape: Shape) -> Shape:
    """The shape of one sound without the axis of length 1 that networks for pictures want at its end or beginning."""
    if len(shape) == 3 and 1 in (shape[0], shape[-1]):
        return shape[:2] if shape[-1] == 1 else shape[1:]
    return shape
