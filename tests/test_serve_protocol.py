"""TensorFlow Serving's REST form, read and written: paths, JSON, tensors, limits."""

import base64
import gzip
import json
import math

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from kfusion.runtime.protos import Signature
from kfusion.serving.json_codec import read_inputs, read_json, read_request, read_tensor, write_outputs
from kfusion.serving.limits import Limits
from kfusion.serving.middleware import decompress, error_response
from kfusion.serving.rest_api import Target, read_path

PAIR = Signature({"audio": ("a:0", 1, (-1, 3)), "image": ("i:0", 1, (-1, 2, 2, 1))}, {})
ONE = Signature({"image": ("i:0", 1, (-1, 2, 2, 1))}, {})
FILES = Signature({"audio_bytes": ("a:0", 7, (-1,)), "image_bytes": ("i:0", 7, (-1,))}, {})
IMAGE = [[[0.25], [1]], [[0.5], [0]]]


def read(document, signature, max_batch=8):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_inputs(read_request(body, 16), signature, max_batch)


def refused(document, signature=PAIR, **kwargs):
    with pytest.raises(HTTPException) as error:
        read(document, signature, **kwargs)
    return error.value


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/v1/models/kfusion", Target("status", "kfusion", None, None)),
        ("GET", "/v1/models/kfusion/versions/7", Target("status", "kfusion", 7, None)),
        ("GET", "/v1/models/kfusion/versions/007/metadata", Target("metadata", "kfusion", 7, None)),
        ("GET", "/V1/Models/k%66usion/labels/st%20able", Target("status", "kfusion", None, "st able")),
        ("POST", "/v1/models/kfusion:predict", Target("predict", "kfusion", None, None)),
        ("POST", "/v1/models/kfusion/labels/stable:predict", Target("predict", "kfusion", None, "stable")),
        ("POST", "/v1/models/kfusion/versions/3:classify", Target("classify", "kfusion", 3, None)),
    ],
)
def test_paths_mean_what_they_mean_to_tensorflow_serving(method, path, target):
    assert read_path(method, path) == target


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", "/v1/models/foo:predict", "Malformed request: GET /v1/models/foo:predict"),
        ("POST", "/v1/models/foo/version/50:regress", "Malformed request"),
        ("POST", "/v1/models/foo/versions/HELLO:regress", "Malformed request"),
        ("POST", "/v1/models/foo/versions/18446744073709551615:predict", "Failed to convert version"),
        ("POST", "/v1/models/foo/versions/" + "9" * 5000 + ":predict", "Failed to convert version"),
        ("GET", "/v1/models/../../etc/passwd", "Malformed request"),
        ("DELETE", "/v1/models/kfusion", "Malformed request"),
    ],
)
def test_other_paths_are_malformed_as_they_are_to_tensorflow_serving(method, path, sentence):
    with pytest.raises(HTTPException, match=sentence) as error:
        read_path(method, path)
    assert error.value.status_code == 400


def test_rows_and_columns_give_the_same_tensors():
    rows, size = read({"instances": [{"image": IMAGE, "audio": [1, 2, 3]}, {"audio": [4, 5, 6], "image": IMAGE}]}, PAIR)
    columns, _ = read({"inputs": {"image": [IMAGE, IMAGE], "audio": [[1, 2, 3], [4, 5, 6]]}}, PAIR)
    assert size == 2
    for name, array in rows.items():
        np.testing.assert_array_equal(array, columns[name])
        assert array.dtype == np.float32
    assert rows["image"].shape == (2, 2, 2, 1) and rows["image"][1, 0, 1, 0] == 1.0
    assert rows["audio"][1].tolist() == [4, 5, 6]


def test_a_single_input_goes_without_its_name_or_with_it():
    bare = read({"instances": [IMAGE]}, ONE)[0]["image"]
    for document in ({"instances": [{"image": IMAGE}]}, {"inputs": [IMAGE]}, {"inputs": {"image": [IMAGE]}}):
        np.testing.assert_array_equal(read(document, ONE)[0]["image"], bare)


def test_bytes_come_as_base64_padded_or_not_and_text_as_itself():
    content = bytes(range(256))
    text = base64.b64encode(content).decode()
    document = {"instances": [{"image_bytes": {"b64": text}, "audio_bytes": ""}]}
    document["instances"] += [{"image_bytes": {"b64": text.rstrip("=")}, "audio_bytes": "ä"}]
    inputs, _ = read(document, FILES)
    assert inputs["image_bytes"].tolist() == [content, content]
    assert inputs["audio_bytes"].tolist() == [b"", "ä".encode()]


def test_the_quick_way_to_read_numbers_gives_what_numpy_gives():
    value = np.random.default_rng(1).normal(size=(3, 4, 2)).tolist()
    value[0][0][0] = 3  # A whole number, as JSON may have it.
    quick = read_tensor(value, "x", 1, (-1, 4, 2), strict=False)
    slow = read_tensor(value, "x", 1, (-1, 4, 2), strict=True)
    np.testing.assert_array_equal(quick, slow)
    np.testing.assert_array_equal(quick, np.array(value, np.float32))


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", "JSON Parse error"),
        (b'{"instances": [NaN', "JSON Parse error"),
        ([1], "must be a JSON object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"signature_name": 5, "instances": [1]}, "'signature_name' key must be a string value"),
        ({"instances": [1], "inputs": [1]}, "only one of 'inputs' or 'instances'"),
        ({"instances": {}}, "Expecting 'instances' to be a list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [[1]]}, "must be a list of objects with the keys audio, image"),
        ({"instances": [{"image": IMAGE, "audio": [1, 2, 3]}, 5]}, "Expecting object but got list at item 1"),
        ({"instances": [{"image": IMAGE}]}, "keys must be equal to: audio,image"),
        ({"instances": [{"image": IMAGE, "audio": [1, 2, 3], "x": 1}]}, "keys must be equal to"),
        ({"inputs": {"image": [IMAGE]}}, "Missing named input: audio"),
        ({"inputs": [IMAGE]}, "'inputs' must be an object with the keys audio, image"),
        ({"inputs": {"image": [IMAGE], "audio": [[1, 2, 3]] * 2}}, "same number of rows. Received: audio 2, image 1"),
        (
            {"inputs": {"image": [IMAGE], "audio": [[1, 2]]}},
            r"'audio' must have shape \(batch, 3\). Received: \(1, 2\)",
        ),
        ({"inputs": {"image": [IMAGE], "audio": [[1, 2, "3"]]}}, "'audio' must hold values of type DT_FLOAT only"),
        ({"inputs": {"image": [IMAGE], "audio": [[1, 2, None]]}}, "'audio' must hold values of type DT_FLOAT only"),
        ({"inputs": {"image": [IMAGE], "audio": [[1, 2, True]]}}, "'audio' must hold values of type DT_FLOAT only"),
        ({"inputs": {"image": [IMAGE], "audio": [[1, 2, [3]]]}}, "'audio' must be a regular nested list"),
        ({"inputs": {"image": [IMAGE], "audio": [[1, 2, 1e39]]}}, "'audio' holds a number that DT_FLOAT cannot"),
        ({"inputs": {"image": [IMAGE], "audio": []}}, "'audio' must not be empty"),
        ({"inputs": {"image": [IMAGE] * 9, "audio": [[1, 2, 3]] * 9}}, "at most 8 rows in one request. Received: 9"),
        (b'{"inputs": ' + b"[" * 50 + b"]" * 50 + b"}", "at most 16 deep"),
        (b'{"inputs": ' + b"[" * 9000, "at most 16 deep"),
        (b"\xff\xfe", "JSON Parse error"),
    ],
)
def test_a_bad_request_is_400_with_a_sentence(document, sentence):
    error = refused(document)
    assert error.status_code == 400
    with pytest.raises(HTTPException, match=sentence):
        raise error
    assert set(json.loads(bytes(error_response(error).body))) == {"error"}


@pytest.mark.parametrize("text", ["!!", "QQ=", {"b64": "a"}, {"b64": 5}, {"b64": "QQ==", "x": 1}, 5, None])
def test_bad_base64_is_refused(text):
    wrong = text if not isinstance(text, str) else {"b64": text + "\u00e9"}
    assert refused({"inputs": {"image_bytes": [wrong], "audio_bytes": [""]}}, FILES).status_code == 400


def test_nan_and_infinity_are_read_and_written_as_tokens():
    assert math.isnan(read_json(b"[NaN, -Infinity]", 16)[0])
    values = np.array([[math.nan, math.inf, -math.inf, 0.5]], np.float32)
    assert write_outputs({"x": values}, by_rows=True) == b'{"predictions": [[NaN, Infinity, -Infinity, 0.5]]}'


def test_answers_in_rows_and_columns():
    outputs = {
        "b": np.array([[0.1, 2.0], [3.0, 4.0]], np.float32),
        "a": np.array([7, 8]),
        "name": np.array([b"x", "ä".encode()], object),
        "raw_bytes": np.array([b"\xff", b""], object),
    }
    rows = json.loads(write_outputs(outputs, by_rows=True))["predictions"]
    assert rows[0] == {"a": 7, "b": [0.1, 2.0], "name": "x", "raw_bytes": {"b64": "/w=="}}
    assert rows[1]["name"] == "ä" and rows[1]["b"] == [3.0, 4.0]
    columns = json.loads(write_outputs(outputs, by_rows=False))["outputs"]
    assert columns == {name: [row[name] for row in rows] for name in outputs}
    # A single output goes without its name, and a float is written as a float.
    assert write_outputs({"b": outputs["b"]}, by_rows=True) == b'{"predictions":[[0.1,2.0],[3.0,4.0]]}'
    assert write_outputs({"b": outputs["b"]}, by_rows=False) == b'{"outputs":[[0.1,2.0],[3.0,4.0]]}'


def test_outputs_without_a_common_batch_have_no_rows():
    for outputs in ({"a": np.zeros(())}, {"a": np.zeros(2), "b": np.zeros(3)}):
        with pytest.raises(HTTPException, match="no common batch size"):
            write_outputs(outputs, by_rows=True)


def test_a_compressed_body_is_limited_by_what_it_becomes():
    limits = Limits(max_body_mib=1)
    assert decompress(gzip.compress(b"hello"), limits) == b"hello"
    bomb = gzip.compress(bytes(200 << 20))
    assert len(bomb) < 1 << 20
    for body, status in ((bomb, 413), (b"hello", 400), (gzip.compress(b"hello" * 99)[:-9], 400)):
        with pytest.raises(HTTPException) as error:
            decompress(body, limits)
        assert error.value.status_code == status
