"""kfusion from outside: what `import kfusion` offers, and the command `kfusion`."""

import json
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from rich.console import Console

import kfusion
from kfusion import __main__ as command
from kfusion.io import is_live, progress
from tests.exports import views
from tests.inputs import digits
from tests.processes import ROOT, environment

HEAVY = ("tensorflow", "keras", "sklearn", "pandas", "numpy", "rich")


def python(program: str, *words: object) -> str:
    """What a program prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_kfusion_loads_nothing_and_takes_no_time():
    program = (
        "import sys, time; start = time.perf_counter(); import kfusion; took = time.perf_counter() - start;"
        f"print(took, [name for name in {HEAVY} if name in sys.modules])"
    )
    took, loaded = python(program).split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(took) < 0.1


def test_every_public_name_is_there_and_listed():
    assert set(kfusion.__all__) <= set(dir(kfusion))
    for name in kfusion.__all__:
        assert getattr(kfusion, name) is not None
    assert {name for names in kfusion._HOMES.values() for name in names} == set(kfusion.__all__)
    with pytest.raises(AttributeError, match="module 'kfusion' has no attribute 'Fusion'"):
        kfusion.Fusion  # noqa: B018


def test_the_package_is_typed():
    assert (Path(kfusion.__file__).parent / "py.typed").is_file()


def test_layers_and_heads_can_be_used_in_somebodys_own_model():
    image, sound = keras.Input((8, 8, 1)), keras.Input((12,))
    present = keras.Input((2,), dtype="bool")
    spec = kfusion.Spec.pair(image_shape=(8, 8, 1), audio_grid=(4, 3), class_names=("a", "b"))
    config = kfusion.ModelConfig(embed_dim=4, hidden_dim=4, filters=(2,), audio_units=(3,))
    normed = kfusion.UtteranceNorm((4, 3), trim=0.3)(sound)
    embedded = [
        kfusion.encode_image(image, config, spec),
        kfusion.encode_audio(normed, config, np.zeros(12), np.ones(12)),
    ]
    named = kfusion.HEADS["late"](keras.ops.stack(embedded, axis=1), present, config, spec)
    model = keras.Model([image, sound, present], named)
    model.compile(keras.optimizers.Adam(kfusion.WarmupCosine(1e-3, 1, 2)), "sparse_categorical_crossentropy")
    rows = [np.ones((3, 8, 8, 1), np.float32), np.ones((3, 12), np.float32), np.ones((3, 2), bool)]
    np.testing.assert_allclose(np.asarray(model(rows)).sum(axis=1), 1, atol=1e-6)


def test_the_command_lists_all_commands_without_tensorflow():
    program = (
        "import sys; from kfusion import __main__ as m; sys.argv = ['kfusion', '--help']; m.main();"
        "assert not {'tensorflow', 'keras', 'tyro'} & set(sys.modules)"
    )
    shown = python(program)
    for name in ("train", "evaluate", "embed", "report", "predict", "explain", "export", "serve", "client", "tune"):
        assert f"\n  {name} " in shown
    assert "Train a fusion model: pairs in, run folder out." in shown
    verbs = {path.stem for path in (ROOT / "kfusion").glob("*.py") if "\n    run_main(main" in path.read_text("utf-8")}
    assert verbs | {"client", "tune"} == set(command.COMMANDS)


def call(monkeypatch, words):
    """As a new process finds things: none of the commands has been imported."""
    monkeypatch.setattr(sys, "argv", ["kfusion", *words])
    for module in command.COMMANDS.values():
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("trian",), 2, "kfusion: 'COMMAND' must be one of train, evaluate, "),
        (("trian",), 2, "did you mean train?"),
        (("train", "--epohcs", "3"), 2, "(see kfusion train --help)"),
        (("tune", "--nothing"), 2, "(see kfusion tune --help)"),
    ],
)
def test_a_wrong_word_is_one_line(words, status, sentence, monkeypatch, capsys):
    call(monkeypatch, words)
    with pytest.raises(SystemExit) as end:
        command.main()
    said = capsys.readouterr().err
    assert end.value.code == status
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [("train", "--help"), ("client", "--help")])
def test_the_help_of_a_command_names_it_as_it_was_called(words, monkeypatch, capsys):
    call(monkeypatch, words)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code in (0, None)
    assert f"usage: kfusion {words[0]} [-h]" in capsys.readouterr().out


def test_an_exported_version_answers_without_pythons_tensorflow(exported_model, trained_run, tmp_path):
    images, sounds = digits(5)
    np.savez(tmp_path / "rows.npz", images=images, sounds=sounds)
    program = (
        "import json, sys, numpy as np; from kfusion import load; clf = load(sys.argv[1]);"
        "rows = np.load(sys.argv[2]); X = {'image': rows['images'], 'audio': rows['sounds']};"
        "table = clf.explain_decision(X); alone = clf.predict({'image': rows['images']}).tolist();"
        "print(json.dumps([clf.classes_.tolist(), clf.predict(X).tolist(), clf.predict_proba(X).tolist(), alone,"
        " clf.score(X, clf.predict(X)), list(table), repr(clf)]));"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    # The model's folder will do: its newest version is taken.
    classes, named, probabilities, alone, score, columns, shown = json.loads(
        python(program, exported_model.parent, tmp_path / "rows.npz")
    )
    expected = views(trained_run, images, sounds)
    assert classes == list(range(10))
    assert named == expected["fused"].argmax(axis=1).tolist()
    assert alone == expected["image"].argmax(axis=1).tolist()
    np.testing.assert_allclose(probabilities, expected["fused"], atol=1e-5)
    assert score == 1.0
    assert columns[0] == "label" and columns[-1] == "audio_share"
    assert shown.startswith("ExportedClassifier(")


class Widget:
    """What a notebook's widget does with what is printed within it."""

    made = 0

    def __init__(self) -> None:
        Widget.made += 1

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def clear_output(self, wait: bool = False) -> None: ...

    def close(self) -> None: ...


def test_bars_move_in_a_terminal_and_in_a_notebook_with_widgets(monkeypatch):
    assert is_live(Console(force_terminal=True))
    assert not is_live(None)
    assert not is_live(Console(force_terminal=False))
    notebook = Console(force_jupyter=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not is_live(notebook)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    shown: list[object] = []
    display = types.SimpleNamespace(display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", types.SimpleNamespace(Output=Widget))
    with progress(notebook, "working", 3) as advance:
        advance(3)
    assert Widget.made == 1
