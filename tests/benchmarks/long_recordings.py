"""What windows are worth: recordings of a minute in which the sound is heard beside the middle.

Run: python -m tests.benchmarks.long_recordings DATA OUT [--folds 2] [--noise-db -50]

DATA is a folder of classes with sounds of ten seconds, of which a fifth is held out in each fold. Each is laid into a
minute of faint noise, at its beginning or its end. Networks that hear ten seconds are trained on the middle of these
minutes, and on their windows; both are asked about the middle of the held-out minutes, and about their windows.
"""

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from kfusion.prediction.inputs import Arrays, Files
from kfusion.prediction.models import RunModel
from kfusion.recipes import recipe
from kfusion.training.trainer import train

WHOLE_S, SOUND_S = 60, 10.0
COPIES = {"middle": 0, "windows": 11}
"""Windows of each recording in training."""


def laid_into(path: Path, noise_db: float, rng: np.random.Generator) -> bytes:
    """A minute of white noise with a sound at its beginning or its end, not in its middle, as a WAV file."""
    sound, rate = soundfile.read(path)
    whole = 10 ** (noise_db / 20) * rng.normal(size=WHOLE_S * rate)
    place = int(rng.uniform(*((0, 14), (36, 50))[int(rng.integers(2))]) * rate)
    whole[place : place + len(sound)] += sound
    file = io.BytesIO()
    soundfile.write(file, np.clip(whole, -1, 1), rate, "PCM_16", format="WAV")
    return file.getvalue()


def answered(run: Path, contents: list[bytes]) -> dict[str, np.ndarray]:
    """The classes that a run names: of the middle, and of the windows."""
    model = RunModel(run, all_views=False)
    values, reason = model._read("audio", contents)
    middle = Arrays({"audio": values}, np.ones((len(contents), 1), bool), reason)
    windows = Files({"audio": contents}, [""] * len(contents))
    asked = {"middle": middle, "windows": windows}
    return {name: model.answer(rows)["fused"].argmax(axis=1) for name, rows in asked.items()}


def main() -> None:
    """Trains and compares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--noise-db", type=float, default=-50)
    command = parser.parse_args()
    sounds = sorted(command.data.glob("*/sounds/*.wav"))
    names = sorted({path.parents[1].name for path in sounds})
    right: dict[tuple[str, str], list[np.ndarray]] = {}
    for fold in range(command.folds):
        rng, place = np.random.default_rng(fold), command.out / f"data-{fold}"
        long = [laid_into(path, command.noise_db, rng) for path in sounds]
        for row, path in enumerate(sounds):
            if row % 5 != fold:
                (place / path.parents[1].name).mkdir(parents=True, exist_ok=True)
                (place / path.parents[1].name / path.name).write_bytes(long[row])
        held_out = [row for row in range(len(sounds)) if row % 5 == fold]
        label = np.array([names.index(sounds[row].parents[1].name) for row in held_out])
        for trained, copies in COPIES.items():
            robust = recipe("robust")
            data = replace(robust.data, data=str(place), sound="sound", sound_seconds=SOUND_S, word_copies=copies)
            run = train(replace(robust, data=data), command.out / f"{trained}-{fold}")
            for asked, found in answered(run.folder, [long[row] for row in held_out]).items():
                right.setdefault((trained, asked), []).append(found == label)
                print(f"fold {fold}, trained on {trained}, asked about {asked}:", (found == label).mean().round(3))
    for (trained, asked), each in right.items():
        every = np.concatenate(each)
        print(f"trained on {trained:8} asked about {asked:8} {every.mean():.3f} of {len(every)}")


if __name__ == "__main__":
    main()
