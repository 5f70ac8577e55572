"""The name of what a front end does: it changes with the code and the constants, and with nothing else."""

import importlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from kfusion.modalities import front_ends as module
from kfusion.modalities import modality
from kfusion.modalities.audio import Audio
from kfusion.modalities.front_ends import file_reader, fingerprint, fingerprints
from kfusion.spec import image_spec
from tests.media import digit_images, encoded

TOP = '''
"""A front end."""
from made_for_tests.inner import Part, SCALE, helper

def read(values, times=2):
    """Reads."""
    return helper(values) * times + Part(1, 2).total  # A comment.

def another():
    return 3
'''
INNER = """
from functools import lru_cache
from typing import NamedTuple

SCALE, KNOWN, UNUSED = 3.0, frozenset({"a", "b"}), 7

class Part(NamedTuple):
    one: int
    two: int

    @property
    def total(self):
        return self.one + self.two

def half(value):
    return value / 2

WAYS = {"half": [half]}

def helper(values):
    def inside(value):
        return value * SCALE if value in KNOWN else table() + WAYS["half"][0](value)
    return inside(values)

@lru_cache
def table():
    return 4
"""


@pytest.fixture
def name_of(tmp_path, monkeypatch):
    """Writes the two files, changed, as a package; gives the fingerprint of its `read`."""
    monkeypatch.setattr(module, "_PACKAGE", "made_for_tests.")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def made(old: str = "", new: str = "") -> str:
        (tmp_path / "made_for_tests").mkdir(exist_ok=True)
        for name, text in (("__init__", ""), ("top", TOP), ("inner", INNER)):
            (tmp_path / "made_for_tests" / f"{name}.py").write_text(text.replace(old, new) if old else text)
        for name in [name for name in sys.modules if name.startswith("made_for_tests")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return fingerprint(importlib.import_module("made_for_tests.top").read)

    return made


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("times=2", "times=3"),
        ("* times", "+ times"),
        ("SCALE, KNOWN, UNUSED = 3.0", "SCALE, KNOWN, UNUSED = 3.5"),
        ('"a", "b"', '"a", "c"'),
        ("one + self.two", "one - self.two"),
        ("value * SCALE", "value / SCALE"),
        ("return 4", "return 5"),
        ("value / 2", "value / 3"),
    ],
)
def test_any_change_of_what_is_done_gives_another_name(name_of, old, new):
    assert name_of() != name_of(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # A comment.", ""),
        ('"""Reads."""', '"""Reads it."""'),
        ("UNUSED = 3.0, ", "UNUSED = 3.0,  "),
        ('"b"}), 7', '"b"}), 8'),
        ("return 3", "return 30"),
    ],
)
def test_what_changes_nothing_leaves_the_name(name_of, old, new):
    assert name_of() == name_of(old, new)


def test_front_ends_of_pictures_and_sounds_have_names_that_last():
    assert fingerprints() == fingerprints()
    assert fingerprints()["sounds"] == fingerprint(Audio().reader()) != fingerprints()["images"]
    pictures = module._used(modality("image").raw_reader())
    assert not [name for name, meaning in pictures.items() if " at 0x" in meaning]  # Another in each process.
    assert "kfusion.modalities.image.formats._decode_webp" in pictures
    parts = module._used(Audio().reader())
    assert {
        "kfusion.modalities.audio.word.SPEECH",
        "kfusion.modalities.audio.recipe.SoundRecipe",
        "kfusion.modalities.audio.features.mel_bands",
        "kfusion.modalities.audio.decoding.Header",
    } <= parts.keys()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_graph_is_kept_for_the_next_process_and_traced_anew_where_it_is_damaged(damaged, tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path))
    spec, files = image_spec((5, 7, 3)), tf.constant([encoded(digit_images()[0][0]), b"", b"no picture"])
    module._kept.cache_clear()
    first = [result.numpy() for result in file_reader(spec)(files)]
    (kept,) = tmp_path.glob("*.graph")
    if damaged:
        kept.write_bytes(kept.read_bytes()[:-9])
    trace, traced = module._traced, []
    monkeypatch.setattr(module, "_traced", lambda *of: traced.append(of) or trace(*of))
    module._kept.cache_clear()
    values, reasons = file_reader(spec)(files)
    module._kept.cache_clear()
    np.testing.assert_array_equal(values, first[0])
    assert reasons.numpy().tolist() == first[1].tolist() and bool(traced) == damaged
