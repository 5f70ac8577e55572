"""Requests to a real exported model in TensorFlow's C++ runtime: what is answered, and what is refused, in which words.

All are asked in one process without Python TensorFlow, good ones between bad ones; had it died, all after would fail.
"""

import numpy as np
import pytest
import tensorflow as tf

from kfusion.analysis.calibration import temper
from kfusion.exporting.exporter import held_out_pairs
from kfusion.exporting.files import picture_file, png_file, sound_file, wav_file
from kfusion.exporting.front_end import front_end_of
from kfusion.exporting.prove import Request, ask_apart
from kfusion.exporting.signatures import Endpoints
from kfusion.predictor import load_network, predict_views
from kfusion.run import open_run
from kfusion.spec import Spec
from kfusion.temperature import read_temperature

ROWS = 12


class Asked:
    """The pairs behind the requests, and the replies, by what the request is called."""

    def __init__(self, run, model) -> None:
        self.run, self.spec = run, run.spec()
        self.pairs = held_out_pairs(run)
        self.pixels, self.audio = self.pairs.read(np.arange(ROWS))
        self.image = self.pixels / np.float32(255)
        self.png = np.array([picture_file(each, self.spec) for each in self.pixels], object)
        self.wav = np.array([sound_file(each, self.spec, 7) for each in self.audio], object)
        self.requests = {**self.good(), **self.bad_arrays(), **self.bad_files()}
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
        nothing = np.array([b""] * ROWS, object)
        return {
            "both": self.both(),
            "image": Request("image_only", {"image": self.image}),
            "audio": Request("audio_only", {"audio": self.audio}),
            "files": self.files(),
            "pictures": self.files(wav=nothing),
            "sounds": self.files(png=nothing),
            "one output": self.both(outputs=("label",)),
        }

    def bad_arrays(self) -> dict[str, Request]:
        image, audio = self.image, self.audio
        nan, inf, high, low = image.copy(), audio.copy(), image.copy(), image.copy()
        absurd, loud = audio.copy(), audio.copy()
        absurd[5, 100], loud[5, 100] = -3e38, 1000 * np.abs(audio).max()
        nan[4, 3, 2, 0], inf[5, 100], high[6, 9, 9, 0], low[7, 0, 0, 0] = np.nan, -np.inf, 1.001, -0.001
        return {
            "rank 0": self.both(image=np.float32(0.5)),
            "rank 2": self.both(image=image.reshape(ROWS, -1)),
            "rank 3": self.both(image=image[..., 0]),
            "rank 5": self.both(image=image[None]),
            "rank 2, one output": self.both(image=image.reshape(ROWS, -1), outputs=("label",)),
            "narrow image": self.both(image=image[:, :, :27]),
            "colour image": self.both(image=np.repeat(image, 3, axis=3)),
            "narrow audio": self.both(audio=audio[:, :506]),
            "audio as frames": self.both(audio=audio.reshape(ROWS, 39, 13)),
            "unequal": self.both(audio=audio[:5]),
            "one sound for all": self.both(audio=audio[:1]),
            "empty": self.both(image=image[:0], audio=audio[:0]),
            "nan": self.both(image=nan),
            "all nan": self.both(image=image * np.nan, outputs=("class_name",)),
            "infinite": self.both(audio=inf),
            "absurd": self.both(audio=absurd),
            "absurd alone": Request("audio_only", {"audio": absurd}),
            "loud": self.both(audio=loud),
            "bright": self.both(image=high),
            "dark": self.both(image=low),
            "0 to 255": Request("image_only", {"image": self.pixels}),
            "float64": self.both(image=image.astype(np.float64)),
            "again": self.both(),
        }

    def bad_files(self) -> dict[str, Request]:
        png, wav = bytes(self.png[-1]), bytes(self.wav[-1])
        return {
            "two empty": self.files(last_png=b"", last_wav=b""),
            "truncated": self.files(last_png=png[:-20]),
            "text picture": self.files(last_png=b"hello"),
            "text sound": self.files(last_wav=b"hello"),
            "huge": self.files(last_png=png_file((20000, 20000, 8, 0, 0, 0, 0), b"")),
            "wrong header": self.files(last_wav=b"FIRE" + wav[4:]),
            "24 bit": self.files(last_wav=wav_file(bytes(3000), 3)),
            "no samples": self.files(last_wav=wav_file(b"")),
            "ten minutes": self.files(last_wav=wav_file(bytes(600 * 8000), 1)),
            "unequal files": self.files(wav=self.wav[:3]),
            "one picture": self.files(png=np.array(png, object)),
            "no files": self.files(png=self.png[:0], wav=self.wav[:0]),
            "files again": self.files(),
        }


@pytest.fixture(scope="module")
def asked(exported_model, trained_run) -> Asked:
    return Asked(open_run(trained_run), exported_model)


def test_the_process_outlives_every_request_and_imports_no_python_tensorflow(asked):
    assert asked.session.end == ""
    assert len(asked.replies) == len(asked.requests) > 35
    assert not any(name.partition(".")[0] in ("tensorflow", "keras") for name in asked.session.modules)
    assert "kfusion.runtime.model" in asked.session.modules


@pytest.mark.parametrize(
    ("title", "sentence"),
    [
        ("rank 0", "image must have the shape (batch, 28, 28, 1). Received: ()"),
        ("rank 2", "image must have the shape (batch, 28, 28, 1). Received: (12, 784)"),
        ("rank 3", "image must have the shape (batch, 28, 28, 1). Received: (12, 28, 28)"),
        ("rank 5", "image must have the shape (batch, 28, 28, 1). Received: (1, 12, 28, 28, 1)"),
        ("rank 2, one output", "image must have the shape (batch, 28, 28, 1). Received: (12, 784)"),
        ("narrow image", "image must have the shape (batch, 28, 28, 1). Received: (12, 28, 27, 1)"),
        ("colour image", "image must have the shape (batch, 28, 28, 1). Received: (12, 28, 28, 3)"),
        ("narrow audio", "audio must have the shape (batch, 507). Received: (12, 506)"),
        ("audio as frames", "audio must have the shape (batch, 507). Received: (12, 39, 13)"),
        ("unequal", "image and audio must have the same number of rows. Received: 12 and 5"),
        ("one sound for all", "image and audio must have the same number of rows. Received: 12 and 1"),
        ("empty", "image and audio must have one row or more. Received: 0"),
        ("nan", "image must be finite. Received: NaN or infinity, in row 4"),
        ("all nan", "image must be finite. Received: NaN or infinity, in row 0"),
        ("infinite", "audio must be finite. Received: NaN or infinity, in row 5"),
        ("absurd", "audio must be within -720000 and 720000. Received: -3e+38, in row 5"),
        ("absurd alone", "audio must be within -720000 and 720000. Received: -3e+38, in row 5"),
        ("bright", "image must be in [0, 1]. Received: values outside; divide 0-255 by 255, in row 6"),
        ("dark", "image must be in [0, 1]. Received: values outside; divide 0-255 by 255, in row 7"),
        ("0 to 255", "image must be in [0, 1]. Received: values outside; divide 0-255 by 255, in row 0"),
        ("float64", "double"),
        ("two empty", "image_bytes or audio_bytes must hold a file. Received: two empty strings, in row 11"),
        ("truncated", "image_bytes, row 11: must be complete"),
        ("text picture", "image_bytes, row 11: must be a PNG or JPEG file"),
        ("text sound", "audio_bytes, row 11: must be a WAV file"),
        ("huge", "Found: 20000 x 20000"),
        ("wrong header", "audio_bytes, row 11: must be a WAV file"),
        ("24 bit", "audio_bytes, row 11: must be 8 or 16 bit PCM. Found: 24 bit"),
        ("no samples", "audio_bytes, row 11: must hold at least one sample"),
        ("ten minutes", "audio_bytes, row 11: must last up to 60 seconds. Found: 600 seconds"),
        ("unequal files", "image_bytes and audio_bytes must have the same number of rows. Received: 12 and 3"),
        ("one picture", "image_bytes must have the shape (batch,). Received: ()"),
        ("no files", "image_bytes and audio_bytes must have one row or more. Received: 0"),
    ],
)
def test_a_bad_request_is_refused_with_a_sentence(title, sentence, asked):
    reply = asked.replies[title]
    assert (reply.code, reply.outputs) == ("INVALID_ARGUMENT", {})
    assert sentence in reply.text


def test_answers_are_those_of_the_network_in_each_view(asked):
    views = predict_views(load_network(asked.run), asked.pairs)
    both = asked.replies["both"].outputs
    np.testing.assert_allclose(both["probabilities"], views["fused"][:ROWS], atol=1e-5)
    for name in ("image", "audio"):
        np.testing.assert_allclose(both[f"{name}_probabilities"], views[name][:ROWS], atol=1e-5)
        np.testing.assert_allclose(asked.replies[name].outputs["probabilities"], views[name][:ROWS], atol=1e-5)
    assert both["label"].tolist() == views["fused"][:ROWS].argmax(axis=1).tolist()
    assert both["class_name"].tolist() == [str(label).encode() for label in both["label"]]
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
    given = tf.constant(asked.image), tf.constant(asked.audio)
    plain = Endpoints(network, asked.spec, {}, {}).serving_default(*given)
    tempered = Endpoints(network, asked.spec, warm, {}).serving_default(*given)
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
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(ValueError, match=r"calibration\.json: "):
        read_temperature(type(run)(tmp_path))


def test_a_front_end_that_is_not_known_leaves_files_out_and_says_why(trained_run):
    class Unknown(type(open_run(trained_run))):
        front_end: str | None = None

        def data(self):
            facts = super().data()
            return {**facts, "source": {**facts["source"], "front_end": self.front_end}}

    assert front_end_of(Unknown(trained_run)) == ({}, "how sounds became this data's features is not known")
    Unknown.front_end = "another"
    readers, why = front_end_of(Unknown(trained_run))
    assert readers == {} and "'another'" in why
    assert set(front_end_of(open_run(trained_run))[0]) == {"image", "audio"}
    assert isinstance(open_run(trained_run).spec(), Spec)
