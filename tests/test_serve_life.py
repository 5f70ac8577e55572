"""A server's life: new versions under traffic, broken ones, its limits under load, and its end."""

import http.client
import json
import os
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.processes import wait_for
from tests.servers import serve
from tests.tiny_models import export_tiny

SILENCE = json.dumps({"signature_name": "audio_only", "inputs": [[0.0] * 507]}).encode()
TWO = b'{"inputs": [2.0]}'
PATH = "/v1/models/kfusion:predict"


@pytest.fixture
def shelf(served_model, tmp_path):
    """A model's folder of one's own, with version 1."""
    folder = tmp_path / "kfusion"
    shutil.copytree(served_model, folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model that loads at once, in a folder of the same name."""
    folder = tmp_path_factory.mktemp("tiny") / "kfusion"
    export_tiny(folder / "1", 2)
    return folder


def publish(shelf, number, source=1):
    """A further version, in place by rename, as the export does it."""
    shutil.copytree(shelf / str(source), shelf / ".partial")
    (shelf / ".partial").rename(shelf / str(number))


def states(server):
    return {row["version"]: row["state"] for row in server.get("/v1/models/kfusion")[1]["model_version_status"]}


class Traffic:
    """Requests with hardly a pause from a few clients, until `stop`; every status is kept."""

    def __init__(self, server, clients=2):
        self.statuses, self._stop, self._server = [], threading.Event(), server
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        while not self._stop.is_set():
            connection.request("POST", PATH, SILENCE)
            answer = connection.getresponse()
            answer.read()
            self.statuses.append(answer.status)
            time.sleep(0.01)
        connection.close()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.statuses


@pytest.mark.slow  # In one process, by test_models.py.
def test_a_new_version_takes_over_under_traffic_without_a_failed_request(shelf, tmp_path):
    with serve(shelf, tmp_path / "log.txt", "--poll-s", "0.1") as server:
        traffic = Traffic(server)
        wait_for(lambda: len(traffic.statuses) > 20)
        publish(shelf, 2)
        wait_for(lambda: states(server) == {"1": "END", "2": "AVAILABLE"})
        publish(shelf, 10)
        wait_for(lambda: states(server).get("10") == "AVAILABLE" and states(server)["2"] == "END")
        seen = len(traffic.statuses)
        wait_for(lambda: len(traffic.statuses) > seen + 20)
        statuses = traffic.stop()
        assert set(statuses) == {200} and len(statuses) > 60
        assert server.predict(SILENCE, "/v1/models/kfusion/versions/1")[0] == 404
        events = [(line["event"], line["version"]) for line in server.lines() if "version" in line["event"]]
    loads = [("version loaded", 1), ("version loaded", 2), ("version unloaded", 1), ("version loaded", 10)]
    assert events == [*loads, ("version unloaded", 2)]


@pytest.mark.slow  # In one process, by test_models.py.
def test_a_broken_version_is_told_and_the_old_one_goes_on(shelf, tmp_path):
    with serve(shelf, tmp_path / "log.txt", "--poll-s", "0.1", "--label", "old=1") as server:
        (shelf / "2").mkdir()
        (shelf / "2" / "saved_model.pb").write_bytes(b"no model")
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        shutil.copytree(shelf / "1", shelf / ".partial")
        (shelf / ".partial" / "assets" / "x").symlink_to(secret)
        (shelf / ".partial").rename(shelf / "3")
        os.symlink(tmp_path, shelf / "4")
        (tmp_path / "saved_model.pb").write_bytes((shelf / "1" / "saved_model.pb").read_bytes())
        wait_for(lambda: states(server).get("4") == "END")
        told = server.get("/v1/models/kfusion/versions/4")[1]["model_version_status"][0]["status"]
        assert told["error_message"] == "4: must lie inside the model's folder. Found: a link that leads out of it"
        assert server.predict(SILENCE)[0] == 200
        (shelf / "4").unlink()
        wait_for(lambda: states(server).get("3") == "END")
        (shelf / "3" / "assets" / "x").unlink()
        shutil.rmtree(shelf / "3")
        wait_for(lambda: states(server).get("2") == "END")
        message = server.get("/v1/models/kfusion/versions/2")[1]["model_version_status"][0]["status"]["error_message"]
        assert message.startswith("kfusion/2/saved_model.pb: must be a SavedModel")
        assert str(tmp_path) not in server.ask("GET", "/v1/models/kfusion")[1].decode()
        publish(shelf, 5)
        wait_for(lambda: states(server).get("5") == "AVAILABLE")
        # A labelled version is served beside the latest.
        assert states(server)["1"] == "AVAILABLE"
        assert server.predict(SILENCE, "/v1/models/kfusion/labels/old")[0] == 200


def test_sigterm_finishes_what_is_in_flight(tiny, tmp_path):
    """A request whose body is still arriving when the signal comes is answered; then the process ends with status 0."""
    with serve(tiny, tmp_path / "log.txt") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as late:
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(TWO)}\r\n\r\n".encode()
            late.sendall(head + TWO[:10])
            wait_for(lambda: server.metric("kfusion_serving_requests_in_work") == 1)
            ending = ThreadPoolExecutor(1).submit(server.terminate)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
            late.sendall(TWO[10:])
            answer = late.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b'{"outputs":[4.0]}')
        assert ending.result(60) == 0
    assert "Traceback" not in server.log.read_text()


def test_limits_refuse_with_a_sentence_and_the_server_goes_on(tiny, tmp_path):
    flags = ("--max-requests", "2", "--max-connections", "6", "--timeout-s", "1.5")
    with serve(tiny, tmp_path / "log.txt", *flags) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(2)]
        for each in slow:
            each.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n".encode())
        wait_for(lambda: server.metric("kfusion_serving_requests_in_work") == 2)
        status, body, headers = server.ask("POST", PATH, TWO)
        assert status == 503 and headers["retry-after"] == "1"
        assert json.loads(body)["error"] == "2 requests are in work, as many as may be; come back later"
        for each in slow:
            assert b"HTTP/1.1 408" in each.makefile("rb").read()
            each.close()
        links = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(7)]
        links[0].sendall(b"POST / HTTP/1.1\r\nHost: loc")
        assert b"503 Service Unavailable" in (told := links[6].makefile("rb").read()) and b"6 connections" in told
        # A head that does not come to its end is not waited for.
        assert b"408 Request Timeout" in links[0].makefile("rb").read()
        for link in links:
            link.close()
        assert wait_for(lambda: server.predict(TWO)[0] == 200)


@pytest.mark.slow  # In one process, by test_batching.py.
def test_requests_that_come_together_are_answered_together_and_as_alone(served_model, tmp_path):
    rng = np.random.default_rng(3)
    sounds = rng.normal(size=(24, 507)).astype(np.float32).astype(float)
    bodies = [json.dumps({"signature_name": "audio_only", "inputs": [sound.tolist()]}).encode() for sound in sounds]
    bad = json.dumps({"signature_name": "audio_only", "inputs": [[float("nan")] * 507]}).encode()
    with serve(served_model, tmp_path / "log.txt") as server:
        alone = [server.predict(body)[1]["outputs"]["probabilities"][0] for body in bodies]
        before = server.metric("kfusion_serving_batch_requests_count")
        gate = threading.Barrier(len(bodies) + 2)

        def ask(body):
            gate.wait()
            return server.predict(body)

        with ThreadPoolExecutor(len(bodies) + 2) as pool:
            found = list(pool.map(ask, [*bodies, bad, bad]))
        runs = server.metric("kfusion_serving_batch_requests_count") - before
    assert [status for status, _ in found] == [200] * len(bodies) + [400, 400]
    assert runs < len(bodies)
    np.testing.assert_allclose([answer["outputs"]["probabilities"][0] for _, answer in found[:-2]], alone, atol=1e-6)
