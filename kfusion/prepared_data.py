"""What a run knows before the first step: its data, their parts, and the statistics of the training part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from rich.console import Console

from kfusion.config import AugmentConfig, Config, TrainingConfig
from kfusion.data.dataset import Source
from kfusion.data.loaders import is_media, load
from kfusion.data.splits import Split, require_no_names, split
from kfusion.data.statistics import Statistics, measure
from kfusion.data.tables import nearly_equal
from kfusion.io import read_back, same_arrays
from kfusion.modalities import each_of
from kfusion.run_dir import FORMAT, Run
from kfusion.spec import Spec
from kfusion.validation import UserError

PARTS = ("train", "val", "test")
UNEVEN = 5
"""How many times as many rows the largest class must have as the smallest for class weights to be recommended."""
REMARKS = ("licence", "num_ignored", "fingerprints")
"""What a run notes of its data that may change although the data do not: a README beside the files, a longer text, or
another version of a front end, of which `front_ends.note_on` tells."""


class Augmentation:
    """(batch, keys) -> batch, every sample changed as its key says.

    Args:
        config: which changes, and how far.
        spec: the modalities.
        mean: of each value over the training part, (num_values,), for each standardised modality.
        front_end: what made the features, as a run notes it; None where nobody knows.

    Attributes:
        layers: for each modality its layers, in their order; none for a modality that stays as it is.
    """

    def __init__(
        self, config: AugmentConfig, spec: Spec, mean: Mapping[str, Any], front_end: str | None = None
    ) -> None:
        self.layers: dict[str, list[Callable[..., Any]]] = {
            name: kind.augmentations(config, name, shape, mean.get(name), front_end)
            for name, kind, shape in each_of(spec)
        }

    def __call__(self, batch: dict[str, Any], keys: Any, training: bool | None = True) -> dict[str, Any]:
        """Changes the modalities of a batch, (batch, *shape) each; keys int64 (batch,).

        `training` None: as the model that the layers are part of is called.
        """
        changed = dict(batch)
        for name in self.layers.keys() & batch.keys():
            for layer in self.layers[name]:
                changed[name] = layer(changed[name], keys, training=training)
        return changed


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A config and the data that it names, read, divided and measured.

    Args:
        config: every setting.
        source: the data.
        parts: the samples of training, validation and test.
        statistics: of the training part.
    """

    config: Config
    source: Source
    parts: Split
    statistics: Statistics

    @property
    def spec(self) -> Spec:
        """The modalities and the classes."""
        return self.parts.train.spec

    @property
    def training(self) -> TrainingConfig:
        """The settings of the training as it is done: batch size and epochs fit the training part."""
        return self.config.training.adapted(len(self.parts.train))

    @property
    def class_weight(self) -> np.ndarray | None:
        """The weight of each class in the loss, n / (K · n_c), float64 (num_classes,); None: all weigh the same."""
        prior = self.statistics.prior
        return 1 / (len(prior) * prior) if self.config.training.class_weight == "balanced" else None

    @property
    def prior(self) -> np.ndarray:
        """Share of each class in the loss, float64 (num_classes,): what the network takes for its prior."""
        weight, prior = self.class_weight, self.statistics.prior
        return prior if weight is None else np.full(len(prior), 1 / len(prior))

    def augmentation(self, harmless: bool = False) -> Augmentation:
        """The random changes of the training samples; all, or `AugmentConfig.harmless`."""
        front_end, config = self.source.info["front_end"], self.config.augment
        return Augmentation(config.harmless() if harmless else config, self.spec, self.statistics.mean, front_end)

    def facts(self) -> dict[str, Any]:
        """The content of a run folder's data.json."""
        statistics = self.statistics
        return {
            "format": FORMAT,
            "spec": self.spec.to_json(),
            "source": self.source.info,
            "audit": self.parts.audit.lines(),
            "num_pairs": {name: len(getattr(self.parts, name)) for name in PARTS},
            "prior": self.prior.tolist(),
            **{f"{name}_range": limits for name, limits in statistics.ranges.items()},
            **self._scaling(),
        }

    def _scaling(self) -> dict[str, Any]:
        """Mean and variance of each standardised modality; of the first one, those in the graph are `scaling_…`."""
        facts, statistics = {}, self.statistics
        for name in statistics.mean:
            in_graph = f"{name}_scaling" if facts else "scaling"
            facts |= {
                f"{name}_mean": statistics.mean[name].tolist(),
                f"{name}_variance": statistics.variance[name].tolist(),
                f"{in_graph}_mean": statistics.prepared_mean[name].tolist(),
                f"{in_graph}_variance": statistics.prepared_variance[name].tolist(),
            }
        return facts

    def rows(self) -> dict[str, Any]:
        """The content of a run folder's split.npz: the rows of each part, pair by pair."""
        return rows_of(self.parts)

    def lines(self) -> list[str]:
        """What is printed of the data before training."""
        kinds, info = list(each_of(self.spec)), self.source.info
        sizes = ", ".join(f"{len(getattr(self.parts, name)):,} {name}" for name in PARTS)
        unit = "pairs" if len(kinds) == 2 else "samples"
        data = self.config.data
        fold = f", fold {data.fold} of {data.folds}" if data.folds else ""
        lines = [f"data: {info['name']}; {unit}: {sizes}; split: {data.split}{fold}"]
        lines += self.parts.audit.lines()
        lines += [*self.source.notes, *nearly_equal(self.spec.class_names), *self._not_kept_apart()]
        lines += filter(None, (kind.left_out(self.config.augment, info["front_end"]) for _, kind, _ in kinds))
        lines += self._class_weights()
        if self.config.training.learner == "baselines":
            return lines
        lines += self.config.training.adaptations(len(self.parts.train))
        if self.config.training.views == "all" and len(kinds) > 1:
            *first, last = [f"the {kind.noun if name == kind.kind else name} alone" for name, kind, _ in kinds]
            together = "both" if len(first) == 1 else "all"
            lines.append(f"loss and accuracy below: the mean of those of {', '.join([together, *first])} and {last}")
        return lines

    def _class_weights(self) -> list[str]:
        """A line on the weights of the classes, or on such uneven classes that they would help."""
        counts, names = np.bincount(self.parts.train.label, minlength=self.spec.num_classes), self.spec.class_names
        most, least = int(counts.argmax()), int(counts.argmin())
        weight = self.class_weight
        if weight is not None:
            return [f"class weights: from {weight[most]:.3g} ({names[most]}) to {weight[least]:.3g} ({names[least]})"]
        if counts[most] < UNEVEN * counts[least]:
            return []
        found = f"{counts[most]:,} training rows of class {names[most]}, {counts[least]:,} of class {names[least]}"
        return [f"{found}; --class-weight balanced gives both the same weight"]

    def _not_kept_apart(self) -> list[str]:
        """A line for each kind of groups in the data that this split divides."""
        kind, info = self.config.data.split, self.source.info
        lines = []
        if kind != "clip" and "grouped_by" in info:
            rule = "a random split divides rows alone" if kind == "random" else "sounds are kept together by speaker"
            lines.append(f"{info['grouped_by']} is not heeded: {rule}; --split clip keeps groups together")
        if kind != "speaker" and info.get("layout") == "manifest" and self.source.spoken:
            lines.append("speakers are not kept apart; --split speaker does that")
        return lines


def rows_of(parts: Split) -> dict[str, Any]:
    """`{part}_{modality}`: the rows of each part, sample by sample."""
    return {f"{part}_{name}": rows for part in PARTS for name, rows in getattr(parts, part).rows.items()}


def gather(config: Config, console: Console | None = None, source: Source | None = None) -> PreparedData:
    """Reads, divides and measures the data of a config; writes nothing but the cache of decoded files.

    Args:
        config: every setting.
        console: where progress is shown where files must be decoded; None: nowhere.
        source: the data, where they have been read already; None: they are read here.

    Raises:
        UserError: the data or the split break a rule.
    """
    if source is None:
        require_no_names(config.data)
        source = load(config.data, console)
    config, notes = fitted(config, source.spec)
    source = replace(source, notes=(*source.notes, *notes))
    parts = split(source, config.data, config.split_seed)
    kinds = each_of(parts.train.spec)
    normalisations = {name: kind.normalisation(config.model, name, shape) for name, kind, shape in kinds}
    return PreparedData(config, source, parts, measure(parts.train, normalisations))


def fitted(config: Config, spec: Spec) -> tuple[Config, list[str]]:
    """The settings with the network fitted to the data where nobody set it, and a line on each change.

    Args:
        config: every setting.
        spec: the modalities.
    """
    model, notes = config.model, []
    for _, kind, shape in each_of(spec):
        model, line = kind.fitted(model, shape)
        notes += [line] if line else []
    return replace(config, model=model), notes


def regather(prepared: PreparedData, config: Config) -> PreparedData:
    """As `gather(config)`, without reading anything again where both configs mean the same data.

    Args:
        prepared: what was read before.
        config: the settings now.
    """
    old = prepared.config
    same = (
        replace(old.data, split_seed=0) == replace(config.data, split_seed=0)
        and old.split_seed == config.split_seed
        and old.model.utterance_trim == config.model.utterance_trim
    )
    return replace(prepared, config=fitted(config, prepared.spec)[0]) if same else gather(config)


class MissingData(UserError):
    """A run's data cannot be read any more."""


def load_own(run: Run) -> tuple[Source, Split]:
    """The run's data, divided as they were for training.

    Raises:
        MissingData: the data are gone, or cannot be read.
        UserError: they are not those that the run was trained on.
    """
    config = run.config()
    data = config.data
    if any(map(is_media, data.sources)):
        # What the files decided at training, and what an older run could not yet say.
        for _, kind, shape in each_of(run.spec()):
            data = replace(data, **kind.file_settings(shape))
        if not any(kind.windows(shape) for _, kind, shape in each_of(run.spec())):
            data = replace(data, word_copies=0)
    try:
        source = load(data)
    except UserError as error:
        raise MissingData(f"{run.folder}: the run's data must be where they were at training. {error}") from error
    parts = split(source, config.data, config.split_seed)
    _require_unchanged(run, source, parts)
    return source, parts


def _require_unchanged(run: Run, source: Source, parts: Split) -> None:
    """Checks that files and rows of each part are those of the training; what the run did not note may differ."""
    noted, now = run.data()["source"], read_back(source.info)
    changed = sorted(name for name in noted.keys() - set(REMARKS) if now.get(name) != noted[name])
    trained = run.spec()
    changed += [f.name for f in fields(trained) if getattr(source.spec, f.name) != getattr(trained, f.name)]
    rule = f"{run.folder}: the data must be those that the run was trained on"
    if changed:
        raise UserError(f"{rule}. Found: another {changed[0]}")
    if not same_arrays(run.split(), rows_of(parts)):
        raise UserError(f"{rule}. Found: other rows per part")
