"""What `latency` compares, made from a run: each format's file, and one real pair.

Run by the benchmark: `python -m tests.benchmarks.latency_files RUN FOLDER`.
"""

import sys
from pathlib import Path

import numpy as np

from kfusion.data.loaders import load
from kfusion.data.splits import split
from kfusion.exporting.converters import freeze, to_int8, to_litert, to_onnx, with_facts
from kfusion.exporting.model_store import Shelf
from kfusion.exporting.portable import facts_of, one_by_one
from kfusion.exporting.saved_model import Options, export
from kfusion.inference import load_network
from kfusion.run_dir import open_run


def make(folder: Path, work: Path) -> None:
    """Writes SavedModel, .tflite, .onnx and pair.npz into `work`; they are proved elsewhere."""
    run = open_run(folder)
    network, config = load_network(run), run.config()
    parts = split(load(config.data), config.data, config.split_seed)
    frozen, facts = freeze(network, run.spec(), {}), facts_of(run, {})
    litert = to_litert(frozen)
    (work / "float32.tflite").write_bytes(with_facts(litert, facts))
    (work / "int8.tflite").write_bytes(with_facts(to_int8(litert, one_by_one(parts.train)), facts))
    (work / "model.onnx").write_bytes(to_onnx(frozen, facts))
    export(run, network, Shelf(work, "savedmodel"), Options(version=1, verify=False))
    pixels, audio = parts.test.read(np.arange(1))
    np.savez(work / "pair.npz", image=pixels / np.float32(run.spec().pixel_max), pixels=pixels, audio=audio)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
