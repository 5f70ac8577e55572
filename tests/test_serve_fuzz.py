"""Malformed requests at a real server process: no 5xx, no crash, no leak, and the next good request is answered right.

    pytest tests/test_serve_fuzz.py             some 100 requests
    pytest -n 0 -m slow tests/test_serve_fuzz.py     20 000 and more

The only 5xx that may be are the limits' own: 503 (too many requests in work) and 504 (no answer in time).
"""

import contextlib
import http.client
import json
import re
import socket
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfusion.data.loaders import load_builtin
from tests.media import encoded, wav_bytes
from tests.mutations import PATH, bad_files, bad_framing, mutate
from tests.servers import serve

MAX_GROWTH_BYTES = 100_000_000
LIMITS = (503, 504)
EVERY = 50
"""After how many bad requests a good one is asked."""

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(1e39), st.just(2**70)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["b64", "image", "audio", "image_bytes", "audio_bytes", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=12,
)
signatures = st.sampled_from(
    ["serving_default", "image_only", "audio_only", "raw_bytes", "", "__saved_model_init_op", 5]
)
documents = st.one_of(
    values,
    st.fixed_dictionaries(
        {}, optional={"signature_name": signatures, "instances": values, "inputs": values, "context": values}
    ),
    st.builds(
        lambda name, shape, fill: {"signature_name": name, "inputs": np.full(shape, fill).tolist()},
        st.sampled_from(["image_only", "audio_only"]),
        st.sampled_from([(1, 28, 28, 1), (1, 507), (2, 506), (1, 28, 28), (0, 507), (1, 28, 28, 3), (300, 507), ()]),
        st.sampled_from([0.5, -1.0, 2.0, 1e38, 255.0]),
    ),
)


class Attacker:
    """Sends what it is given to a server and looks at what comes back."""

    def __init__(self, server):
        self.server, self.count, self.statuses = server, 0, {}
        rng = np.random.default_rng(0)
        source = load_builtin()
        self.image = encoded(source["image"].values[0])
        sound = 3000 * np.sin(np.arange(8000) / 4) + rng.normal(0, 30, 8000)
        self.audio = wav_bytes(sound.astype(np.int16))
        sound = np.asarray(source["audio"].values[:1], np.float64).tolist()
        self.good = json.dumps({"signature_name": "audio_only", "inputs": sound}).encode()
        self.right = json.loads(self._post(self.good)[1])["outputs"]["probabilities"]
        self.connection = self._connect()

    def _connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def _post(self, body):
        connection = self._connect()
        connection.request("POST", PATH, body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def see(self, status, content, sent):
        self.count += 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        assert status < 500 or status in LIMITS, (status, content, sent[:2000])
        assert b"Traceback" not in content and b"/kfusion/" not in content, (content, sent[:2000])
        if self.count % EVERY == 0:
            self.check()

    def check(self):
        """A good request is answered right."""
        status, content = self._post(self.good)
        assert status == 200
        np.testing.assert_allclose(json.loads(content)["outputs"]["probabilities"], self.right, atol=1e-5)

    def send_body(self, body):
        try:
            self.connection.request("POST", PATH, body)
            answer = self.connection.getresponse()
            self.see(answer.status, answer.read(), body)
        except (http.client.HTTPException, ConnectionError):
            self.connection.close()
            self.connection = self._connect()
            assert self.server.process.poll() is None

    def send_raw(self, data):
        """The bytes as they are, then the end of the stream; any number of answers may come, or none."""
        received = b""
        link = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        with link, contextlib.suppress(ConnectionError):
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            while part := link.recv(65536):
                received += part
        statuses = [int(code) for code in re.findall(rb"^HTTP/1\.1 (\d{3})", received, re.M)]
        self.see(max(statuses, default=0), received, data)

    def bodies(self, number, seed):
        rng = Random(seed)
        for _ in range(number):
            kind = rng.choice(["png", "wav", "base64", "text", "text"])
            good = bad_files("none", self.image, self.audio, rng) if rng.random() < 0.5 else self.good
            self.send_body(mutate(good, rng) if kind == "text" else bad_files(kind, self.image, self.audio, rng))

    def framings(self, number, seed):
        rng = Random(seed)
        for _ in range(number):
            self.send_raw(bad_framing(self.good, rng))

    def documents(self, number):
        checks: Any = list(HealthCheck)

        @settings(max_examples=number, deadline=None, database=None, derandomize=True, suppress_health_check=checks)
        @given(documents)
        def run(document):
            self.send_body(json.dumps(document).encode())

        run()


def attack(server, number):
    """A third each of documents, of bodies and of framings; the attacker, once all is well."""
    attacker = Attacker(server)
    attacker.bodies(number // 6, seed=1)
    attacker.framings(number // 6, seed=2)
    before = server.resident_bytes()
    attacker.documents(number // 3)
    attacker.bodies(number // 3, seed=3)
    attacker.framings(number // 3, seed=4)
    attacker.check()
    attacker.connection.close()
    growth = server.resident_bytes() - before
    print(f"{attacker.count} requests, by status {attacker.statuses}; memory grew by {growth / 1e6:.1f} MB")
    assert growth < MAX_GROWTH_BYTES
    assert server.process.poll() is None
    failed = [line for line in server.lines() if line["level"] == "error"]
    assert not failed
    return attacker


def test_a_hundred_malformed_requests_do_no_harm(server):
    attacker = attack(server, 90)
    assert attacker.count >= 100
    assert attacker.statuses[400] > attacker.count / 3


@pytest.mark.slow
def test_twenty_thousand_malformed_requests_do_no_harm(served_model, tmp_path):
    with serve(served_model, tmp_path / "log.txt", "--max-batch", "64") as server:
        attacker = attack(server, 21_600)
    assert attacker.count >= 20_000
