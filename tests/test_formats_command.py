"""`python -m kfusion.export --format …` as a process: versions of their own, and missing extras told in one line."""

import json
import os

import pytest

from tests.exports import needs_litert
from tests.processes import ROOT, environment, fails, in_process, run_export, run_python


@needs_litert
def test_the_command_writes_a_version_of_its_own_and_never_another_time(trained_run, tmp_path):
    done = in_process("kfusion.export", trained_run, "--format", "litert", "--to", tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    path = tmp_path / "kfusion-litert" / "1" / "model.tflite"
    assert f"exported: {path}" in done.stdout and done.stdout.count("passed") == 3
    assert not (tmp_path / "kfusion").exists()  # A server that watches this one must find no file of another kind.
    asking = (
        "import sys, json, numpy as np; from pathlib import Path\n"
        "from kfusion.exporting.runtimes import open_portable\n"
        f"answer = open_portable(Path({str(path)!r})).ask(np.zeros((1, 28, 28, 1), np.float32), "
        "np.zeros((1, 507), np.float32), np.ones((1, 2), bool))\n"
        "print(json.dumps([len(answer['probabilities'][0]), 'tensorflow' in sys.modules, 'keras' in sys.modules]))"
    )
    told = run_python("-c", asking)
    assert json.loads(told.stdout) == [10, False, False], told.stderr
    again = in_process("kfusion.export", trained_run, "--format", "litert", "--to", tmp_path, "--version", "1")
    fails(again, "an existing version is kept")


@pytest.mark.parametrize(("kind", "package", "extra"), [
    ("onnx", "tf2onnx", "onnx"), ("litert-int8", "ai_edge_quantizer", "litert"),
])  # fmt: skip
def test_a_missing_extra_is_one_line_that_names_it(trained_run, tmp_path, kind, package, extra):
    hide = (
        "import importlib.machinery as machinery\nfind = machinery.PathFinder.find_spec\n"
        f"hidden = lambda name, *rest: None if name.split('.')[0] == {package!r} else find(name, *rest)\n"
        "machinery.PathFinder.find_spec = hidden\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hide)
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    done = run_export(trained_run, "--format", kind, "--to", tmp_path / "out", cwd=tmp_path, env=env)
    fails(done, f"pip install 'kfusion[{extra}]'")
    assert not (tmp_path / "out").exists()
