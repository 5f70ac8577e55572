"""Shared by all tests: no start-up chatter, a browser, and runs and models that are made once for all test processes.

A test that changes a run or a model takes a copy. TensorFlow is not loaded here: the process that only deals the tests
out to others would load it for nothing.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.pages import browser  # noqa: F401
from tests.processes import TRAINED, in_process, once, run_export, run_train, run_verb
from tests.servers import Server, serve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# A test process for each core is enough: threads of their own only wait for each other.
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: some tests wait for servers and browsers."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests need the trained run come last.

    Each test process begins with another share of the tests: one makes the run meanwhile, and the others need not wait.
    """
    late = {item.path for item in items if "trained_run" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in late)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """A training in this process may be deterministic: what it switches on is off again after the test."""
    from tensorflow.python.framework.config import disable_op_determinism

    yield
    disable_op_determinism()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are saved with a size and nothing else: drawing them takes longer than most of what is tested."""
    from matplotlib.figure import Figure

    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x40"

    def savefig(figure: Figure, file: str | Path, **_: object) -> None:
        Path(file).write_bytes(b'<svg width="9pt" height="9pt"/>' if str(file).endswith(".svg") else png)

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all test processes of a session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def trained_run(shared: Path) -> Path:
    """A small robust run on the built-in data.

    It is without trust.npz, as those of earlier versions: answers are the network's own, with nothing turned away.
    """

    def make() -> None:
        done = run_train(*TRAINED, "--out", shared / "trained_run", cwd=shared)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        (shared / "trained_run" / "trust.npz").rename(shared / "trained_run_trust.npz")
        (shared / "trained_run.txt").write_text(done.stdout)

    return once(shared, shared / "trained_run.txt", make).with_suffix("")


@pytest.fixture(scope="session")
def tiny_run(shared: Path) -> Path:
    """A run that a program fitted on a few arrays; `tiny_run.txt` beside it is what fitting printed."""

    def make() -> None:
        from tests.classifiers import fit_tiny

        fit_tiny(shared / "tiny_run", shared / "tiny_part.txt")
        (shared / "tiny_part.txt").rename(shared / "tiny_run.txt")

    return once(shared, shared / "tiny_run.txt", make).with_suffix("")


@pytest.fixture(scope="session")
def exported_model(trained_run: Path, shared: Path) -> Path:
    """The trained run's first version, `saved_models/kfusion/1`, exported and proved; not calibrated."""

    def make() -> None:
        done = run_export(trained_run, "--no-calibrate", cwd=shared)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        (shared / "exported_model.txt").write_text(done.stdout)

    once(shared, shared / "exported_model.txt", make)
    return shared / "saved_models" / "kfusion" / "1"


@pytest.fixture(scope="session")
def served_model(exported_model: Path, shared: Path) -> Path:
    """A model's folder as a server reads it, `kfusion`, with version 1 alone, whatever other tests export."""

    def make() -> None:
        shutil.copytree(exported_model, shared / "served" / "copy" / "1")
        (shared / "served" / "copy").rename(shared / "served" / "kfusion")

    return once(shared, shared / "served" / "kfusion", make)


@pytest.fixture(scope="session")
def server(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the trained run's model: for the tests of the server and of its page, which leave it as it is."""
    flags = ("--label", "stable=1", "--max-body-mib", "4", "--max-batch", "20")
    with serve(served_model, tmp_path_factory.mktemp("server") / "log.txt", *flags) as running:
        yield running


@pytest.fixture(scope="session")
def evaluated(trained_run: Path, shared: Path) -> Path:
    """A copy of the trained run, evaluated by the command; `evaluated.txt` beside it is what that said."""

    def make() -> None:
        shutil.copytree(trained_run, shared / "evaluated")
        done = run_verb("kfusion.evaluate", "evaluated", "--grid-rows", 40, cwd=shared)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        (shared / "evaluated.txt").write_text(done.stdout)

    return once(shared, shared / "evaluated.txt", make).with_suffix("")


@pytest.fixture(scope="session")
def bare(trained_run: Path, shared: Path) -> Path:
    """A copy of the small run of which only the training is known."""
    folder = shared / "small <run> & more"
    return once(shared, folder, lambda: shutil.copytree(trained_run, folder))


@pytest.fixture(scope="session")
def embedded(evaluated: Path, shared: Path) -> Path:
    """A copy of the evaluated run, embedded by the command; `embedded.txt` beside it is what that said."""

    def make() -> None:
        shutil.copytree(evaluated, shared / "embedded")
        done = in_process("kfusion.embed", "embedded", cwd=shared)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        (shared / "embedded.txt").write_text(done.stdout)

    return once(shared, shared / "embedded.txt", make).with_suffix("")


@pytest.fixture(scope="session")
def whole(embedded: Path, shared: Path) -> Path:
    """A run that has been evaluated and embedded, reported on beside a twin that answers a little differently."""
    folder = shared / "reported" / "whole"

    def make() -> None:
        from kfusion.reporting.page import report

        twin = folder.with_name("twin")
        for copy in (folder, twin):
            shutil.copytree(embedded, copy)
        with np.load(twin / "evaluation/answers.npz") as arrays:
            answers = dict(arrays)
        # The first five test rows are answered wrong: every view names the class after the true one.
        answers["test"] = answers["test"].copy()
        answers["test"][:5] = np.eye(10)[(answers["label"][:5] + 1) % 10][:, None]
        np.savez(twin / "evaluation/answers.npz", **answers)
        report(folder, (twin,))

    once(shared, folder / "report.html", make)
    return folder


@pytest.fixture
def evaluated_copy(evaluated: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.fixture
def whole_copy(whole: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))
