"""The sections on the training: what was trained on what, the curves, the machine, the commands."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from kfusion.config import RECIPES, Config, differences
from kfusion.reporting.components import (
    Block,
    Code,
    Facts,
    Missing,
    Table,
    command,
    count,
    listed,
    many,
    percent,
    picture,
)
from kfusion.reporting.run_data import Findings

FUSIONS = {"lstm": "LSTM over the two embeddings", "attention": "transformer encoder", "late": "sum of log posteriors"}
SPLITS = {
    "clip": "no image or clip on two sides",
    "random": "at random, as in the paper: clips may be on two sides",
    "speaker": "by person",
}

DEFAULT_GRID_ROWS = 10_000
"""Of kfusion.evaluate."""
PARTS = {"train": "training", "val": "validation", "test": "test"}


def closest_recipe(config: Config) -> str:
    """The recipe from which the fewest settings differ."""
    return min(RECIPES, key=lambda name: len(differences(RECIPES[name], config)))


def setting(config: Config, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(config, section), name)


def training(found: Findings) -> Iterator[Block]:
    """What was trained on what."""
    yield Facts("The data", list(_data_facts(found)))
    yield Facts("The model", list(_model_facts(found)))
    base = closest_recipe(found.config)
    if changed := _changed(base, found.config):
        yield Table(f"Settings other than the recipe {base}", ["setting", base, "here"], changed, (0, 1, 2))
    if base != "paper":
        changed = _changed("paper", found.config)
        yield Table("Settings other than the paper's", ["setting", "paper", "here"], changed, (0, 1, 2), folded=True)


def _data_facts(found: Findings) -> Iterator[tuple[str, str]]:
    data, spec, split = found.data, found.run.spec(), found.config.data.split
    source, (frames, coefficients) = data["source"], spec.audio_grid
    files = listed([f"{name}, {size / 1e6:.1f} MB" for name, size in source["files"].items()])
    yield "Data", f"{source['name']} ({files})"
    yield "Pairs", ", ".join(f"{count(data['num_pairs'][key])} {title}" for key, title in PARTS.items())
    yield "Split", f"{split}: {SPLITS[split]}"
    yield "Audit", "; ".join(data["audit"])
    yield "Image", " × ".join(map(str, spec.image_shape)) + f" pixels and channels, 0 to {spec.pixel_max}"
    yield "Sound", f"{frames} frames × {coefficients} coefficients" if frames > 1 else f"{coefficients} features"
    yield "Classes", f"{spec.num_classes}: {listed(list(spec.class_names))}"
    if source.get("licence"):
        yield "Licence", source["licence"]


def _model_facts(found: Findings) -> Iterator[tuple[str, str]]:
    model, fit, metrics, base = found.config.model, found.config.training, found.metrics, closest_recipe(found.config)
    changed = len(differences(RECIPES[base], found.config))
    speeds = sorted(row["samples_per_second"] for row in found.history)
    yield "Recipe", base if not changed else f"{base}, {many(changed, 'setting')} changed"
    yield "Fusion", f"{model.fusion}: {FUSIONS[model.fusion]}"
    yield "Sizes", f"embeddings of {model.embed_dim}, hidden {model.hidden_dim}"
    yield "Epochs", f"{metrics['epochs']}, the weights of epoch {metrics['best_epoch']} kept"
    yield "Batch", f"{fit.batch_size} pairs, peak learning rate {fit.peak_learning_rate:g}"
    yield "Speed", f"{count(speeds[len(speeds) // 2])} samples per second (median epoch)"
    yield "Seed", str(fit.seed)


def _changed(base: str, config: Config) -> list[list[str]]:
    """The settings in which a config differs from a recipe: name, the recipe's value, the config's."""
    recipe = RECIPES[base]
    return [[path, *(_value(setting(each, path)) for each in (recipe, config))] for path in differences(recipe, config)]


def curves(found: Findings) -> Iterator[Block]:
    """Loss, accuracy and learning rate over the epochs."""
    last, kept = found.history[-1], found.history[found.metrics["best_epoch"] - 1]
    alt = (
        f"Curves over {len(found.history)} epochs. Training loss ends at {last['loss']:.3g}, validation loss at "
        f"{last['val_loss']:.3g}; validation accuracy in the kept epoch, {int(kept['epoch'])}: "
        f"{percent(kept['val_accuracy'])}."
    )
    drawn = picture(found.run.figures, "learning_curves", alt, "Loss, accuracy and learning rate over the epochs.")
    again = command("train", "--config", found.run.folder / "config.json")
    yield from drawn or [Missing("the learning curves", again)]
    yield from picture(
        found.run.figures,
        "augmented_images",
        "A grid of training images: each row shows one image as it is, then as six epochs change it.",
        "Training images, and what training made of them in six epochs",
        photo=True,
        folded=True,
    )


def environment(found: Findings) -> Iterator[Block]:
    """The machine and the versions."""
    facts = found.environment
    machine = [
        ("System", f"{facts['system']}, Python {facts['python']}"),
        ("Processor", f"{facts['processor']}, {facts['num_processors']} cores"),
        ("Accelerators", listed(facts["accelerators"]) or "none"),
        ("Arithmetic", facts["precision"]),
    ]
    rows = [[name, version or "from a checkout"] for name, version in facts["packages"].items()]
    yield Facts("The machine", machine)
    yield Table("Packages", ["package", "version"], rows, (0, 1))


def commands(found: Findings, others: list[Findings], out: Path) -> Iterator[Block]:
    """The commands that made what is on the page."""
    folder = found.run.folder
    lines = [(train_command(found.config), "trains the same again")]
    if found.evaluation:
        words = ["--seed", str(found.evaluation["seed"]), *_grid_flags(found)]
        lines.append((command("evaluate", folder, *words), "results, who decides, calibration, robustness, errors"))
    if found.embeddings:
        facts = found.embeddings
        words = ["--samples", str(facts["samples"]), "--seed", str(facts["seed"]), *["--umap"] * facts["umap"]]
        lines.append((command("embed", folder, *words), "embeddings"))
    words = ["--compare", *(other.run.folder for other in others)] if others else []
    words += ["--out", out] if out != folder / "report.html" else []
    lines.append((command("report", folder, *words), "this page"))
    yield Code(lines)


def _grid_flags(found: Findings) -> list[str]:
    """What was said of the robustness grid, if anything."""
    if found.robustness is None:
        return ["--no-grid"]
    num_rows = found.robustness["num_rows"]
    return [] if num_rows == min(found.num_rows, DEFAULT_GRID_ROWS) else ["--grid-rows", str(num_rows)]


def train_command(config: Config) -> str:
    """The command line that means this config."""
    base = closest_recipe(config)
    flags = [f"--recipe {base}"] if base != "paper" else []
    for path in differences(RECIPES[base], config):
        flags.append(_flag(path.split(".")[1].replace("_", "-"), setting(config, path)))
    return " ".join(["python -m kfusion.train", *flags])


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, tuple):
        return " ".join([f"--{name}", *(_quoted(each) for each in value)])
    return f"--{name} {_quoted(value)}"


def _quoted(value: Any) -> str:
    return quote(str(value))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value) or "none"
