"""A run whose training has come to its end: opened and checked, for the stages that read it."""

from pathlib import Path
from typing import TYPE_CHECKING

from kfusion.rules import UserError
from kfusion.run import Run, open_run
from kfusion.spec import MODALITIES

if TYPE_CHECKING:
    import keras

FACTS = ("spec", "source", "prior", "audio_mean", "audio_variance", "audio_range")
"""What later stages need of data.json."""


def open_finished(folder: Path) -> Run:
    """A run folder that holds all that later stages read.

    Raises:
        UserError: it is no run folder, of another format, unfinished or damaged.
    """
    run = open_run(folder)
    if not run.finished:
        rule = "must be a finished run; the command that began it goes on with --resume"
        raise UserError(f"{folder}: {rule}. Found: no metrics.json")
    missing = [name for name in FACTS if name not in run.data()]
    if missing:
        raise UserError(f"{folder / 'data.json'}: must hold {', '.join(FACTS)}. Found: no {missing[0]}")
    run.split()
    return run


def load_fitting(run: Run) -> "keras.Model":
    """The best network of a run, which must take what the run's data.json describes.

    Raises:
        UserError: it is missing, damaged, or another run's.
    """
    # Here, not above: whoever only reads a run's files does not wait for TensorFlow.
    from kfusion.predictor import load_network

    network, spec = load_network(run), run.spec()
    wanted = {"image": spec.image_shape, "audio": (spec.num_audio,), "present": (len(MODALITIES),)}
    inputs = network.input if isinstance(network.input, dict) else {}
    found = {name: tuple(inputs[name].shape[1:]) for name in wanted if name in inputs}
    if found != wanted or network.output.shape[-1] != spec.num_classes:
        rule = f"must take the run's data, {wanted}, and name {spec.num_classes} classes"
        raise UserError(f"{run.best}: {rule}. Found: {found}, {network.output.shape[-1]} classes")
    return network
