"""What C++ libraries write to standard error is held back while files are decoded, and comes when something fails."""

import os
import threading

import numpy as np
import pytest
import tensorflow as tf

from kfusion.cli import quiet
from kfusion.data.media_features import FrontEnd, features
from kfusion.modalities.front_ends import file_reader
from kfusion.prediction.inputs import Files
from kfusion.prediction.models import RunModel, VersionModel
from kfusion.runtime.c_api import Refused
from kfusion.spec import Spec, image_spec
from tests.media import encoded


@pytest.fixture(scope="module")
def smeared() -> bytes:
    """A JPEG that ends early: libjpeg says so on standard error, and TensorFlow takes what there is."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = encoded(pixels, "JPEG")
    return whole[: len(whole) // 2] + b"\xff\xd9"


def test_libjpeg_does_say_something(smeared, capfd):
    tf.io.decode_jpeg(smeared)
    assert "Corrupt JPEG data" in capfd.readouterr().err


def test_nothing_of_libjpeg_is_seen_while_files_are_read_for_training(smeared, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "smeared.jpg").write_bytes(smeared)
    front_end = FrontEnd("any", "", file_reader(image_spec((8, 8, 3))), (8, 8, 3), np.uint8)
    assert features([tmp_path / "smeared.jpg"], front_end, None)[0].any()
    assert capfd.readouterr().err == ""


def test_nothing_of_libjpeg_is_seen_while_a_run_or_a_version_reads_files(smeared, capfd):
    run, version = RunModel.__new__(RunModel), VersionModel.__new__(VersionModel)
    run.spec = version.spec = Spec.pair((8, 8, 3))
    assert run._read("image", [smeared, b""])[1] == ["", ""]

    def refused(*_: object) -> None:
        tf.io.decode_jpeg(smeared)
        raise Refused(3, "image_bytes, row 0: no picture")

    version._ask = refused  # type: ignore[method-assign]
    rows = Files({"image": [smeared], "audio": [b""]}, [""])
    version._answer_files(rows, np.arange(1), {})
    assert rows.reason == ["image: no picture"]
    assert capfd.readouterr().err == ""


def test_what_was_held_back_comes_if_the_block_fails(capfd):
    with pytest.raises(KeyError), quiet():
        os.write(2, b"why\n")
        raise KeyError
    assert capfd.readouterr().err == "why\n"
    with quiet():
        os.write(2, b"chatter\n")
    with pytest.raises(KeyError), quiet(even_if_failing=True):
        os.write(2, b"chatter\n")
        raise KeyError
    assert capfd.readouterr().err == ""


def test_threads_that_overlap_leave_standard_error_as_it_was(capfd):
    inside, after = threading.Barrier(2), threading.Barrier(2)

    def first() -> None:
        with quiet():
            inside.wait(10)
        after.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    with quiet():
        inside.wait(10)
        after.wait(10)
        os.write(2, b"chatter\n")
    thread.join()
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"
