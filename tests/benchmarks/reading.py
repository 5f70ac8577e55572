"""Files into features, and the first answer of a new process: seconds and processor time.

    python -m tests.benchmarks.reading [--run RUN] [--num-small 2000] [--num-long 64]

Pictures and words are the built-in images as PNG and notes of 0.7 s at 8 kHz as WAV; long sounds have 10 s at 44.1 kHz
and are read as `--sound sound` reads them. Processor time counts where other programs share the machine.
"""

import io
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import tyro

from kfusion.cli import quiet
from tests.benchmarks.contender import ROOT


@dataclass(frozen=True)
class Settings:
    """Measure how fast files are read."""

    run: Path | None = None
    """A finished run on files: the first answer to a pair, beside the import of TensorFlow."""
    num_small: int = 2000
    """Pictures, and words."""
    num_long: int = 64
    """Sounds of 10 s."""


def processor_s() -> float:
    """Of this process, and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def long_sound(number: int) -> bytes:
    """A note that grows and fades, in noise."""
    time_s, written = np.arange(441_000) / 44_100, io.BytesIO()
    note = 0.2 * np.sin(2 * np.pi * (300 + 20 * number) * time_s) * (0.6 + 0.4 * np.sin(3 * time_s))
    noise = np.random.default_rng(number).normal(0, 0.01, len(note))
    soundfile.write(written, note + noise, 44_100, "PCM_16", format="WAV")
    return written.getvalue()


def reading(settings: Settings, folder: Path) -> None:
    """Prints files a second of each kind."""
    with quiet():
        from kfusion.data.media_features import FrontEnd, _made
        from kfusion.modalities import modality
        from kfusion.modalities.audio.recipe import chosen_recipe
        from kfusion.modalities.front_ends import file_reader
        from kfusion.spec import audio_spec, image_spec
        from tests.media import digit_images, encoded, tone_bytes

    images, _ = digit_images()
    long = chosen_recipe("sound", 10.0, 16_000, [])[0]
    assert long
    kinds = {
        "PNG": (image_spec((28, 28, 1)), settings.num_small, lambda number: encoded(images[number % len(images)])),
        "WAV, a word": (audio_spec(), settings.num_small, lambda number: tone_bytes(200 + number % 100, number, 0.7)),
        "WAV, 10 s": (replace(audio_spec(long.grid), front_end=long.front_end), settings.num_long, long_sound),
    }
    for title, (spec, num, content) in kinds.items():
        paths = [folder / f"{title}-{number}" for number in range(num)]
        for number, path in enumerate(paths):
            path.write_bytes(content(number))
        kind = modality(spec)
        dtype = np.uint8 if kind.is_bounded() else np.float32
        front_end = FrontEnd("", "", file_reader(spec), spec.shape, dtype, kind.standard_file)
        _made(paths[:2], front_end, None)
        start_s, start_processor_s = time.perf_counter(), processor_s()
        _made(paths, front_end, None)
        seconds, used_s = time.perf_counter() - start_s, processor_s() - start_processor_s
        print(f"{title}: {num / seconds:,.0f} files/s, {used_s / num * 1000:.2f} ms of processor time a file")


def first_answer(run: Path, folder: Path) -> None:
    """Prints what a new process needs for one pair, and what the import of TensorFlow alone takes."""
    from tests.media import digit_images, encoded, tone_bytes

    (folder / "pair").mkdir()
    (folder / "pair" / "a.png").write_bytes(encoded(digit_images()[0][0]))
    (folder / "pair" / "a.wav").write_bytes(tone_bytes(300, seconds=0.7))
    predict = ["-m", "kfusion.predict", str(run.resolve()), str(folder / "pair"), "--out", str(folder / "out.csv")]
    for title, words in {
        "import tensorflow": ["-c", "import tensorflow"],
        "predict": [*predict, "--overwrite"],
    }.items():
        for _ in range(3):  # The graphs are kept after the first.
            start_s, start_processor_s = time.perf_counter(), processor_s()
            subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
            seconds, used_s = time.perf_counter() - start_s, processor_s() - start_processor_s
        print(f"{title}: {seconds:.2f} s, {used_s:.2f} s of processor time")


def main() -> None:
    settings = tyro.cli(Settings, prog="python -m tests.benchmarks.reading", description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        reading(settings, Path(folder))
        if settings.run:
            first_answer(settings.run, Path(folder))


if __name__ == "__main__":
    main()
