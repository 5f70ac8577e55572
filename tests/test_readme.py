"""What the READMEs tell people to type exists: commands, flags, links, pictures, and TensorFlow Serving's settings."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ROOT, environment, in_process
from tests.servers import serve

READMES = [ROOT / place / "README.md" for place in ("", "kfusion", "tuning", "saved_models", "tests/benchmarks")]
TEXTS = {path: path.read_text(encoding="utf-8") for path in READMES}
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)]
COMMAND = re.compile(r"python -m ((?:kfusion|tuning)\.[\w.]+)([^\n#|]*)")


def commands() -> dict[str, set[str]]:
    """The modules that the README runs, and the flags that it gives to each."""
    found: dict[str, set[str]] = {}
    for kind, text in BLOCKS:
        if kind == "sh":
            for module, words in COMMAND.findall(text.replace("\\\n", " ")):
                found.setdefault(module, set()).update(re.findall(r"(?<!\S)--[\w-]+", words))
    return found


def test_every_verb_is_shown():
    verbs = {
        f"kfusion.{path.stem}" for path in (ROOT / "kfusion").glob("*.py") if "\n    run_main(main" in path.read_text()
    }
    assert verbs | {"kfusion.client", "tuning.search"} == set(commands())


@pytest.mark.parametrize(("module", "flags"), sorted(commands().items()))
def test_the_flags_shown_are_in_the_help(module, flags):
    done = in_process(module, "--help")
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--[\w-]+", done.stdout))
    assert flags <= known | {"--help"}, flags - known


def test_the_models_config_is_one_that_tensorflow_serving_reads():
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    text = next(text for _, text in BLOCKS if "model_config_list" in text)
    served = text_format.Parse(text.partition("# saved_models/batching")[0], config.ModelServerConfig())
    model = served.model_config_list.config[0]
    assert model.name == "kfusion" and model.base_path == "/models/kfusion"
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def test_links_lead_to_files_and_every_picture_is_shown():
    linked = {
        (path.parent / target).resolve()
        for path, text in TEXTS.items()
        for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'<img src="([^"]+)" alt=', text)
        if "://" not in target
    }
    assert {path for path in linked if not path.exists()} == set()
    assert {path for path in linked if path.parent.name == ".pictures"} == set((ROOT / ".pictures").iterdir())


def test_the_readme_is_short_enough_to_be_read():
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 220


@pytest.mark.slow
@pytest.mark.parametrize("block", [text for kind, text in BLOCKS if kind == "python"])
def test_the_python_shown_runs(block, trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run, "runs/robust-1")
    write_files(tmp_path)
    images, audio, label = digits(120)
    exec(compile(block, "README.md", "exec"), {"X": images, "A": audio, "y": label})
    assert Path("report.html").is_file() and Path("saved_models/digits/1/saved_model.pb").is_file()


SHORTER = {
    "kfusion.train": ("--epochs", "1", "--limit", "300", "--filters", "8", "16", "--precision", "float32"),
    "tuning.search": ("--epochs", "1", "--limit", "300", "--trials", "2"),
    "kfusion.evaluate": ("--grid-rows", "60"),
    "kfusion.embed": ("--samples", "200"),
}
"""What is added to the commands shown, so that they take seconds; of a flag that is there twice the last one counts."""
ELSEWHERE = re.compile(r"KERASTUNER|/shared/|docker|--engine ray")
"""What needs other machines, or has a slow test of its own."""


def shown(path: Path) -> list[list[str]]:
    """The commands of kfusion that a README shows, in their order, word by word."""
    texts = re.findall(r"^```sh\n(.*?)^```", TEXTS[path], re.M | re.S)
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines() if not ELSEWHERE.search(line)]
    return [[module, *words.split()] for line in lines for module, words in COMMAND.findall(line)]


def digits(num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the built-in digits, paired by class."""
    from kfusion.data.loaders import load_builtin

    source = load_builtin()
    image, audio = source["image"], source["audio"]
    label = np.arange(num_rows) % 10
    chosen = []
    for each in (image, audio):
        of_class = [np.flatnonzero(each.label == one) for one in range(10)]
        chosen.append(np.array([of_class[one][row // 10] for row, one in enumerate(label)]))
    return image.values[chosen[0]], audio.values[chosen[1]], label


def write_files(folder: Path) -> None:
    """The files that the READMEs speak of: two digits as pictures and a sound, and data in kfusion's own layout."""
    from kfusion.modalities import modality
    from kfusion.spec import Spec

    images, audio, label = digits(200)
    spec = Spec()
    for name, row in (("a", 0), ("b", 1), ("3", 3)):
        (folder / f"{name}.png").write_bytes(modality("image").sample_file(images[row, ..., None], spec["image"]))
    for name, row in (("a", 0), ("three", 3)):
        (folder / f"{name}.wav").write_bytes(modality("audio").sample_file(audio[row], spec["audio"]))
    for name, rows in (("my_data", slice(0, 100)), ("other_data", slice(100, 200))):
        (folder / name).mkdir()
        np.save(folder / name / "images.npy", images[rows])
        np.save(folder / name / "audio.npy", audio[rows])
        np.save(folder / name / "labels.npy", label[rows])
    (folder / "rows.csv").write_text("image,audio\na.png,a.wav\nb.png,\n")


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in READMES if shown(path)], ids=lambda path: path.parent.name)
def test_the_commands_shown_run(path, trained_run, exported_model, tmp_path):
    """One after the other in one folder, as a reader would type them; kfusion.serve in the background."""
    write_files(tmp_path)
    shutil.copytree(exported_model, tmp_path / "saved_models" / "kfusion" / "1")
    if path != ROOT / "README.md":
        shutil.copytree(trained_run, tmp_path / "runs" / "robust-1")
    server, address = None, ""
    try:
        for module, *words in shown(path):
            if module == "kfusion.serve" and "--help" not in words:
                server = serve(tmp_path / words[0], tmp_path / "server.txt")
                address = server.__enter__().url
                continue
            if module == "kfusion.client":
                words += ["--url", address]
            if "--resume" not in words:
                for old in tmp_path.glob("predictions*"):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            extra = () if "--help" in words else SHORTER.get(module, ())
            done = subprocess.run(
                [sys.executable, "-m", module, *words, *extra],
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, f"{module} {' '.join(words)}: {done.stdout[-500:]}{done.stderr}"
    finally:
        if server:
            server.__exit__(None, None, None)
