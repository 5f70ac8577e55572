"""Export of a run in any of the `FORMATS`: what it needs is read once, converted, verified, and published.

    TO/NAME/VERSION/                         a SavedModel, for TensorFlow Serving
    TO/NAME-litert/VERSION/model.tflite      one file for another runtime, in a folder for each format: one that
                                             TensorFlow Serving watches must hold SavedModels only

A run is exported from the samples that it keeps; its data are read only where an older run keeps none, and where the
accuracy of an 8-bit file is measured and the data are there. Data that are read must be those of the run.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from kfusion import __version__
from kfusion.data.statistics import as_range, largest
from kfusion.environment import environment
from kfusion.exporting.model_store import ModelStore
from kfusion.exporting.runtimes import FORMATS, check_extra, outputs_of
from kfusion.exporting.samples import Expected, KeptSamples, kept_samples
from kfusion.exporting.signatures import Endpoints, why_no_files
from kfusion.exporting.verify import VerificationError, table
from kfusion.modalities import each_of
from kfusion.modalities.front_ends import Reader, note_on, readers_of
from kfusion.model.trust import Trust, read_trust
from kfusion.prepared_data import MissingData, load_own
from kfusion.run_dir import Run, read_temperature
from kfusion.spec import FUSED, Caution, Spec


@dataclass(frozen=True)
class Options:
    """How a run is exported.

    Args:
        version: the number; None: the next.
        verify: verify the model before it is published.
        calibrate: temper the probabilities where the run has temperatures.
        format: one of `FORMATS`.
        caution: how much the model is to be trusted.
    """

    version: int | None = None
    verify: bool = True
    calibrate: bool = True
    format: str = "savedmodel"
    caution: Caution = field(default_factory=Caution)


@dataclass(frozen=True, eq=False)
class ExportContext:
    """All that an export reads, once.

    Args:
        run: the run.
        network: its network: {name: values, "present"} -> probabilities.
        name: the model's, as clients of a server know it.
        options: how it is exported.
        spec: the modalities and class names.
        data: the content of data.json.
        temperature: for each of `spec.views`, by which its probabilities are tempered; empty: they stay as they are.
        readers: for each modality that comes in files, what reads them; empty: none are read.
        left_out: why files are not read; "" where they are.
        samples: what the export is verified on and calibrated by.
        trust: of the network; None: the run knows nothing of it, or the export's arithmetic is not the network's.
    """

    run: Run
    network: keras.Model
    name: str
    options: Options
    spec: Spec
    data: Mapping[str, Any]
    temperature: Mapping[str, float]
    readers: Mapping[str, Reader]
    left_out: str
    samples: KeptSamples
    trust: Trust | None = None

    @cached_property
    def endpoints(self) -> Endpoints:
        """The network as endpoints."""
        trusted = self.trust, self.options.caution
        return Endpoints(self.network, self.spec, self.temperature, self.readers, self.limits, *trusted)

    @cached_property
    def expected(self) -> Expected:
        """The network, called through Keras."""
        return Expected(self.network, self.spec, self.temperature, self.trust, self.options.caution)

    @property
    def limits(self) -> dict[str, float]:
        """How far from zero the values of each modality may be."""
        path = self.run.folder / "data.json"
        return {
            name: largest(as_range(self.data.get(f"{name}_range"), path, name))
            for name, kind, _ in each_of(self.spec)
            if not kind.is_bounded()
        }

    @property
    def item(self) -> str:
        """One sample of a part, in words."""
        return "pair" if len(self.spec.names) == 2 else "sample"

    @property
    def rows_used(self) -> dict[str, str]:
        """Which rows the export is verified on and calibrated by, in words."""
        samples, kind, used = self.samples, FORMATS[self.options.format], dict[str, str]()
        where = f"evenly over the classes, {samples.source}"
        if self.options.verify:
            used["verified"] = f"on {len(samples.test)} rows of the test part, {where}"
        if kind.quantised:
            used["calibrated"] = f"by {len(samples.train)} rows of the training part, {where}"
        if kind.quantised and self.options.verify:
            whole = samples.whole_test
            rows = "those that training kept: the data are not there" if whole is None else "the whole test part"
            used["accuracy measured"] = f"on {len(samples.test if whole is None else whole)} rows, {rows}"
        return used

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a file for another runtime says of itself, ready for JSON."""
        data, inputs = self.data, dict[str, Any]()
        for name, kind, shape in each_of(self.spec):
            if kind.is_bounded():
                inputs |= {f"{name}_shape": list(shape.shape), f"{name}_range": [0, 1]}
            else:
                inputs |= {f"num_{name}": shape.num_values, f"{name}_range": data[f"{name}_range"]}
        return {
            "class_names": list(self.spec.class_names),
            **inputs,
            "modalities": self.spec.modalities_json(),
            "front_end": data["source"]["front_end"],
            "data": Path(data["source"]["name"]).name,
            "licence": data["source"].get("licence"),
            "test": {view: row["accuracy"] for view, row in self.run.metrics()["views"].items()},
            "rows": self.rows_used,
            "temperature": dict(self.temperature),
            "outputs": list(outputs_of(self.spec.names, self.trust is not None)),
            **({"caution": asdict(self.options.caution)} if self.trust else {}),
            "versions": {**environment("float32")["packages"], "kfusion": __version__},
        }

    def lines(self) -> list[str]:
        """What a person should know before the wait."""
        fused, source = self.run.metrics()["views"][FUSED], self.data["source"]
        lines = [f"run: {self.run.folder}, {fused['accuracy']:.4f} fused on {fused['num_rows']} test {self.item}s"]
        if self.temperature:
            listed = ", ".join(f"{view} {value:.3f}" for view, value in self.temperature.items())
            lines.append(f"probabilities are tempered ({self.run.calibration.name}): {listed}")
        else:
            lines.append("probabilities are the network's own, not calibrated")
        if self.trust and self.options.caution.turn_away:
            share, coverage = self.options.caution.turn_away, self.options.caution.coverage
            lines.append(
                f"unfamiliar at {share:g} of known inputs turned away; prediction sets of coverage {coverage:g}"
            )
        if self.left_out and not FORMATS[self.options.format].file:
            lines.append(f"raw_bytes is left out: {self.left_out}")
        elif note := note_on(source):
            lines.append(note)
        if measured := self.rows_used.get("accuracy measured"):
            lines.append(f"8-bit accuracy is measured {measured}")
        return lines


def read_context(run: Run, network: keras.Model, name: str, options: Options) -> ExportContext:
    """Reads what an export needs.

    Args:
        run: a finished run.
        network: its network.
        name: the model's.
        options: how it is exported.

    Raises:
        UserError: a file of the run is damaged, or data that had to be read are not those of the run.
    """
    samples, spec, data = kept_samples(run), run.spec(), run.data()
    if FORMATS[options.format].quantised and options.verify and samples.whole_test is None:
        with suppress(MissingData):  # Then the kept samples must do.
            samples = replace(samples, whole_test=load_own(run)[1].test)
    temperature = read_temperature(run) if options.calibrate else {}
    # Every endpoint calls the same readers: tracing them takes most of an export's time.
    readers, reasons = readers_of(spec, data["source"], raw=True)
    left_out = why_no_files(spec, reasons)
    used = {} if left_out else readers
    # The distances between embeddings of 8-bit arithmetic are others.
    trust = None if FORMATS[options.format].quantised else read_trust(run)
    return ExportContext(run, network, name, options, spec, data, temperature, used, left_out, samples, trust)


def export(
    run: Run, network: keras.Model, store: ModelStore, options: Options | None = None, console: Console | None = None
) -> Path:
    """Exports a run's network, verifies it, and publishes it.

    Args:
        run: a finished run.
        network: its network.
        store: where the version goes.
        options: how.
        console: where progress is shown; None: nowhere.

    Returns:
        The version's folder; of a format that is one file, the file.

    Raises:
        UserError: the run, its data or the store break a rule, or an extra is missing.
        VerificationError: the model predicts otherwise than the network; nothing is published.
    """
    options = options or Options()
    kind = FORMATS[options.format]
    check_extra(kind.extra)
    if options.version is not None:
        store.check_free(options.version)
    context = read_context(run, network, store.name, options)
    if console:
        for line in context.lines():
            console.print(line, soft_wrap=True)
    with store.staging() as place:
        made = place / "model"
        made.mkdir()
        kind.function(kind.convert)(context, made)
        if options.verify:
            checks = kind.function(kind.verify)(context, made)
            if console:
                console.print(table(checks))
            if not all(check.passed for check in checks):
                raise VerificationError(
                    f"{run.folder}: the exported model failed its verification; nothing is published"
                )
        return store.publish(made, options.version) / kind.file
