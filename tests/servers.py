"""A real server process on loopback, for the tests of the server and its clients."""

import contextlib
import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.processes import ROOT, start_verb


class Server:
    """A running `python -m kfusion.serve`, its address, and short ways to ask it."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers, whatever the status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def get(self, path: str) -> tuple[int, Any]:
        status, body, _ = self.ask("GET", path)
        return status, json.loads(body)

    def predict(self, document: Any, where: str = "/v1/models/kfusion") -> tuple[int, Any]:
        """Status and JSON of a predict request."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, answer, _ = self.ask("POST", f"{where}:predict", body)
        return status, json.loads(answer)

    def metric(self, name: str) -> float:
        """A metric's value, from the page that Prometheus reads."""
        page = self.ask("GET", "/metrics")[1].decode()
        return float(re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page, re.M)[0])

    def lines(self) -> list[dict[str, Any]]:
        """What the log holds so far, but for a line that is still being written."""
        return [json.loads(line) for line in self.log.read_text().rpartition("\n")[0].splitlines()]

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def serve(model: Path, log: Path, *flags: Any) -> Iterator[Server]:
    """A server on a free port, until the block ends."""
    with log.open("w") as errors:
        flags = (model, "--port", "0", *flags)
        process = start_verb("kfusion.serve", *flags, cwd=ROOT, columns=120, stderr=errors)
    try:
        assert process.stdout
        said = process.stdout.readline()
        found = re.search(r"http://\S+?:\d+", said)
        assert found, f"{said}{log.read_text()}"
        yield Server(process, found[0], log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
