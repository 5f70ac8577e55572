"""The client against real servers: REST against kfusion.serve, gRPC against TensorFlow Serving's generated classes."""

import importlib.util
import subprocess

import numpy as np
import pytest

from kfusion.client import Client, Prediction, Rejected, TooLate, print_votes
from kfusion.runtime.c_api import Refused, ServedModel
from kfusion.runtime.protos import fill_tensor, message, read_array
from kfusion.transport import read_inputs
from tests.processes import ROOT, fails, in_process, run_python, run_verb, start_verb
from tests.servers import serve
from tests.tiny_models import export_modalities

RNG = np.random.default_rng(5)
IMAGES = RNG.random((3, 6, 5)).astype(np.float32)
SOUNDS = RNG.normal(size=(3, 26)).astype(np.float32)
SOUND = bytes(range(100, 200))
"""A file, of which the model reads the first bytes; so it does of the file of an image."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model of images and sounds that loads at once."""
    folder = tmp_path_factory.mktemp("client") / "kfusion"
    export_modalities(folder / "1", ("image", "audio"), ("image", "audio"))
    return folder


@pytest.fixture(scope="module")
def rest(model):
    with serve(model, model.with_name("log.txt"), "--label", "stable=1") as server:
        yield server.url


@pytest.fixture(scope="module")
def grpc(model):
    if importlib.util.find_spec("tensorflow_serving") is None:
        pytest.skip("needs tensorflow-serving-api")
    process = start_verb("tests.grpc_front", model / "1", 3, cwd=ROOT, stderr=subprocess.DEVNULL)
    assert process.stdout
    yield f"grpc://127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(params=["rest", "grpc"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def direct(model):
    with ServedModel(model / "1") as loaded:
        yield loaded


def test_arrays_go_in_and_labels_and_probabilities_come_out(url, direct):
    with Client(url, timeout_s=120) as client:
        for given in ({"image": IMAGES, "audio": SOUNDS}, {"image": IMAGES}, {"audio": SOUNDS}):
            found = client.predict(**given)
            signature, inputs = read_inputs(given)
            expected = direct.ask(signature, inputs)
            assert found.probabilities.shape == (3, 3) and found.probabilities.dtype == np.float32
            np.testing.assert_array_equal(found.label, expected["label"])
            np.testing.assert_allclose(found.probabilities, expected["probabilities"], atol=1e-6)
            for name in ("image_probabilities", "audio_probabilities"):
                np.testing.assert_allclose(found.outputs[name], expected[name], atol=1e-6)
            assert found.class_name == [name.decode() for name in expected["class_name"]]
            assert found.outputs["present"].tolist() == expected["present"].tolist()


def test_files_go_in_as_base64_or_bytes_and_either_half_may_be_missing(url, direct, tmp_path):
    pixels, sound = RNG.integers(0, 256, (5, 6, 5), dtype=np.uint8), SOUND
    (tmp_path / "a.wav").write_bytes(sound)
    files = [image.tobytes() for image in pixels]
    with Client(url, timeout_s=120) as client:
        found, expected = client.predict(image=files), client.predict(image=pixels)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        mixed = client.predict(image=[files[0], None, files[1]], audio=[tmp_path / "a.wav", sound, None])
        refused = pytest.raises(Rejected, match="audio_bytes, row 0: must be longer")
        with refused:
            client.predict(audio=b"no sound")
    assert mixed.outputs["present"].tolist() == [[True, True], [False, True], [True, False]]
    inputs = read_inputs({"image": [files[0], None, files[1]], "audio": [sound, sound, None]})[1]
    np.testing.assert_allclose(mixed.probabilities, direct.ask("raw_bytes", inputs)["probabilities"], atol=1e-5)


def test_one_pair_needs_no_batch_axis_and_versions_and_labels_are_followed(url):
    for version, label in ((None, None), (1, None), (None, "stable")):
        with Client(url, version=version, label=label, timeout_s=120) as client:
            assert client.predict(IMAGES[0], SOUNDS[0]).label.shape == (1,)


def test_a_refused_request_says_what_the_server_says(url):
    with Client(url, timeout_s=120) as client, pytest.raises(Rejected, match="audio must be within") as error:
        client.predict(audio=np.full((1, 26), np.nan, np.float32))
    assert error.value.status in (400, "INVALID_ARGUMENT")
    with Client(url, "other", timeout_s=120) as client, pytest.raises(Rejected, match="Servable not found") as error:
        client.predict(IMAGES[0])
    assert error.value.status in (404, "NOT_FOUND")


def test_status_and_metadata_come_over_rest(rest):
    with Client(rest, timeout_s=120) as client:
        assert client.status()[0]["state"] == "AVAILABLE"
        assert set(client.metadata()["image_only"]["inputs"]) == {"image"}
    with Client(rest, "other") as client, pytest.raises(Rejected, match="Could not find any versions"):
        client.status()


def test_a_late_grpc_answer_is_not_waited_for(grpc):
    with Client(grpc, "slow", timeout_s=0.5) as client, pytest.raises(TooLate, match="no answer within"):
        client.predict(IMAGES[0])


def test_what_is_given_decides_the_signature(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    for image, audio, signature, names in (
        (IMAGES, SOUNDS, "serving_default", ["image", "audio"]),
        (IMAGES, None, "image_only", ["image"]),
        (None, SOUNDS, "audio_only", ["audio"]),
        (tmp_path / "a.png", b"wav", "raw_bytes", ["image_bytes", "audio_bytes"]),
    ):
        found, inputs = read_inputs({"image": image, "audio": audio})
        assert (found, list(inputs)) == (signature, names)
    inputs = read_inputs({"image": [str(tmp_path / "a.png"), None], "audio": [None, b"wav"]})[1]
    assert inputs["image_bytes"].tolist() == [b"png", b""] and inputs["audio_bytes"].tolist() == [b"", b"wav"]
    assert read_inputs({"audio": b"wav"})[1]["image_bytes"].tolist() == [b""]
    bright = np.array([[0, 51], [255, 0]], np.uint8)
    np.testing.assert_allclose(read_inputs({"image": bright})[1]["image"], [[[[0], [0.2]], [[1], [0]]]])
    assert read_inputs({"image": np.zeros((5, 4, 3))})[1]["image"].shape == (1, 5, 4, 3)
    assert read_inputs({"image": np.zeros((5, 4, 9))})[1]["image"].shape == (5, 4, 9, 1)


def test_the_client_imports_neither_tensorflow_nor_keras():
    heavy = ("tensorflow", "keras", "grpc", "google", "pandas", "starlette")
    program = f"import sys, kfusion.client; print([name for name in {heavy} if name in sys.modules])"
    done = run_python("-c", program)
    assert done.stdout.strip() == "[]", done.stderr
    program = "import sys; sys.modules['grpc'] = None; from kfusion.client import Client; Client('grpc://localhost')"
    done = run_python("-c", program)
    assert "pip install 'kfusion[grpc]'" in done.stderr.splitlines()[-1]


def test_the_command_line_says_the_class_and_what_each_half_says_alone(rest, tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(range(0, 240, 8)))
    (tmp_path / "a.wav").write_bytes(SOUND)
    words = ("kfusion.client", "--url", rest, "--image", "a.png")
    picture, both = in_process(*words, cwd=tmp_path), run_verb(*words, "--audio", "a.wav", cwd=tmp_path)
    with Client(rest, timeout_s=120) as client:
        alone = client.predict(tmp_path / "a.png")
        answer = client.predict(tmp_path / "a.png", tmp_path / "a.wav")
    assert picture.stdout == f"{alone.class_name[0]}  ({alone.probabilities.max():.1%} sure)\n"
    assert alone.votes["image"] == alone.label and alone.votes["audio"] == -1
    first, second = both.stdout.splitlines()
    assert first == f"{answer.class_name[0]}  ({answer.probabilities.max():.1%} sure)"
    assert answer.votes["audio"] == answer.outputs["audio_probabilities"].argmax()
    assert second.endswith("; they agree" if answer.votes["image"] == answer.votes["audio"] else "; they disagree")
    assert f"({answer.outputs['audio_probabilities'].max():.1%})" in second


def test_a_vote_that_lost_is_called_by_its_class_where_the_model_tells_it(capsys):
    outputs = {
        "class_name": np.array(["drone"]),
        "image_probabilities": np.array([[0.25, 0.75]]),
        "audio_probabilities": np.array([[0.875, 0.125]]),
    }
    told = {"image_class_name": np.array(["bird"]), "audio_class_name": np.array(["drone"])}
    for more, second in (({}, "class 1"), (told, "bird")):
        print_votes(Prediction(np.array([0]), np.array([[0.6, 0.4]]), outputs | more))
        expected = f"image alone: {second} (75.0%), audio alone: drone (87.5%); they disagree\n"
        assert capsys.readouterr().out == expected


def test_the_command_line_refuses_what_is_not_there(rest, tmp_path):
    done = in_process("kfusion.client", "--url", rest, "--image", "gone.png", cwd=tmp_path)
    fails(done, "kfusion: gone.png: the image file must be readable. Found: No such file or directory\n")


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=(2, 3)).astype(np.float32),
        RNG.normal(size=(3,)),
        np.array([[1, -2]], np.int64),
        np.array([3, 250], np.uint8),
        np.array([True, False]),
        np.array([b"a", b"\xff\x00"], object),
        np.float32(7).reshape(()),
        np.zeros((0, 4), np.float32),
    ],
)
def test_our_tensors_are_tensorflows(values):
    tf = pytest.importorskip("tensorflow")
    ours = message("Tensor")()
    fill_tensor(ours, values)
    theirs = tf.make_tensor_proto(values)
    known = type(theirs).FromString(ours.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(known), values)
    np.testing.assert_array_equal(read_array(message("Tensor").FromString(theirs.SerializeToString())), values)
    same = tf.make_tensor_proto(np.full((2, 3), 0.5, np.float32))
    del same.float_val[:]
    same.ClearField("tensor_content")
    same.float_val.append(0.5)
    np.testing.assert_array_equal(
        read_array(message("Tensor").FromString(same.SerializeToString())), np.full((2, 3), 0.5)
    )


def test_a_refusal_of_the_runtime_has_its_number(direct):
    with pytest.raises(Refused) as error:
        direct.ask("audio_only", {"audio": np.full((1, 26), np.nan, np.float32)})
    assert (error.value.number, error.value.code) == (3, "INVALID_ARGUMENT")
