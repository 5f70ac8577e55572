"""The client when nobody answers, when a server answers late or wrong, and when it is itself asked wrong."""

import http.server
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kfusion.client import Client, ClientError, Rejected, TooLate, Unreachable
from kfusion.transport import read_inputs
from tuning.process_pool import free_port

IMAGES = np.random.default_rng(5).random((3, 28, 28)).astype(np.float32)
SOUNDS = np.random.default_rng(6).normal(size=(3, 507)).astype(np.float32)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there_is_said_after_the_retries(scheme):
    pytest.importorskip("grpc")
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with Client(url, retries=1) as client, pytest.raises(Unreachable, match="no connection in 2 attempts"):
        client.predict(IMAGES[0])


class Script:
    """A real HTTP server that does to each request what comes next in a list, and counts them."""

    def __init__(self, *acts):
        self.seen, self.peers = 0, set()
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                act = acts[min(script.seen, len(acts) - 1)]
                script.seen += 1
                script.peers.add(self.client_address)
                self.rfile.read(int(self.headers["Content-Length"]))
                act(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def reply(status, text):
    def act(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    return act


def hang_up(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def no_http(handler):
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
    hang_up(handler)


def half_an_answer(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    hang_up(handler)


GOOD = reply(200, json.dumps({"outputs": {"label": [4], "probabilities": [[0.0] * 4 + [1.0]]}}).encode())


def test_a_request_that_was_sent_is_not_sent_again():
    for status in (400, 500, 503, 504):
        with Script(reply(status, b'{"error": "no"}')) as script, Client(script.url) as client:
            with pytest.raises(Rejected, match=f"the server answered {status}: no"):
                client.predict(IMAGES[0])
            assert script.seen == 1
    for act in (hang_up, no_http, half_an_answer):
        with Script(act, GOOD) as script, Client(script.url, retries=2) as client:
            with pytest.raises(Unreachable, match="the connection was lost before the answer"):
                client.predict(IMAGES[0])
            assert script.seen == 1
            # The next request finds a new connection.
            assert client.predict(IMAGES[0]).label.tolist() == [4]


def test_each_request_is_sent_once_and_all_over_one_connection():
    with Script(GOOD) as script, Client(script.url) as client:
        for times in (1, 2, 3):
            client.predict(IMAGES[0])
            assert (script.seen, len(script.peers)) == (times, 1)


def test_a_kept_connection_that_the_server_has_closed_is_made_anew():
    with Script(GOOD, hang_up, GOOD) as script, Client(script.url) as client:
        client.predict(IMAGES[0])
        assert client.predict(IMAGES[0]).probabilities[0, 4] == 1
        assert script.seen == 3
    with Script(GOOD, hang_up) as script, Client(script.url, retries=2) as client:
        client.predict(IMAGES[0])
        with pytest.raises(Unreachable, match="the connection was lost before the answer"):
            client.predict(IMAGES[0])
        assert script.seen == 3  # Once on the old connection, once on a new one.
    with Script(GOOD, half_an_answer) as script, Client(script.url, retries=2) as client:
        client.predict(IMAGES[0])
        with pytest.raises(Unreachable, match="the connection was lost before the answer"):
            client.predict(IMAGES[0])
        assert script.seen == 2


def test_a_grpc_request_that_was_sent_is_not_sent_again():
    grpc = pytest.importorskip("grpc")
    seen = []

    def unavailable(request, context):
        seen.append(request)
        context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    method = grpc.unary_unary_rpc_method_handler(unavailable)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"grpc://127.0.0.1:{port}", retries=2) as client:
            for times in (1, 2):
                with pytest.raises(Unreachable, match=r"the connection was lost before the answer\. Found: going down"):
                    client.predict(IMAGES[0])
                assert len(seen) == times
    finally:
        server.stop(None).wait()


def test_a_server_that_is_late_or_drips_is_given_up_in_time_and_not_asked_again():
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    for act in (lambda _: time.sleep(5), drip):
        with Script(act) as script, Client(script.url, timeout_s=0.6) as client:
            began = time.monotonic()
            with pytest.raises(TooLate, match="no answer within"):
                client.predict(IMAGES[0])
            assert time.monotonic() - began < 4
            assert script.seen == 1


def test_answers_that_are_none_of_ours_are_told():
    for text, sentence in ((b"<html>", "no JSON"), (b'{"outputs": {"x": [1]}}', "the model gives no label")):
        expected = pytest.raises(ClientError, match=sentence)
        with Script(reply(200, text)) as script, Client(script.url) as client, expected:
            client.predict(IMAGES[0])


@pytest.mark.parametrize(
    ("image", "audio", "sentence"),
    [
        (None, None, "'image' or 'audio' must be given"),
        ("gone.png", None, "gone.png: the image file must be readable. Found: No such file"),
        ("", b"x", "'image' must name a file; leave it out where there is none. Received: ''"),
        (b"", b"x", "'image': the image file must not be empty. Found: 0 bytes"),
        (b"x", SOUNDS, "must both be files or both be arrays"),
        (IMAGES, SOUNDS[:2], "same number of rows"),
        (np.zeros(3), None, "'image' must have 2, 3 or 4 axes"),
        (None, np.zeros((1, 2, 3, 4)), "'audio' must have 1 to 3 axes"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(image, audio, sentence):
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ValueError, match=sentence):
        client.predict(image, audio)


def test_an_empty_file_that_is_named_is_refused(tmp_path):
    (tmp_path / "a.wav").touch()
    for audio in (tmp_path / "a.wav", [None, str(tmp_path / "a.wav")]):
        with pytest.raises(ValueError, match=r"a.wav: the audio file must not be empty\. Found: 0 bytes"):
            read_inputs({"audio": audio})
    assert read_inputs({"image": [b"x", b""], "audio": [None, b"y"]})[1]["image_bytes"].tolist() == [b"x", b""]


def test_wrong_settings_are_refused():
    for url in ("ftp://x", "127.0.0.1:8501", "http://"):
        with pytest.raises(ValueError, match="'url' must begin with http"):
            Client(url)
    with pytest.raises(ValueError, match="'version' and 'label'"):
        Client(version=1, label="stable")
    with pytest.raises(ValueError, match="'timeout_s' must be > 0"):
        Client(timeout_s=0)
