"""The sections on the training: what was trained on what, the curves, the machine, the commands."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from kfusion.config import HEADS, Config, differences
from kfusion.modalities import each_of, modality
from kfusion.plots.tables import Table, together
from kfusion.recipes import RECIPES
from kfusion.reporting.components import (
    Block,
    Code,
    Facts,
    Missing,
    command,
    count,
    listed,
    many,
    percent,
    picture,
)
from kfusion.reporting.run_data import Findings

SPLITS = {
    "clip": "no {every} on two sides",
    "random": "at random, as in the paper: {last}s may be on two sides",
    "speaker": "by person",
}
DEFAULT_GRID_ROWS = 10_000
"""Of kfusion.evaluate."""
PARTS = {"train": "training", "val": "validation", "test": "test"}


def closest_recipe(config: Config) -> str:
    """The recipe from which the fewest settings differ."""
    return min(RECIPES, key=lambda name: len(differences(RECIPES[name], config)))


def setting(config: Config, path: str) -> Any:
    """The value of a setting.

    Args:
        config: every setting.
        path: "section.name".
    """
    section, name = path.split(".")
    return getattr(getattr(config, section), name)


def training(findings: Findings) -> Iterator[Block]:
    """What was trained on what."""
    yield Facts("The data", list(_data_facts(findings)))
    yield Facts("The model", list(_model_facts(findings)))
    base = closest_recipe(findings.config)
    if changed := _changed(base, findings.config):
        yield Table(f"Settings other than the recipe {base}", ["setting", base, "here"], changed, (0, 1, 2))
    if base != "paper":
        changed = _changed("paper", findings.config)
        yield Table("Settings other than the paper's", ["setting", "paper", "here"], changed, (0, 1, 2), folded=True)


def _data_facts(findings: Findings) -> Iterator[tuple[str, str]]:
    data, spec, split = findings.data, findings.run.spec(), findings.config.data.split
    source, words = data["source"], findings.words
    files = listed([f"{name}, {size / 1e6:.1f} MB" for name, size in source["files"].items()])
    yield "Data", f"{source['name']} ({files})"
    yield (
        f"{words.unit.capitalize()}s",
        ", ".join(f"{count(data['num_pairs'][key])} {title}" for key, title in PARTS.items()),
    )
    yield "Split", f"{split}: {SPLITS[split].format(every=together(words.items, 'or'), last=words.items[-1])}"
    yield "Audit", "; ".join(data["audit"])
    for name, kind, shape in each_of(spec):
        yield words.nouns[name].capitalize(), kind.shape_in_words(shape)
    yield "Classes", f"{spec.num_classes}: {listed(list(spec.class_names))}"
    if source.get("licence"):
        yield "Licence", source["licence"]


def _model_facts(findings: Findings) -> Iterator[tuple[str, str]]:
    model, fit, metrics, base = (
        findings.model,
        findings.config.training,
        findings.metrics,
        closest_recipe(findings.config),
    )
    changed = len(differences(RECIPES[base], findings.config))
    speeds = sorted(row["samples_per_second"] for row in findings.history)
    yield "Recipe", base if not changed else f"{base}, {many(changed, 'setting')} changed"
    if "choice" in metrics:
        yield "Kept", metrics["choice"]["line"]
    yield "Fusion", f"{model.fusion}: {HEADS[model.fusion].description}"
    if findings.kept == "baselines":
        return
    yield "Sizes", f"embeddings of {model.embed_dim}, hidden {model.hidden_dim}"
    yield "Epochs", f"{metrics['epochs']}, the weights of epoch {metrics['best_epoch']} kept"
    batch_size = metrics.get("batch_size", fit.batch_size)
    yield "Batch", f"{batch_size} {findings.words.unit}s, peak learning rate {fit.peak_learning_rate:g}"
    yield "Speed", f"{count(speeds[len(speeds) // 2])} samples per second (median epoch)"
    yield "Seed", str(fit.seed)


def _changed(base: str, config: Config) -> list[list[str]]:
    """The settings in which a config differs from a recipe: name, the recipe's value, the config's."""
    recipe = RECIPES[base]
    return [[path, *(_value(setting(each, path)) for each in (recipe, config))] for path in differences(recipe, config)]


def curves(findings: Findings) -> Iterator[Block]:
    """Loss, accuracy and learning rate over the epochs."""
    last, kept = findings.history[-1], findings.history[findings.metrics["best_epoch"] - 1]
    alt = (
        f"Curves over {len(findings.history)} epochs. Training loss ends at {last['loss']:.3g}, validation loss at "
        f"{last['val_loss']:.3g}; validation accuracy in the kept epoch, {int(kept['epoch'])}: "
        f"{percent(kept['val_accuracy'])}."
    )
    drawn = picture(findings.run.figures, "learning_curves", alt, "Loss, accuracy and learning rate over the epochs.")
    again = command("train", "--config", findings.run.folder / "config.json")
    yield from drawn or [Missing("the learning curves", again)]
    (name, noun), *_ = findings.words.nouns.items()
    figure = Path(modality(findings.run.spec()[name]).array_file or name).stem
    alt = f"A grid of training {noun}s: each row shows one {noun} as it is, then as six epochs change it."
    caption = f"Training {noun}s, and what training made of them in six epochs"
    yield from picture(findings.run.figures, f"augmented_{figure}", alt, caption, photo=True, folded=True)


def environment(findings: Findings) -> Iterator[Block]:
    """The machine and the versions."""
    facts = findings.environment
    machine = [
        ("System", f"{facts['system']}, Python {facts['python']}"),
        ("Processor", f"{facts['processor']}, {facts['num_processors']} cores"),
        ("Accelerators", listed(facts["accelerators"]) or "none"),
        ("Arithmetic", facts["precision"]),
    ]
    rows = [[name, version or "from a checkout"] for name, version in facts["packages"].items()]
    yield Facts("The machine", machine)
    yield Table("Packages", ["package", "version"], rows, (0, 1))


def commands(findings: Findings, others: list[Findings], out: Path) -> Iterator[Block]:
    """The commands that made what is on the page.

    Args:
        findings: of the report's run.
        others: of the other runs.
        out: the page.
    """
    folder = findings.run.folder
    lines = [(train_command(findings.config), "trains the same again")]
    if findings.evaluation:
        words = ["--seed", str(findings.evaluation["seed"]), *_grid_flags(findings)]
        lines.append((command("evaluate", folder, *words), "results, who decides, calibration, robustness, errors"))
    if findings.embeddings:
        facts = findings.embeddings
        words = ["--samples", str(facts["samples"]), "--seed", str(facts["seed"]), *["--umap"] * facts["umap"]]
        lines.append((command("embed", folder, *words), "embeddings"))
    words = ["--compare", *(other.run.folder for other in others)] if others else []
    words += ["--out", out] if out != folder / "report.html" else []
    lines.append((command("report", folder, *words), "this page"))
    yield Code(lines)


def _grid_flags(findings: Findings) -> list[str]:
    """What was said of the robustness grid, if anything."""
    if findings.robustness is None:
        return ["--no-grid"]
    num_rows = findings.robustness["num_rows"]
    return [] if num_rows == min(findings.num_rows, DEFAULT_GRID_ROWS) else ["--grid-rows", str(num_rows)]


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
