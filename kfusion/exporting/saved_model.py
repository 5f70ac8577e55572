"""A run -> a version that a server can load: the steps of `python -m kfusion.export`, for it and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console

from kfusion.data.dataset import Pairs
from kfusion.data.statistics import as_range, largest
from kfusion.exporting.assets import BATCHES as WARMUP_BATCHES
from kfusion.exporting.assets import read_warmup, write_examples, write_papers, write_warmup
from kfusion.exporting.model_store import Shelf
from kfusion.exporting.sample_requests import BadRequest, Expected, Samples, bad_arrays, bad_files, samples
from kfusion.exporting.signatures import SIGNATURES, Endpoints, front_end_of, write_saved_model
from kfusion.exporting.subprocess_runner import Request
from kfusion.exporting.verify import BATCHES, Plan, Unproven, table, verify
from kfusion.modalities.front_ends import note_on
from kfusion.prepared_data import load_own
from kfusion.run_dir import Run, read_temperature
from kfusion.spec import FUSED
from kfusion.validation import UserError, reason


@dataclass(frozen=True)
class Options:
    """How a run is exported.

    Args:
        version: the number; None: the next.
        verify: prove the model before it is published.
        calibrate: temper the probabilities where the run has temperatures.
    """

    version: int | None = None
    verify: bool = True
    calibrate: bool = True


def export(run: Run, network: keras.Model, shelf: Shelf, options: Options, console: Console | None = None) -> Path:
    """Exports a run's network, proves it, and publishes it.

    Args:
        run: a finished run.
        network: its network.
        shelf: where the version goes.
        options: how.
        console: where is said what is done; None: nowhere.

    Returns:
        The version's folder.

    Raises:
        UserError: the run, the data or the shelf break a rule.
        Unproven: the model does not keep its word; nothing is published.
    """
    if options.version is not None:
        shelf.check_free(options.version)
    pairs = held_out_pairs(run)
    temperature = read_temperature(run) if options.calibrate else {}
    readers, left_out = front_end_of(run)
    trained = as_range(run.data()["audio_range"], run.folder / "data.json")
    endpoints = Endpoints(network, run.spec(), temperature, readers, largest(trained))
    real = samples(pairs, max(BATCHES), readers)
    say(console, run, temperature, left_out)
    with shelf.workshop() as place:
        made = place / "model"
        write(made, run, shelf.name, network, endpoints, real, left_out)
        write_examples(made, run, pairs)
        if options.verify:
            plan = plan_of(made, endpoints, real, Expected(network, run.spec().class_names, temperature))
            checks = verify(made, plan)
            if console:
                console.print(table(checks))
            if not all(check.passed for check in checks):
                raise Unproven(f"{run.folder}: the exported model failed its verification; nothing is published")
        return shelf.publish(made, options.version)


def write(
    made: Path, run: Run, name: str, network: keras.Model, endpoints: Endpoints, real: Samples, left_out: str
) -> None:
    """Writes the whole version, not yet in its place."""
    try:
        write_saved_model(made, network, endpoints)
        requests = [Request(each, real.request(each, size)) for each in endpoints.names for size in WARMUP_BATCHES]
        write_warmup(made, name, requests)
        write_papers(made, run, name, endpoints.temperature, left_out)
    except tf.errors.OpError as error:
        raise UserError(f"{made}: the model must be writable. Found: {reason(error)}") from error


def plan_of(made: Path, endpoints: Endpoints, real: Samples, expected: Expected) -> Plan:
    """What is asked of a model before it is published."""
    known, bad = [], list[BadRequest]()
    for signature in endpoints.names:
        for size in BATCHES:
            known.append((Request(signature, real.request(signature, size)), real.expected(signature, size, expected)))
        # Three whole pairs: what is wrong with one row must not pass in the company of good ones.
        bad += (
            bad_arrays(signature, real.request(signature, 3))
            if signature in SIGNATURES
            else bad_files(signature, *real.whole_files(3))
        )
    return Plan(known, bad, read_warmup(made))


def held_out_pairs(run: Run) -> Pairs:
    """The test part of a run.

    Raises:
        UserError: the run's data are gone, or are not those that it was trained on.
    """
    return load_own(run)[1].test


def say(console: Console | None, run: Run, temperature: Mapping[str, float], left_out: str) -> None:
    """What a person should know before the wait."""
    if console is None:
        return
    fused = run.metrics()["views"][FUSED]
    console.print(f"run: {run.folder}, {fused['accuracy']:.4f} fused on {fused['num_rows']} test pairs", soft_wrap=True)
    if temperature:
        listed = ", ".join(f"{view} {value:.3f}" for view, value in temperature.items())
        console.print(f"probabilities are tempered ({run.calibration.name}): {listed}", soft_wrap=True)
    else:
        console.print("probabilities are the network's own, not calibrated")
    if left_out:
        console.print(f"raw_bytes is left out: {left_out}", soft_wrap=True)
    elif note := note_on(run.data()["source"]):
        console.print(note, soft_wrap=True)
