"""A run's network as a SavedModel: its endpoints, the files that travel with it, and its verification."""

from pathlib import Path

import tensorflow as tf

from kfusion.exporting.assets import BATCHES as WARMUP_BATCHES
from kfusion.exporting.assets import read_warmup, write_assets, write_warmup
from kfusion.exporting.exporter import ExportContext
from kfusion.exporting.sample_requests import BadRequest, Expected, Samples, bad_arrays, bad_files, samples_of
from kfusion.exporting.signatures import Endpoints, write_saved_model
from kfusion.exporting.subprocess_runner import Request
from kfusion.exporting.verify import ALLOWED, BATCHES, Check, Plan, verify
from kfusion.modalities import each_of
from kfusion.validation import UserError, reason


def convert(context: ExportContext, folder: Path) -> None:
    """Writes a SavedModel with all that travels with it.

    Args:
        context: of the export.
        folder: where to.

    Raises:
        UserError: the disk does not take it.
    """
    endpoints, real = context.endpoints, _samples(context)
    try:
        write_saved_model(folder, context.network, endpoints)
        requests = [Request(each, real.request(each, size)) for each in endpoints.names for size in WARMUP_BATCHES]
        write_warmup(folder, context.name, requests)
        write_assets(context, folder)
    except tf.errors.OpError as error:
        raise UserError(f"{folder}: the model must be writable. Found: {reason(error)}") from error


def verify_folder(context: ExportContext, folder: Path) -> list[Check]:
    """Verifies a SavedModel; see `verify`.

    Args:
        context: of the export.
        folder: what `convert` wrote.
    """
    return verify(folder, plan_of(folder, context.endpoints, _samples(context), context.expected))


def plan_of(folder: Path, endpoints: Endpoints, real: Samples, expected: Expected) -> Plan:
    """The requests to a model before it is published.

    Args:
        folder: a SavedModel.
        endpoints: what it was made of.
        real: samples.
        expected: the network.
    """
    known, bad = [], list[BadRequest]()
    for signature in endpoints.names:
        for size in BATCHES:
            known.append((Request(signature, real.request(signature, size)), real.expected(signature, size, expected)))
        # Three whole samples: what is wrong with one row must not pass in the company of good ones.
        make = bad_arrays if signature in endpoints.arrays else bad_files
        bad += make(signature, real.request(signature, 3, whole=True), endpoints.spec)
    ops = ALLOWED.union(*(kind.ops for _, kind, _ in each_of(endpoints.spec)))
    return Plan(known, bad, read_warmup(folder), ops)


def _samples(context: ExportContext) -> Samples:
    return samples_of(context.samples.test, max(BATCHES), context.readers)
