"""Every setting of a training run, with its default and its range; and the fusion heads.

`Config` is what `python -m kfusion.train --help` lists, what `config.json` in a run folder holds, and what
`--config FILE` reads back. Each setting is one field: its default, its range in `__post_init__`, and its docstring,
which is the help text.

`HEADS` is the table of fusion heads, which `--fusion`, the search space, reports and the network read.

Named settings of a whole training are in `kfusion.recipes`.
"""

import math
import pkgutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from kfusion.validation import UserError, check_fields, require


@dataclass(frozen=True)
class Head:
    """A fusion head: what makes one decision of the modalities' embeddings.

    Args:
        title: its name in headings.
        description: what it is, in one line, for help texts and reports.
        function: what builds it, or where that is defined, as "module:function", since settings are read without
            Keras; `kfusion.model.fusion` holds the contract.
    """

    title: str
    description: str
    function: str | Callable[..., Any]

    def __call__(self, steps: Any, present: Any, config: "ModelConfig", spec: Any) -> Any:
        """Builds the head in Keras' functional API.

        Args:
            steps: embeddings, float32 (batch, modalities, embed_dim).
            present: bool (batch, modalities).
            config: the network's settings.
            spec: the modalities and the classes.

        Returns:
            Probabilities, float32 (batch, num_classes).
        """
        build = pkgutil.resolve_name(self.function) if isinstance(self.function, str) else self.function
        return build(steps, present, config, spec)


HEADS: dict[str, Head] = {
    "lstm": Head("LSTM", "LSTM over the embeddings, the paper's", "kfusion.model.fusion:fuse_lstm"),
    "attention": Head("Attention", "transformer encoder with a class token", "kfusion.model.fusion:fuse_attention"),
    "late": Head("Late", "sum of log posteriors", "kfusion.model.fusion:fuse_late"),
}
"""Every fusion head by its name, as in `--fusion`. A new one is one function and one entry here."""


def described_heads() -> str:
    """The help text of `--fusion`."""
    return "; ".join(f"{name}: {head.description}" for name, head in HEADS.items()) + "."


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs come from and how they are divided."""

    data: str | tuple[str, ...] = "builtin"
    """'builtin'; a folder of .npy files; or a folder (or .csv …) of picture and sound files; or several of these."""
    split: Literal["clip", "random", "speaker"] = "clip"
    """clip: no image or clip on two sides; random: the paper's, which leaks; speaker: people held out."""
    val_share: float = 0.1
    """Share of the rows for validation."""
    test_share: float = 0.1
    """Share of the rows for the test; 0 rows are taken where the data brings its own labelled test files."""
    test_speakers: tuple[str, ...] = ()
    """split=speaker: the people of the test part; empty: the last in the table."""
    val_speakers: tuple[str, ...] = ()
    """split=speaker: the people of the validation part; empty: the one before the first test person."""
    test_labels: str = ""
    """A CSV with the labels of the competition's test files, which then are the test part."""
    columns: tuple[str, ...] = ()
    """A table: its columns, such as image=photo vector=age,weight,glucose_* audio=MFCC_1..MFCC_104 label=risk."""
    image_preprocessing: Literal["auto", "digit", "photo"] = "auto"
    """Picture files: digit: signs, in MNIST's convention; photo: fitted into 'image_shape'; auto: as they look."""
    image_shape: tuple[int, ...] = ()
    """Picture files: height, width, channels (1 or 3); empty: 28 28 1 for digits, up to 64 64 3 for photos."""
    folds: int = 0
    """Divide the data into this many folds, each the test part of a run of its own; 0: divide them once."""
    fold: int = 0
    """With 'folds': the fold that is the test part, from 1; 0: all of them, one run after the other."""
    sound: Literal["auto", "word", "sound"] = "auto"
    """Sound files: word: cut, see 'word_features'; sound: log-mel bands as recorded; auto: word for up to 2 seconds."""
    word_features: Literal["mfcc", "log-mel"] = "mfcc"
    """Features of 'word': mfcc: the paper's, stretched to 39 frames; log-mel: bands over a second around the word."""
    word_copies: int = 0
    """Of each sound, of which an epoch draws one: words (log-mel) at other speeds, in noise; windows of long sounds."""
    sound_seconds: float = 0.0
    """Features of 'sound': the middle so many seconds of each file (0.5 to 60); 0: the files' median, up to 60."""
    sound_frames: int = 0
    """Features of 'sound': frames of each file, up to 1200; 0: 50, and as many for each further 10 seconds. Of log-mel
    'word': frames of a second; 0: 100."""
    sound_rate_hz: int = 0
    """Features of 'sound': the rate to which files are brought, 8000 to 48000; 0: that of most files."""
    split_seed: int = -1
    """Decides the split alone, whatever 'seed' is; -1: 'seed' decides the split too."""
    limit: int = 0
    """Use at most this many images and clips, evenly over the classes; 0: all."""
    skip_bad: bool = False
    """Leave out files that cannot be read, and say how many of which class; else nothing is trained."""

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.data, tuple):
            require(0 < len(set(self.data)) == len(self.data), "data", "one or more different sources", self.data)
            first, *others = self.data
            object.__setattr__(self, "data", self.data if others else first)
        require(0 < self.val_share < 1, "val_share", "in (0, 1)", self.val_share)
        require(0 < self.test_share < 1, "test_share", "in (0, 1)", self.test_share)
        total = self.val_share + self.test_share
        require(total < 1, "val_share + test_share", "below 1", total)
        require(self.folds == 0 or self.folds >= 2, "folds", "0 or ≥ 2", self.folds)
        require(0 <= self.fold <= self.folds, "fold", f"in [0, {self.folds}], the number of 'folds'", self.fold)
        share = self.val_share + 1 / self.folds if self.folds else 0.0
        require(share < 1, "val_share + 1 / folds", "below 1", share)
        require(not self.folds or self.split != "speaker", "folds", "0 where 'split' is 'speaker'", self.folds)
        require(-1 <= self.split_seed < 2**31, "split_seed", "in [-1, 2^31)", self.split_seed)
        require(self.limit >= 0, "limit", "≥ 0", self.limit)
        shape = self.image_shape
        right = not shape or (len(shape) == 3 and min(shape) >= 1 and max(shape) <= 1024 and shape[2] in (1, 3))
        require(right, "image_shape", "height, width (1 to 1024) and channels (1 or 3)", shape)
        other = self.image_preprocessing == "digit" and shape not in ((), (28, 28, 1))
        require(not other, "image_shape", "28 28 1 where 'image_preprocessing' is 'digit'", shape)
        seconds, rate = self.sound_seconds, self.sound_rate_hz
        require(seconds == 0 or 0.5 <= seconds <= 60, "sound_seconds", "0 or in [0.5, 60]", seconds)
        require(rate == 0 or 8000 <= rate <= 48_000, "sound_rate_hz", "0 or in [8000, 48000]", rate)
        require(0 <= self.sound_frames <= 1200, "sound_frames", "in [0, 1200]", self.sound_frames)
        require(0 <= self.word_copies <= 100, "word_copies", "in [0, 100]", self.word_copies)
        for name in ("sound_seconds", "sound_rate_hz", "sound_frames"):
            bands = name == "sound_frames" and self.word_features == "log-mel"
            word = self.sound == "word" and not bands and getattr(self, name) > 0
            require(not word, name, "0 with features for words, sound=word", getattr(self, name))
        both = sorted(set(self.test_speakers) & set(self.val_speakers))
        require(not both, "val_speakers", "other people than 'test_speakers'", both)

    @property
    def sources(self) -> tuple[str, ...]:
        """`data`, one or several."""
        return self.data if isinstance(self.data, tuple) else (self.data,)


@dataclass(frozen=True)
class ModelConfig:
    """The network: an encoder for each modality, a fusion head, a softmax."""

    # Evaluated whenever it is read, so that it lists the heads that are in the table then.
    fusion: "Annotated[Literal[tuple(HEADS)], Doc(described_heads())]" = "lstm"  # pyright: ignore
    embed_dim: int = 128
    """Features of each modality's embedding."""
    hidden_dim: int = 256
    """Units of the LSTM, or of the transformer's feed-forward layer."""
    filters: tuple[int, ...] = (32, 64)
    """Filters of the convolution blocks, two convolutions and a max-pooling each; 32 64: those that fit the images."""
    image_encoder: str = "auto"
    """conv: those blocks; pooled: averaged over the photo; auto; or a trained FILE.keras; or of keras.applications."""
    image_weights: str = ""
    """The weights (.weights.h5) of the network of keras.applications; empty: it is trained from the start."""
    freeze_share: float = 0.3
    """A trained image encoder: the share of all steps in which it stays as it is."""
    audio_units: tuple[int, ...] = (512, 256)
    """Units of the dense layers before the audio embedding."""
    audio_encoder: Literal["auto", "dense", "conv"] = "auto"
    """dense: the paper's, on all values at once; conv: convolutions over time and frequency; auto: conv for 'sound'."""
    audio_filters: tuple[int, ...] = (24, 48, 96)
    """audio_encoder=conv: filters of its blocks; all but the last end in a max-pooling."""
    audio_centre: bool = False
    """audio_encoder=conv: subtract each band's mean over the sound, which takes the microphone's colour away; of words
    it is always subtracted."""
    dropout: float = 0.3
    """Share of the audio encoder's units dropped in training."""
    image_dropout: float = 0.0
    """Share of the flattened image features dropped in training."""
    embed_dropout: float = 0.0
    """Share of the embeddings' features dropped in training."""
    utterance_trim: float = -1.0
    """Normalise each word by itself, cut where its energy stays below this share of its range; negative: do not."""
    utterance_jitter: float = 0.0
    """Standard deviation by which these cuts move in training, in frames."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.embed_dim >= 1, "embed_dim", "≥ 1", self.embed_dim)
        require(self.hidden_dim >= 1, "hidden_dim", "≥ 1", self.hidden_dim)
        require(bool(self.filters) and min(self.filters) >= 1, "filters", "one or more sizes ≥ 1", self.filters)
        require(all(units >= 1 for units in self.audio_units), "audio_units", "sizes ≥ 1", self.audio_units)
        own = self.image_encoder in ("auto", "conv", "pooled")
        named = not own and not self.image_encoder.endswith(".keras")
        rule = "auto, conv, pooled, a .keras file or a name"
        require(bool(self.image_encoder), "image_encoder", rule, self.image_encoder)
        rule = "empty unless 'image_encoder' is a name of keras.applications"
        require(named or not self.image_weights, "image_weights", rule, self.image_weights)
        require(0 <= self.freeze_share <= 1, "freeze_share", "in [0, 1]", self.freeze_share)
        blocks = self.audio_filters
        require(bool(blocks) and min(blocks) >= 1, "audio_filters", "one or more sizes ≥ 1", blocks)
        for name in ("dropout", "image_dropout", "embed_dropout"):
            require(0 <= getattr(self, name) < 1, name, "in [0, 1)", getattr(self, name))
        require(self.utterance_trim < 1, "utterance_trim", "below 1", self.utterance_trim)
        require(self.utterance_jitter >= 0, "utterance_jitter", "≥ 0", self.utterance_jitter)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training samples; each a pure function of (seed, epoch, sample), but for 'mix'."""

    flip: Literal["none", "horizontal", "vertical", "horizontal_and_vertical"] = "horizontal"
    """Mirror images at random, as Keras' RandomFlip."""
    rotation: float = 0.05
    """Turn by up to this share of a full turn either way, as Keras' RandomRotation."""
    crop: int = 2
    """Pad by this many pixels, then cut the old size out at a random place, as Keras' RandomCrop."""
    zoom: float = 0.0
    """Enlarge or shrink images by up to this share."""
    shear: float = 0.0
    """Slant images by up to this many pixels per pixel of height, either way."""
    image_damage: float = 0.0
    """Share of the images turned far, half covered or inverted; the fusion learns when not to trust an image."""
    image_jitter: float = 0.0
    """Change brightness, contrast and saturation by up to this share; of pictures in colour alone."""
    background: float = 0.0
    """Probability that a sound gets steady background noise; needs features in decibels."""
    gain: float = 0.0
    """Make a sound louder or fainter by up to so many decibels; of log-mel bands alone."""
    mix: float = 0.0
    """Probability that another sound is heard faintly beneath a sound; of log-mel bands alone."""
    time_shift: float = 0.0
    """Shift the sound by up to this many frames either way."""
    time_stretch: float = 0.0
    """Make the sound faster or slower by up to this share."""
    time_warp: float = 0.0
    """Random non-uniform time warping: maximum local change of speed, in [0, 1]."""
    frequency_warp: float = 0.0
    """Move a sound's frequencies by a factor of up to exp(±this), as other throats do; needs features in decibels."""
    time_mask: int = 0
    """Hide up to this many neighbouring frames."""
    frequency_mask: int = 0
    """Hide up to this many neighbouring coefficients."""
    modality_dropout: float = 0.0
    """Probability that a sample loses one modality (never all)."""
    repair: bool = False
    """Pair images and sounds of a class anew each epoch."""
    wrong_sound: float = 0.0
    """Share of the pairs with a sound of another class, where the image's is to be answered. Needs 'repair'."""
    wrong_image: float = 0.0
    """Share of the pairs with an image of another class, where the sound's is to be answered. Needs 'repair'."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(0 <= self.rotation <= 0.5, "rotation", "in [0, 0.5] turns", self.rotation)
        require(0 <= self.zoom < 1, "zoom", "in [0, 1)", self.zoom)
        require(0 <= self.image_jitter < 1, "image_jitter", "in [0, 1)", self.image_jitter)
        for name in ("image_damage", "background", "mix", "time_stretch", "time_warp", "wrong_sound", "wrong_image"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        wrong = self.wrong_sound + self.wrong_image
        require(wrong < 1, "wrong_sound + wrong_image", "below 1", wrong)
        require(self.repair or not wrong, "wrong_sound + wrong_image", "0 unless 'repair' is on", wrong)
        for name in ("crop", "shear", "gain", "time_shift", "frequency_warp", "time_mask", "frequency_mask"):
            require(getattr(self, name) >= 0, name, "≥ 0", getattr(self, name))
        require(0 <= self.modality_dropout <= 1, "modality_dropout", "in [0, 1]", self.modality_dropout)

    def harmless(self) -> "AugmentConfig":
        """The changes after which a sample is as familiar as before."""
        return replace(self, image_damage=0.0)


SMALLEST_BATCH = 8
"""Below that, a batch's gradient is mostly chance."""
FEW_STEPS = 300
"""A training of fewer steps has hardly begun, whatever its data."""
MOST_PASSES = 100
"""With passes=0: what few rows are taught is limited by this too, since a network learns them by heart."""
DECIDED = {"epochs": "min_steps", "batch_size": "min_batches"}
"""Settings that hold as they are where a person names them: the rules that would adapt them are then off."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast, and with which arithmetic."""

    learner: Literal["network", "baselines", "auto"] = "network"
    """network; baselines: logistic regressions and their late fusion; auto: whichever is best on validation."""
    epochs: int = 50
    """Passes over the training part, as long as 'passes' is 1; each ends in validation and a checkpoint."""
    min_steps: int = 0
    """More passes where there would be fewer steps than this in all; 0, or where --epochs is given: never."""
    passes: int = 1
    """Passes in an epoch; 0: as many as 'min_steps' needs, in place of more epochs, up to 100 passes in all."""
    batch_size: int = 64
    """Pairs per step."""
    min_batches: int = 0
    """Smaller batches where an epoch would have fewer than this; 0, or where --batch-size is given: never."""
    peak_learning_rate: float = 1e-3
    """The learning rate at the end of the warmup."""
    warmup_share: float = 0.1
    """Share of all steps that the linear warmup takes."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""
    encoder_rate: float = 0.1
    """A trained image encoder: its learning rate, as a share of that of everything else, once it is trained on."""
    views: Literal["fused", "all"] = "fused"
    """fused: the loss of the answer to both modalities; all: the mean of it and of those to image and sound alone."""
    late_teacher: float = 0.0
    """Weight of a second loss, which draws the fused answer to late fusion of the two others. Needs views=all."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes, so that confidence stays modest."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class has the same weight in the loss, however rare it is; none: each sample has."""
    best_by: Literal["accuracy", "macro_f1", "loss"] = "accuracy"
    """The figure of validation, a mean over five epochs, by which the epoch is chosen whose weights are kept."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the hardware computes it, else float32."""
    augment_on: Literal["auto", "device", "pipeline"] = "auto"
    """Where augmentation runs; auto: on the accelerator where there is one, else in the tf.data pipeline."""
    seed: int = 0
    """Decides the weights, the split, the pairing, the order and every augmentation."""
    deterministic: bool = False
    """The same weights, bit for bit, from the same command on the same processor (a GPU seen did not keep it)."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.epochs >= 1, "epochs", "≥ 1", self.epochs)
        require(self.batch_size >= 1, "batch_size", "≥ 1", self.batch_size)
        require(self.min_steps >= 0, "min_steps", "≥ 0", self.min_steps)
        require(self.passes >= 0, "passes", "≥ 0", self.passes)
        require(self.min_batches >= 0, "min_batches", "≥ 0", self.min_batches)
        require(self.peak_learning_rate > 0, "peak_learning_rate", "> 0", self.peak_learning_rate)
        require(0 <= self.warmup_share < 1, "warmup_share", "in [0, 1)", self.warmup_share)
        require(self.weight_decay >= 0, "weight_decay", "≥ 0", self.weight_decay)
        require(0 <= self.encoder_rate <= 1, "encoder_rate", "in [0, 1]", self.encoder_rate)
        require(self.late_teacher >= 0, "late_teacher", "≥ 0", self.late_teacher)
        require(0 <= self.label_smoothing < 1, "label_smoothing", "in [0, 1)", self.label_smoothing)
        alone = self.late_teacher > 0 and self.views != "all"
        require(not alone, "late_teacher", "0 unless 'views' is 'all'", self.late_teacher)
        require(0 <= self.seed < 2**31, "seed", "in [0, 2^31)", self.seed)

    def steps(self, num_rows: int) -> int:
        """Steps of all epochs over a training part; the last batch of a pass may be smaller."""
        return self.epochs * max(self.passes, 1) * math.ceil(num_rows / self.batch_size)

    def adapted(self, num_rows: int) -> "TrainingConfig":
        """These settings as a training uses them: `min_batches` and `min_steps` carried out, and then 0.

        The batch size is the largest power of two of which there are `min_batches` in the training part, at least
        `SMALLEST_BATCH`, and never more than `batch_size`.

        Args:
            num_rows: of the training part.
        """
        batch_size, epochs = self.batch_size, self.epochs
        if self.min_batches and num_rows < self.min_batches * batch_size:
            fitting = 2 ** int(math.log2(max(1, num_rows // self.min_batches)))
            batch_size = min(batch_size, max(SMALLEST_BATCH, fitting))
        passes, steps = max(self.passes, 1), math.ceil(num_rows / batch_size)
        if self.passes:
            epochs = max(epochs, math.ceil(self.min_steps / (passes * steps)))
        else:
            most = max(MOST_PASSES // epochs, math.ceil(FEW_STEPS / (epochs * steps)))
            passes = max(1, min(math.ceil(self.min_steps / (epochs * steps)), most))
        return replace(self, batch_size=batch_size, epochs=epochs, passes=passes, min_batches=0, min_steps=0)

    def adaptations(self, num_rows: int) -> list[str]:
        """What `adapted` changes, in words, a line each; and a warning of a training of too few steps.

        Args:
            num_rows: of the training part.
        """
        used, lines = self.adapted(num_rows), []
        if used.batch_size < self.batch_size:
            few = f"{num_rows:,} training rows are fewer than {self.min_batches} batches of {self.batch_size}"
            lines.append(f"batch size {used.batch_size}: {few}; --batch-size decides otherwise")
        once = replace(used, epochs=self.epochs, passes=max(self.passes, 1)).steps(num_rows)
        if used.steps(num_rows) > once:
            epochs = f"{used.epochs} epochs" + (f" of {used.passes} passes" if used.passes > 1 else "")
            few = f"{once:,} steps in {self.epochs} epochs are too few"
            lines.append(f"{epochs}, {used.steps(num_rows):,} steps: {few}; --epochs decides otherwise")
        elif used.steps(num_rows) < FEW_STEPS:
            lines.append(f"only {used.steps(num_rows):,} steps, too few for most data; more --epochs help")
        return lines


@dataclass(frozen=True)
class Config:
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @property
    def split_seed(self) -> int:
        """What decides the split."""
        return self.data.split_seed if self.data.split_seed >= 0 else self.training.seed

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `config_from_json` reads it back."""
        return asdict(self)


def config_from_json(values: Any) -> Config:
    """Reads what `Config.to_json` gave; settings that are left out keep their defaults.

    Raises:
        UserError: a section or a setting that does not exist, or a value of another type or out of its range.
    """
    if not isinstance(values, dict):
        raise UserError(f"a config must be a JSON object. Received: {type(values).__name__}")
    _known(values, Config, "config")
    default = Config()
    return replace(default, **{name: _section(getattr(default, name), name, part) for name, part in values.items()})


def _known(values: dict[str, Any], kind: Any, where: str) -> None:
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(values) - set(names))
    require(not unknown, where, f"made of {', '.join(names)}", unknown)


def _section(default: Any, name: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"'{name}' must be a JSON object. Received: {values!r}")
    _known(values, type(default), name)
    return replace(default, **{key: _value(getattr(default, key), value) for key, value in values.items()})


def _value(default: Any, value: Any) -> Any:
    """The value in the type of its default: JSON knows no tuples, and writes 1 for 1.0."""
    if isinstance(default, tuple | str) and isinstance(value, list):
        return tuple(value)
    return float(value) if isinstance(default, float) and type(value) is int else value


def differences(one: Config, other: Config) -> list[str]:
    """The settings in which two configs differ, as `section.name`.

    Args:
        one: a config.
        other: another.
    """
    return [
        f"{section.name}.{setting.name}"
        for section in fields(Config)
        for setting in fields(getattr(one, section.name))
        if getattr(getattr(one, section.name), setting.name) != getattr(getattr(other, section.name), setting.name)
    ]
