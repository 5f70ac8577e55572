"""Requests to a real exported model in TensorFlow's C++ runtime: what is answered, and what is refused, in which words.

All are asked in one process without Python TensorFlow, good ones between bad ones; had it died, all after would fail.
"""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from kfusion.exporting.runtimes import Request, ask_apart
from kfusion.exporting.samples import bad_arrays, bad_files
from kfusion.exporting.signatures import Endpoints, why_no_files
from kfusion.inference import load_network, predict_views
from kfusion.metrics.classification import temper
from kfusion.modalities import modality
from kfusion.modalities.front_ends import readers_of
from kfusion.prepared_data import load_own
from kfusion.run_dir import open_run, read_temperature

ROWS = 12
SENTENCES = {
    "image: a number": "image must have the shape (batch, 28, 28, 1). Received: ()",
    "image: a row without its batch": "image must have the shape (batch, 28, 28, 1). Received: (28, 28, 1)",
    "image: flat, as in a file": "image must have the shape (batch, 28, 28, 1). Received: (12, 783)",
    "image: one axis too many": "image must have the shape (batch, 28, 28, 1). Received: (1, 12, 28, 28, 1)",
    "image: a last axis too many": "image must have the shape (batch, 28, 28, 1). Received: (12, 28, 28, 1, 1)",
    "image: too narrow": "image must have the shape (batch, 28, 28, 1). Received: (12, 27, 28, 1)",
    "image: too wide": "image must have the shape (batch, 28, 28, 1). Received: (12, 29, 28, 1)",
    "image: other numbers": "double",
    "image: NaN": "image must be finite. Received: NaN or infinity, in row 2",
    "image: infinity": "image must be finite. Received: NaN or infinity, in row 2",
    "image: -infinity": "image must be finite. Received: NaN or infinity, in row 2",
    "image: fewer rows": "image and audio must have the same number of rows. Received: 11 and 12",
    "image: a single row": "image and audio must have the same number of rows. Received: 1 and 12",
    "audio: a number": "audio must have the shape (batch, 507). Received: ()",
    "audio: a row without its batch": "audio must have the shape (batch, 507). Received: (507)",
    "audio: flat, as in a file": "audio must have the shape (batch, 507). Received: (12, 506)",
    "audio: one axis too many": "audio must have the shape (batch, 507). Received: (1, 12, 507)",
    "audio: a last axis too many": "audio must have the shape (batch, 507). Received: (12, 507, 1)",
    "audio: too narrow": "audio must have the shape (batch, 507). Received: (12, 506)",
    "audio: too wide": "audio must have the shape (batch, 507). Received: (12, 508)",
    "audio: other numbers": "double",
    "audio: NaN": "audio must be finite. Received: NaN or infinity, in row 2",
    "audio: infinity": "audio must be finite. Received: NaN or infinity, in row 2",
    "audio: -infinity": "audio must be finite. Received: NaN or infinity, in row 2",
    "audio: an absurd number": "audio must be within -720000 and 720000. Received: 3e+38, in row 2",
    "audio: an absurd number below 0": "audio must be within -720000 and 720000. Received: -3e+38, in row 2",
    "audio: fewer rows": "image and audio must have the same number of rows. Received: 12 and 11",
    "audio: a single row": "image and audio must have the same number of rows. Received: 12 and 1",
    "image: 0 to 255": "image must be in [0, 1]. Received: values outside; divide 0-255 by 255, in row 0",
    "image: below 0": "image must be in [0, 1]. Received: values outside; divide 0-255 by 255, in row 2",
    "no rows": "image and audio must have one row or more. Received: 0",
    "two empty strings": "image_bytes or audio_bytes must hold a file. Received: two empty strings, in row 2",
    "a truncated PNG": "image_bytes, row 2: must be complete",
    "a damaged PNG": "image_bytes, row 2: ",
    "a text as a picture": "image_bytes, row 2: must be a PNG, JPEG, GIF, BMP or WebP file",
    "a PNG header of 20000 x 20000": "Found: 20000 x 20000",
    "a text as a sound": "audio_bytes, row 2: must be a WAV file",
    "a WAV with a wrong header": "audio_bytes, row 2: must be a WAV file",
    "a WAV cut off": "audio_bytes, row 2: ",
    "a WAV of an unknown coding": "audio_bytes, row 2: must be PCM of 8 to 32 bits, float of 32 or 64, A-law",
    "a WAV of no samples": "audio_bytes, row 2: must hold at least one sample",
    "a silent WAV": "audio_bytes, row 2: must hold a sound that stands out from silence. Found: silence",
    "ten minutes of silence": "audio_bytes, row 2: must last up to 60 seconds. Found: 600 seconds",
    "fewer sounds": "image_bytes and audio_bytes must have the same number of rows. Received: 3 and 2",
    "a picture without its batch": "image_bytes must have the shape (batch,). Received: ()",
    "sounds of two axes": "audio_bytes must have the shape (batch,). Received: (3, 1)",
    "numbers as pictures": "float",
    "no files at all": "image_bytes and audio_bytes must have one row or more. Received: 0",
    "one output of flat rows": "image must have the shape (batch, 28, 28, 1). Received: (12, 784)",
    "one output of NaN": "image must be finite. Received: NaN or infinity, in row 0",
}


class Asked:
    """The pairs behind the requests, and the replies, by what the request is called."""

    def __init__(self, run, model) -> None:
        self.run, self.spec = run, run.spec()
        self.pairs = load_own(run)[1].test
        self.pixels, self.audio = self.pairs.read(np.arange(ROWS)).values()
        self.image = self.pixels / np.float32(255)
        files = {"image": self.pixels, "audio": self.audio}
        self.png, self.wav = (
            np.array([modality(name).sample_file(row, self.spec[name], 7) for row in values], object)
            for name, values in files.items()
        )
        self.requests = {**self.good(), **self.bad()}
        self.session = ask_apart(model, list(self.requests.values()))
        self.replies = dict(zip(self.requests, self.session.replies, strict=False))

    def both(self, image=None, audio=None, outputs=()) -> Request:
        given = {"image": self.image if image is None else image, "audio": self.audio if audio is None else audio}
        return Request("serving_default", given, outputs)

    def files(self, png=None, wav=None, last_png=None, last_wav=None) -> Request:
        png, wav = (self.png if png is None else png).copy(), (self.wav if wav is None else wav).copy()
        if last_png is not None:
            png[-1] = last_png
        if last_wav is not None:
            wav[-1] = last_wav
        return Request("raw_bytes", {"image_bytes": png, "audio_bytes": wav})

    def good(self) -> dict[str, Request]:
        nothing, loud = np.array([b""] * ROWS, object), self.audio.copy()
        loud[5, 100] = 1000 * np.abs(loud).max()
        return {
            "both": self.both(),
            "image": Request("image_only", {"image": self.image}),
            "audio": Request("audio_only", {"audio": self.audio}),
            "files": self.files(),
            "pictures": self.files(wav=nothing),
            "sounds": self.files(png=nothing),
            "one output": self.both(outputs=("label",)),
            "loud": self.both(audio=loud),
        }

    def bad(self) -> dict[str, Request]:
        """Those that every export is tried with, and a few more."""
        arrays = bad_arrays("serving_default", {"image": self.image, "audio": self.audio}, self.spec)
        files = {"image_bytes": self.png[-3:], "audio_bytes": self.wav[-3:]}
        listed = [*arrays, *bad_files("raw_bytes", files, self.spec)]
        flat = self.image.reshape(ROWS, -1)
        return {each.title: each.request for each in listed} | {
            "one output of flat rows": self.both(image=flat, outputs=("label",)),
            "one output of NaN": self.both(image=self.image * np.nan, outputs=("class_name",)),
            "again": self.both(),
            "files again": self.files(),
        }


@pytest.fixture(scope="module")
def asked(exported_model, trained_run) -> Asked:
    return Asked(open_run(trained_run), exported_model)


def test_the_process_outlives_every_request_and_imports_no_python_tensorflow(asked):
    assert asked.session.end == ""
    assert len(asked.replies) == len(asked.requests) > 35
    assert not any(name.partition(".")[0] in ("tensorflow", "keras") for name in asked.session.modules)
    assert "kfusion.runtime.c_api" in asked.session.modules


@pytest.mark.parametrize(("title", "sentence"), SENTENCES.items(), ids=SENTENCES)
def test_a_bad_request_is_refused_with_a_sentence(title, sentence, asked):
    reply = asked.replies[title]
    assert (reply.code, reply.outputs) == ("INVALID_ARGUMENT", {})
    assert sentence in reply.text


def test_every_bad_request_has_its_sentence(asked):
    assert set(asked.bad()) - set(SENTENCES) == {"again", "files again"}


def test_answers_are_those_of_the_network_in_each_view(asked):
    views = predict_views(load_network(asked.run), asked.pairs)
    both = asked.replies["both"].outputs
    np.testing.assert_allclose(both["probabilities"], views["fused"][:ROWS], atol=1e-5)
    for name in ("image", "audio"):
        np.testing.assert_allclose(both[f"{name}_probabilities"], views[name][:ROWS], atol=1e-5)
        np.testing.assert_allclose(asked.replies[name].outputs["probabilities"], views[name][:ROWS], atol=1e-5)
    assert both["label"].tolist() == views["fused"][:ROWS].argmax(axis=1).tolist()
    assert both["class_name"].tolist() == [str(label).encode() for label in both["label"]]
    for name in ("image", "audio"):
        classes = both[f"{name}_probabilities"].argmax(axis=1)
        assert both[f"{name}_class_name"].tolist() == [str(each).encode() for each in classes]
        assert set(asked.replies[name].outputs[f"{'audio' if name == 'image' else 'image'}_class_name"]) == {b""}
    assert both["embedding"].shape == (ROWS, 256) and both["present"].all()


def test_the_absent_modality_is_marked_and_has_no_probabilities(asked):
    for title, there, absent in (("image", 0, "audio"), ("pictures", 0, "audio"), ("sounds", 1, "image")):
        outputs = asked.replies[title].outputs
        assert outputs["present"].tolist() == [[there == 0, there == 1]] * ROWS
        assert not outputs[f"{absent}_probabilities"].any()
        np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)


def test_an_mnist_picture_as_a_file_is_answered_as_its_pixels(asked):
    said = asked.replies["pictures"].outputs["probabilities"]
    np.testing.assert_allclose(said, asked.replies["image"].outputs["probabilities"], atol=1e-5)


def test_sounds_made_anew_from_their_features_are_heard_as_their_class(asked):
    right = asked.replies["sounds"].outputs["label"] == asked.pairs.label[:ROWS]
    assert right.mean() >= 0.75


@pytest.mark.parametrize(("title", "again"), [("both", "again"), ("files", "files again")])
def test_a_good_request_after_bad_ones_is_answered_as_before(title, again, asked):
    for name, values in asked.replies[title].outputs.items():
        assert np.array_equal(values, asked.replies[again].outputs[name]), name


def test_what_is_only_far_louder_than_in_training_is_answered(asked):
    assert np.isfinite(asked.replies["loud"].outputs["probabilities"]).all()


def test_one_output_may_be_asked_alone(asked):
    assert list(asked.replies["one output"].outputs) == ["label"]


def test_temperatures_change_probabilities_by_their_formula_and_no_label(asked):
    network = load_network(asked.run)
    warm = {"fused": 1.7, "image": 0.5, "audio": 3.0}
    inputs = {"image": tf.constant(asked.image), "audio": tf.constant(asked.audio)}
    plain = Endpoints(network, asked.spec, {}, {}).predict("serving_default", inputs)
    tempered = Endpoints(network, asked.spec, warm, {}).predict("serving_default", inputs)
    for output, view in (
        ("probabilities", "fused"),
        ("image_probabilities", "image"),
        ("audio_probabilities", "audio"),
    ):
        np.testing.assert_allclose(tempered[output], temper(plain[output], warm[view]), atol=1e-6)
    assert np.array_equal(plain["label"], tempered["label"])


@pytest.mark.parametrize("content", ['{"temperature": {"fused": 1}}', "[]", '{"temperature": {"fused": 0}}', "{"])
def test_a_damaged_calibration_is_one_line(content, tmp_path, trained_run):
    run = open_run(trained_run)
    shutil.copy(trained_run / "data.json", tmp_path)
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(ValueError, match=r"calibration\.json: "):
        read_temperature(type(run)(tmp_path))


def test_a_front_end_that_is_not_known_leaves_files_out_and_says_why(trained_run):
    run = open_run(trained_run)
    spec, source = run.spec(), run.data()["source"]
    readers, reasons = readers_of(spec, source)
    assert set(readers) == {"image", "audio"} and why_no_files(spec, reasons) == ""
    readers, reasons = readers_of(spec, {**source, "front_end": None})
    assert set(readers) == {"image"}
    assert why_no_files(spec, reasons) == "the front end of its training sounds is not known"
    _, reasons = readers_of(spec, {**source, "front_end": "another"})
    assert "(another)" in why_no_files(spec, reasons)
    # One of its own goes before that of the last modality.
    assert set(readers_of(spec, {"front_end": None, "audio_front_end": source["front_end"]})[0]) == {"image", "audio"}
