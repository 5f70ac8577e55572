"""The server under load from `wrk` on loopback, beside LitServe and MLServer around the same exported model.

    python -m tests.benchmarks.serving_load saved_models/kfusion/1 --others-python PYTHON_WITH_LITSERVE_AND_MLSERVER
    python -m tests.benchmarks.serving_load saved_models/kfusion/1 --files --others-python …

`--files` sends what a browser sends: a PNG and a WAV in base64, which the others read by `serving_files`.

Needs wrk (Debian: apt-get install wrk). The others live in an environment of their own, since MLServer brings an old
FastAPI: `python -m venv VENV && VENV/bin/pip install litserve mlserver tensorflow pillow soundfile scipy`. Each
contender answers one pair per request, in its own protocol; that all give the same probabilities is checked before (of
files: all the others, which hear the whole file as the word). LitServe and MLServer run without and with adaptive
batching, and the better of the two counts. Each round starts no server anew; rounds are interleaved, and all servers
but the one under load are stopped (SIGSTOP), so that none of them polls beside it.
"""

import base64
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import tyro
from PIL import Image
from rich.table import Table

from kfusion.data.loaders import load_builtin
from kfusion.io import write_json
from tests.benchmarks.answering import family
from tests.benchmarks.others import Others
from tests.benchmarks.tables import verdict, wide_console

RATE_GOAL, TAIL_GOAL, CLIENTS, BATCH = 2.0, 3.0, 32, 64
FIRST_PORT, PORTS_EACH, START_S = 18600, 5, 180
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """Measure the server under load."""

    version: tyro.conf.Positional[Path]
    """An exported version: saved_models/NAME/VERSION."""
    others_python: Path | None = None
    """A Python with litserve, mlserver and tensorflow; without it kfusion runs alone."""
    files: bool = False
    """Send a PNG and a WAV, not numbers."""
    seconds: int = 5
    """Of each measurement."""
    rounds: int = 5
    warmup: int = 2
    """Seconds of load before the first round."""
    out: Path | None = None
    """A JSON file for all figures."""


@dataclass
class Contender:
    """A server process, its address, and the request that it understands."""

    name: str
    process: subprocess.Popen
    url: str
    body: str

    def signal(self, number: signal.Signals) -> None:
        for pid in family(self.process.pid):
            os.kill(pid, number)


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((28, 28, 1)).round(4), (rng.normal(size=507) * 20).round(4)


def files() -> dict[str, str]:
    """A digit as PNG and half a second of a hummed sound as 16-bit WAV at 44.1 kHz, in base64."""
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.asarray(load_builtin()["image"].values)[7].reshape(28, 28).astype(np.uint8)).save(picture, "PNG")
    t = np.arange(22050) / 44100
    hum = np.sin(np.pi * t / t[-1]) * sum(np.sin(2 * np.pi * 140 * each * t) / each for each in range(1, 9))
    soundfile.write(sound, 0.1 * hum, 44100, "PCM_16", format="WAV")
    return {
        f"{name}_bytes": base64.b64encode(file.getvalue()).decode()
        for name, file in (("image", picture), ("audio", sound))
    }


def rows_body(of_files: bool) -> str:
    if of_files:
        row = {name: {"b64": text} for name, text in files().items()}
        return json.dumps({"signature_name": "raw_bytes", "instances": [row]})
    image, audio = pair()
    return json.dumps({"instances": [{"image": image.tolist(), "audio": audio.tolist()}]})


def v2_body(of_files: bool) -> str:
    tensors = []
    if of_files:
        tensors = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]} for name, text in files().items()
        ]
        return json.dumps({"inputs": tensors})
    for name, values in zip(("image", "audio"), pair(), strict=True):
        shape = [1, *values.shape]
        tensors.append({"name": name, "shape": shape, "datatype": "FP32", "data": values.ravel().tolist()})
    return json.dumps({"inputs": tensors})


def probabilities(answer: dict) -> list[float]:
    if "predictions" in answer:
        return answer["predictions"][0]["probabilities"]
    return next(each["data"] for each in answer["outputs"] if each["name"] == "probabilities")


def start(settings: Settings, number: int, kind: str, size: int, work: Path) -> Contender:
    port = FIRST_PORT + number * PORTS_EACH
    if kind == "kfusion":
        command = [sys.executable, "-m", "kfusion.serve", str(settings.version.parent), "--port", str(port)]
        command += ["--name", "kfusion"]
        url, body = f"http://127.0.0.1:{port}/v1/models/kfusion:predict", rows_body(settings.files)
    else:
        script = HERE / f"serving_{kind.lower()}.py"
        command = [str(settings.others_python), str(script), str(settings.version.resolve()), str(port), str(size)]
        path, make = ("/predict", rows_body) if kind == "LitServe" else ("/v2/models/kfusion/infer", v2_body)
        url, body = f"http://127.0.0.1:{port}{path}", make(settings.files)
    name = kind if kind == "kfusion" else f"{kind}, {'adaptive batching' if size > 1 else 'no batching'}"
    with (work / f"{number}.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=None if kind == "kfusion" else work)
    return Contender(name, process, url, body)


def wait_until_ready(contender: Contender) -> list[float]:
    """The probabilities of the pair, as soon as the server answers."""
    request = urllib.request.Request(contender.url, contender.body.encode(), {"Content-Type": "application/json"})
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return probabilities(json.loads(answer.read()))
        except OSError as error:
            if time.monotonic() > deadline or contender.process.poll() is not None:
                raise SystemExit(f"{contender.name} does not answer: {error}") from error
            time.sleep(0.5)


def load(contender: Contender, clients: int, seconds: int, work: Path) -> dict[str, float]:
    """Requests/s, and the median and the 99th percentile of the latency in milliseconds."""
    (work / "body.json").write_text(contender.body)
    script = work / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nlocal file = io.open("{work / "body.json"}")\nwrk.body = file:read("*a")\nfile:close()\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "--latency",
        "-s",
        script,
        contender.url,
    ]
    text = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{contender.name} failed under load:\n{text}")

    def milliseconds(percent: str) -> float:
        value, unit = re.findall(rf"{percent}%\s+([\d.]+)(us|ms|s)", text)[0]
        return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]

    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    return {"rate": rate, "p50": milliseconds("50"), "p99": milliseconds("99")}


def measure(contenders: list[Contender], settings: Settings, work: Path) -> dict[str, dict[str, list[dict]]]:
    """{contender: {clients: a measurement per round}}."""
    found: dict[str, dict[str, list[dict]]] = {each.name: {"1": [], str(CLIENTS): []} for each in contenders}
    for each in contenders:
        each.signal(signal.SIGSTOP)
    for turn in range(settings.rounds):
        for each in contenders:
            each.signal(signal.SIGCONT)
            if turn == 0:
                load(each, CLIENTS, settings.warmup, work)
            for clients in (1, CLIENTS):
                found[each.name][str(clients)].append(load(each, clients, settings.seconds, work))
            each.signal(signal.SIGSTOP)
    return found


def show(found: dict[str, dict[str, list[dict]]], others: str) -> None:
    console, table = wide_console(), Table(title=f"one pair per request, {CLIENTS} clients and 1 client; medians")
    for column in ("", "requests/s", "p50 ms", "p99 ms", "1 client p50 ms", "p99 ms", "kfusion ÷ it"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    many, ratios = str(CLIENTS), {}
    for name, figures in found.items():
        pairs = zip(found["kfusion"][many], figures[many], strict=True)
        ratios[name] = statistics.median(ours["rate"] / theirs["rate"] for ours, theirs in pairs)
        cells = [statistics.median(turn[key] for turn in figures[many]) for key in ("rate", "p50", "p99")]
        cells += [statistics.median(turn[key] for turn in figures["1"]) for key in ("p50", "p99")]
        table.add_row(name, f"{cells[0]:.0f}", *(f"{cell:.2f}" for cell in cells[1:]), f"{ratios[name]:.2f}")
    console.print(table)
    tail = statistics.median(turn["p99"] / turn["p50"] for turn in found["kfusion"][many])
    console.print(f"p99 ÷ p50 at {CLIENTS} clients: {tail:.2f}, goal ≤ {TAIL_GOAL:g}")
    if len(ratios) > 1:
        worst = min(ratio for name, ratio in ratios.items() if name != "kfusion")
        console.print(f"requests/s ÷ the better of the others: {worst:.2f}, goal {verdict(worst, RATE_GOAL)}")
    console.print(others, soft_wrap=True)


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.serving_load", description=__doc__)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    kinds = [("kfusion", BATCH)]
    if settings.others_python:
        kinds += [(kind, size) for kind in ("LitServe", "MLServer") for size in (1, BATCH)]
    others = Others()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        contenders = [start(settings, number, kind, size, work) for number, (kind, size) in enumerate(kinds)]
        try:
            answers = [wait_until_ready(each) for each in contenders]
            alike = answers[settings.files :]
            if not all(np.allclose(answer, alike[0], atol=1e-5) for answer in alike):
                raise SystemExit("the contenders do not give the same probabilities")
            found = measure(contenders, settings, work)
            share = others.share()  # While the servers' own children can still be told from other programs.
        finally:
            for each in contenders:
                each.signal(signal.SIGKILL)
    show(found, Others.verdict(share))
    if settings.out:
        write_json(settings.out, found)


if __name__ == "__main__":
    main()
