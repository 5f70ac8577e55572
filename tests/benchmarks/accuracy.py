"""The README's accuracy tables: many runs of the real command, each tested once.

    python -m tests.benchmarks.accuracy builtin-paper builtin-robust speaker-robust --out accuracy.json
    python -m tests.benchmarks.accuracy full-paper full-robust --full FOLDER --seeds 0 --out accuracy.json

A run that is in the JSON file already is not repeated. FOLDER is the output of make_competition.py. Beside the figures
of the run itself ("pairs"), the built-in test part is scored on all pairings of its images with its sounds of the
same class ("all"): with 500 pairs alone, one error is 0.002.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from kfusion.data.dataset import Pairs
from kfusion.inference import load_network
from kfusion.prepared_data import gather
from kfusion.run_dir import open_run
from kfusion.training.trainer import evaluate

PEOPLE = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
COLUMNS = ("fused", "image", "audio", "late_fusion")


@dataclass(frozen=True)
class Settings:
    """Measure accuracy."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """builtin-paper, builtin-robust, random-paper, speaker-robust, full-paper, full-robust; any may end in -HEAD."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    full: Path | None = None
    """The full-size competition folder."""
    epochs: int = 0
    """Other than the recipe's; 0: the recipe's."""
    out: Path = Path("accuracy.json")


def flags(name: str, settings: Settings) -> list[list[str]]:
    """The command lines of one name, one per person for the speaker split."""
    data, recipe, *head = name.split("-")
    common = ["--recipe", recipe, *(["--fusion", head[0]] if head else [])]
    common += ["--epochs", str(settings.epochs)] if settings.epochs else []
    if data == "speaker":
        people = [["--test-speakers", person] for person in PEOPLE]
        return [[*common, "--split", "speaker", *person] for person in people]
    if data == "full":
        folder = settings.full
        return [[*common, "--data", str(folder), "--test-labels", str(folder and folder / "y_test_hidden.csv")]]
    return [[*common, *(["--split", "random"] if data == "random" else [])]]


def crossed(pairs: Pairs) -> Pairs:
    """Every image of a part with every sound of its class."""
    image, first_image = np.unique(pairs.rows["image"], return_index=True)
    audio, first_audio = np.unique(pairs.rows["audio"], return_index=True)
    label, audio_label = pairs.label[first_image], pairs.labels["audio"][first_audio]
    which_image, which_audio = np.nonzero(label[:, None] == audio_label[None])
    rows = {"image": image[which_image], "audio": audio[which_audio]}
    return Pairs(pairs.values, rows, label[which_image], pairs.spec)


def measure(words: list[str], seed: int) -> dict[str, Any]:
    """Trains once and tests once."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "kfusion.train", *words, "--seed", str(seed), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = open_run(out)
        metrics = run.metrics()
        result = {"pairs": {view: row["accuracy"] for view, row in metrics["views"].items()}}
        result |= {"epochs": metrics["epochs"], "rows": metrics["views"]["fused"]["num_rows"]}
        material = gather(run.config())
        if not material.source.aligned:
            parts = material.parts
            every = evaluate(load_network(run), crossed(parts.val), crossed(parts.test), material.statistics.prior)
            result["all"] = {view: row["accuracy"] for view, row in every["views"].items()}
        return result


def print_table(results: dict[str, Any], console: Console) -> None:
    """Mean ± standard deviation over the seeds, and the worst margin of the fused answer."""
    table = Table("run", "seeds", *COLUMNS, "worst margin")
    for name in dict.fromkeys(key.rsplit(" #", 1)[0] for key in results):
        rows = [result for key, result in results.items() if key.rsplit(" #", 1)[0] == name]
        for kind in ("pairs", "all"):
            views = [row[kind] for row in rows if kind in row]
            if not views:
                continue
            cells = [np.array([view[column] for view in views]) for column in COLUMNS]
            spread = [f"{cell.mean():.4f} ± {cell.std(ddof=len(cell) > 1):.4f}" for cell in cells]
            margin = min(view["fused"] - max(view[column] for column in COLUMNS[1:]) for view in views)
            table.add_row(f"{name} ({kind})", str(len(views)), *spread, f"{margin:+.4f}")
    console.print(table)


def main() -> None:
    settings = tyro.cli(Settings)
    console = Console(width=160)
    results = json.loads(settings.out.read_text()) if settings.out.exists() else {}
    for seed in settings.seeds:
        for name in settings.names:
            for words in flags(name, settings):
                key = " ".join([name, *words[words.index("--test-speakers") + 1 :]] if name[0] == "s" else [name])
                key = f"{key} #{seed}"
                if key not in results:
                    result = measure(words, seed)
                    console.print(key, result, soft_wrap=True)
                    # Read again: another process may have added its own meanwhile.
                    results = json.loads(settings.out.read_text()) if settings.out.exists() else {}
                    results[key] = result
                    settings.out.write_text(json.dumps(results, indent=1))
    print_table(results, console)


if __name__ == "__main__":
    main()
