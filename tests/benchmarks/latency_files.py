"""What `latency` compares, made from a run: each format's file, and one real pair.

Run by the benchmark: `python -m tests.benchmarks.latency_files RUN FOLDER`.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from kfusion.exporting.exporter import Options, export, read_context
from kfusion.exporting.model_store import ModelStore
from kfusion.exporting.portable import freeze, one_by_one, to_int8, to_litert, to_onnx, with_facts
from kfusion.inference import load_network
from kfusion.run_dir import open_run


def make(folder: Path, work: Path) -> None:
    """Writes SavedModel, .tflite, .onnx and pair.npz into `work`; they are verified elsewhere.

    Args:
        folder: a run folder.
        work: where to.
    """
    run = open_run(folder)
    network, options = load_network(run), Options(version=1, verify=False)
    # The answers alone, as the others give them.
    context = replace(read_context(run, network, "benchmark", options), trust=None)
    frozen, facts = freeze(network, context.spec, {}), context.facts
    litert = to_litert(frozen)
    (work / "float32.tflite").write_bytes(with_facts(litert, facts))
    (work / "int8.tflite").write_bytes(with_facts(to_int8(litert, one_by_one(context.samples.train)), facts))
    (work / "model.onnx").write_bytes(to_onnx(frozen, facts))
    export(run, network, ModelStore(work, "savedmodel"), options)
    values = context.samples.test.read(np.arange(1))
    image = values["image"] / np.float32(context.spec["image"].scale)
    np.savez(work / "pair.npz", image=image, pixels=values["image"], audio=values["audio"])


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
