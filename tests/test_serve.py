"""`python -m kfusion.serve` as its users meet it: a real process, a real exported model, real pairs."""

import base64
import gzip
import http.client
import json

import numpy as np
import pytest

from kfusion.data.loaders import load, load_builtin
from kfusion.data.splits import split
from kfusion.inference import load_network, predict_views
from kfusion.run_dir import open_run
from tests.media import encoded
from tests.processes import ROOT, fails, in_process, run_python, wait_for


@pytest.fixture(scope="module")
def pairs(trained_run):
    """Eight real pairs of the test part, and the network's own answers to them."""
    run = open_run(trained_run)
    config = run.config()
    test = split(load(config.data), config.data, config.training.seed).test
    values = test.read(np.arange(8))
    answers = {view: rows[:8] for view, rows in predict_views(load_network(run), test).items()}
    scaled = {"image": values["image"] / 255, "audio": values["audio"]}
    return {name: rows.astype(float).tolist() for name, rows in scaled.items()}, answers


def rows_of(inputs):
    return [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]


def test_both_forms_answer_as_the_network_does(server, pairs):
    inputs, answers = pairs
    status, columns = server.predict({"inputs": inputs})
    assert status == 200
    status, rows = server.predict({"instances": rows_of(inputs)})
    assert status == 200
    assert set(rows["predictions"][0]) == set(columns["outputs"])
    for name, view in (("probabilities", "fused"), ("image_probabilities", "image"), ("audio_probabilities", "audio")):
        np.testing.assert_allclose(columns["outputs"][name], answers[view], atol=1e-5)
        np.testing.assert_allclose([row[name] for row in rows["predictions"]], answers[view], atol=1e-5)
    assert columns["outputs"]["label"] == answers["fused"].argmax(axis=1).tolist()


def test_one_modality_alone_by_version_by_label_and_compressed(server, pairs):
    inputs, answers = pairs
    document = {"signature_name": "image_only", "instances": inputs["image"]}
    for where in ("", "/versions/1", "/labels/stable"):
        status, answer = server.predict(document, f"/v1/models/kfusion{where}")
        assert status == 200
        np.testing.assert_allclose([row["probabilities"] for row in answer["predictions"]], answers["image"], atol=1e-5)
    body = gzip.compress(json.dumps({"signature_name": "audio_only", "inputs": inputs["audio"]}).encode())
    status, text, _ = server.ask("POST", "/v1/models/kfusion:predict", body, content_encoding="gzip")
    assert status == 200
    np.testing.assert_allclose(json.loads(text)["outputs"]["probabilities"], answers["audio"], atol=1e-5)


def test_a_file_is_answered_as_its_pixels_are(server):
    """A digit of 28 × 28 passes through the reader unchanged."""
    digit = np.asarray(load_builtin()["image"].values[0], np.uint8).reshape(28, 28)
    file = {"image_bytes": {"b64": base64.b64encode(encoded(digit)).decode()}, "audio_bytes": ""}
    status, answer = server.predict({"signature_name": "raw_bytes", "instances": [file]})
    assert status == 200 and answer["predictions"][0]["present"] == [True, False]
    pixels = (digit / 255)[..., np.newaxis].tolist()
    expected = server.predict({"signature_name": "image_only", "instances": [pixels]})[1]["predictions"][0]
    np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected["probabilities"], atol=1e-5)


def test_status_and_metadata_have_tensorflow_servings_form(server):
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for where in ("", "/versions/1", "/labels/stable"):
        assert server.get(f"/v1/models/kfusion{where}") == (200, {"model_version_status": [available]})
    status, told = server.get("/v1/models/kfusion/metadata")
    assert status == 200
    assert told["model_spec"] == {"name": "kfusion", "signature_name": "", "version": "1"}
    image = told["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["image"]
    assert image["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "28", "28", "1"]


@pytest.mark.parametrize(
    ("where", "document", "status", "sentence"),
    [
        ("/v1/models/other", {}, 404, "Servable not found for request: Latest(other)"),
        ("/v1/models/kfusion/versions/9", {}, 404, "Servable not found for request: Specific(kfusion, 9)"),
        ("/v1/models/kfusion/labels/canary", {}, 400, "Unrecognized servable version label: canary"),
        ("/v1/models/kfusion", b"{", 400, "JSON Parse error"),
        ("/v1/models/kfusion", {"signature_name": "secret", "inputs": 1}, 400, '"secret" not found in signature def'),
        ("/v1/models/kfusion", b" " * (5 << 20), 413, "at most 4 MiB; send fewer rows"),
        ("/v1/models/kfusion", {"signature_name": "audio_only", "inputs": [[0.0] * 507] * 21}, 400, "at most 20 rows"),
        ("/v1/models/kfusion", {"signature_name": "audio_only", "inputs": [[0.0] * 506]}, 400, "shape (batch, 507)"),
        ("/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", {}, 404, "Servable not found"),
        ("/v1/models/kfusion/../../../etc/passwd", {}, 400, "Malformed request"),
    ],
)
def test_every_error_has_the_real_servers_status_and_says_what_to_change(server, where, document, status, sentence):
    found, answer = server.predict(document, where)
    assert found == status
    assert set(answer) == {"error"} and sentence in answer["error"]
    assert "Traceback" not in answer["error"] and str(ROOT) not in answer["error"]


def test_the_guards_in_the_graph_answer_in_their_own_words(server):
    body = {"signature_name": "audio_only", "inputs": [[0.0] * 507, [float("nan")] * 507]}
    assert server.predict(body) == (400, {"error": "audio must be finite. Received: NaN or infinity, in row 1"})
    bright = {"signature_name": "image_only", "inputs": [[[[200.0]] * 28] * 28]}
    status, answer = server.predict(bright)
    assert status == 400 and "[0, 1]" in answer["error"]


def test_health_and_metrics(server):
    assert server.get("/healthz") == (200, {"status": "ok"})
    good = {"signature_name": "audio_only", "inputs": [[0.0] * 507]}
    name = ':tensorflow:serving:request_count{model_name="kfusion",status="OK"}'
    assert server.predict(good)[0] == 200
    page = server.ask("GET", "/monitoring/prometheus/metrics")
    assert page[0] == 200 and page[2]["content-type"].startswith("text/plain; version=0.0.4")
    before = float(page[1].decode().split(name)[1].split()[0])
    assert server.predict(good)[0] == 200
    after = float(server.ask("GET", "/metrics")[1].decode().split(name)[1].split()[0])
    assert after == before + 1
    assert server.metric(":tensorflow:serving:request_latency_count") >= after
    assert server.metric("kfusion_serving_requests_in_work") == 0


def test_no_other_site_may_ask_and_each_answer_is_guarded(server):
    good = json.dumps({"signature_name": "audio_only", "inputs": [[0.0] * 507]}).encode()
    path = "/v1/models/kfusion:predict"
    assert server.ask("POST", path, good, origin="http://evil.example")[0] == 403
    assert server.ask("POST", path, good, host="evil.example")[0] == 421
    assert server.ask("GET", "/healthz", host="evil.example")[0] == 421
    assert server.ask("POST", path, good, origin=server.url)[0] == 200
    assert server.ask("POST", path, good, host=f"localhost:{server.port}")[0] == 200
    for status, _, headers in (server.ask("POST", path, good), server.ask("GET", "/x"), server.ask("GET", "/v1/x")):
        assert status in (200, 404, 400)
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert "server" not in {name.lower() for name in headers}


@pytest.mark.parametrize(
    "path", ["/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page/../app.py"]
)
def test_no_file_can_be_read(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert b"root:" not in answer.read()
    connection.close()


def test_the_log_is_json_lines_without_payloads(server):
    def requests():
        return [line for line in server.lines() if line["event"] == "request"]

    marked, before = 0.123456789, len(requests())
    assert server.predict({"signature_name": "audio_only", "inputs": [[marked] * 507]})[0] == 200
    assert server.predict(b'{"inputs": "tell nobody"')[0] == 400
    server.get("/healthz")
    # A line is written after its answer was sent; those of earlier requests may come late too.
    wait_for(lambda: len(requests()) >= before + 2 and requests()[-1]["status"] == 400)
    answered = {"status": 200, "rows": 1, "signature": "audio_only", "version": 1}
    assert any(line.items() >= answered.items() for line in requests())
    text = server.log.read_text()
    assert "123456789" not in text and "tell nobody" not in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("gone",), "gone: must be a folder with exported versions. Found: no folder"),
        (("{model}/1",), "must be the folder above the version"),
        (("{model}/1/variables",), "must hold a version"),
        (("{model}", "--port", "70000"), "'port' must be in [0, 65535]. Received: 70000"),
        (("{model}", "--label", "stable"), "'label' must be LABEL=VERSION. Received: 'stable'"),
        (("{model}", "--max-batch", "0"), "'max_batch' must be ≥ 1. Received: 0"),
        (("{model}", "--host", "203.0.113.1"), "203.0.113.1:8501: the server must be able to listen there"),
        (("{model}", "--port", "{port}"), "Address already in use"),
    ],
)
def test_a_wrong_command_is_one_line(server, served_model, flags, sentence, tmp_path):
    given = [flag.format(model=served_model, port=server.port) for flag in flags]
    fails(in_process("kfusion.serve", *given, cwd=tmp_path), sentence)


def test_a_missing_extra_is_one_line_and_status_2(served_model):
    program = "import runpy, sys; sys.modules['starlette'] = None; sys.argv = ['serve', sys.argv[1]];"
    program += "runpy.run_module('kfusion.serve', run_name='__main__')"
    fails(run_python("-c", program, served_model), "pip install 'kfusion[serve]'")
