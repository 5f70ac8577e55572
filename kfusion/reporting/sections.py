"""The sections of a run's report.

training      what was trained on what
curves        loss, accuracy and learning rate over the epochs
results       accuracies with intervals, tests, the report by class, confusion
decides       who decides, and what fusing costs
calibration   whether the confidence can be believed
trust         what the model does not know
robustness    what corruptions do to it
embeddings    how well they separate the classes
errors        the samples that the model does worst on
environment   the machine and the versions
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfusion.config import HEADS, Config, differences
from kfusion.metrics.modalities import crossed_maps
from kfusion.modalities import each_of, modality
from kfusion.plots.tables import (
    Table,
    agreement_table,
    calibration_table,
    called,
    followed_table,
    lost_tables,
    report_table,
    separation_table,
    sources_table,
    tests_table,
    trust_sentences,
    trust_table,
    view_titles,
)
from kfusion.recipes import RECIPES, closest_recipe
from kfusion.reporting.components import (
    Block,
    Facts,
    Heat,
    Interval,
    Intervals,
    Missing,
    Text,
    between,
    command,
    count,
    digits_for,
    drawn,
    in_words,
    listed,
    many,
    missing,
    percent,
    picture,
    score,
)
from kfusion.reporting.run_data import Findings
from kfusion.spec import FUSED, together

SPLITS = {
    "clip": "no {every} on two sides",
    "random": "at random, as in the paper: {last}s may be on two sides",
    "speaker": "by person",
}
DEFAULT_GRID_ROWS = 10_000
"""Of kfusion.evaluate."""
PARTS = {"train": "training", "val": "validation", "test": "test"}


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
    model, fit, metrics = findings.model, findings.config.training, findings.metrics
    base = closest_recipe(findings.config)
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


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value) or "none"


PROJECTIONS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
MAX_HEAT_CLASSES = 20
"""Classes of a confusion matrix that is a table; a larger one is a picture."""
SHOWN_ERRORS = 40


def accuracies(findings: Findings) -> dict[str, Interval]:
    """Each way to ask the model, by its title, with its interval where the evaluation knows one."""
    views = (findings.evaluation or findings.metrics)["views"]
    digits = digits_for(findings.num_rows)
    rows = {}
    for view, title in view_titles(views).items():
        facts = views[view]
        bounds = facts.get("interval")
        balanced = percent(facts["macro_f1"], digits) if "macro_f1" in facts else "–"
        cells = [percent(facts["accuracy"], digits), between(bounds, digits), balanced, count(facts["num_errors"])]
        rows[title] = Interval(title, facts["accuracy"], bounds and tuple(bounds), cells)
    return rows


def axis_low(rows: list[Interval]) -> float:
    """Where a scale begins that holds all of these, on a tenth or, near the top, on a twentieth."""
    lowest = min(row.bounds[0] if row.bounds else row.value for row in rows)
    step = 20 if lowest >= 0.9 else 10
    return max(0.0, int(lowest * step - 1e-9) / step)


def results(findings: Findings) -> Iterator[Block]:
    """Accuracies with intervals, tests, the report by class, and what is taken for what."""
    rows, facts, words = list(accuracies(findings).values()), findings.evaluation, findings.words
    head = ["asked by", "accuracy", "95 % interval", "macro-F1", "errors"]
    part = (facts or {}).get("data", {}).get("part", "test part")
    caption = f"One model, asked in each way: {part} of {count(findings.num_rows)} {words.unit}s"
    yield Intervals(caption, head, rows, axis_low(rows))
    if facts is None:
        yield missing(findings, "evaluate", "intervals and tests")
    else:
        yield Text(facts["interval_method"] + ".")
        if facts["tests"]:
            yield tests_table(facts["tests"])
    if sources := (facts or findings.metrics).get("sources"):
        yield sources_table(sources, words)
    if findings.elsewhere:
        yield _elsewhere(findings)
    modalities = {1: "", 2: ", both modalities"}.get(len(words.nouns), ", all modalities")
    report = report_table((facts or findings.metrics)["report"])
    yield replace(report, caption=f"Classification report{modalities}", folded=True)
    yield from _confusions(findings, facts)


def _elsewhere(findings: Findings) -> Table:
    rows, titles = [], view_titles(findings.metrics["views"])
    for name, facts in findings.elsewhere.items():
        data, digits = facts["data"], digits_for(facts["data"]["num_rows"])
        views = [facts["views"][view] for view in titles]
        cells = [f"{percent(each['accuracy'], digits)} ({between(each['interval'], digits)})" for each in views]
        rows.append([f"{name}, {data['part']}", count(data["num_rows"]), *cells])
    head = ["data", f"{findings.words.unit}s", *titles.values()]
    return Table("On other data, with 95 % intervals", head, rows)


def _confusions(findings: Findings, facts: dict[str, Any] | None) -> Iterator[Block]:
    matrices = facts["confusion"] if facts else {FUSED: findings.metrics["confusion"]}
    names = list(findings.run.spec().class_names)
    for view, answers in view_titles(matrices).items():
        title = f"Confusion, {answers}"
        if len(names) <= MAX_HEAT_CLASSES:
            caption = f"{title}: true class by row, answer by column"
            yield _confusion(matrices[view], names, caption, folded=view != FUSED)
        elif facts:
            alt = f"Confusion matrix of the {answers} answers over {len(names)} classes."
            yield from drawn(findings, "evaluate", f"confusion_{view}", alt, f"{title}.", photo=True)


def _confusion(matrix: list[list[int]], names: list[str], caption: str, folded: bool = False) -> Heat:
    """A confusion matrix; the colour is the share of the true class, errors in another one."""
    rows = []
    for at, (name, counts) in enumerate(zip(names, matrix, strict=True)):
        total = max(sum(counts), 1)
        # The square root: one error among many rows would not be seen on a straight scale.
        cells = [(str(each), (each / total) ** 0.5, "a" if at == to else "b") for to, each in enumerate(counts)]
        rows.append((name, cells))
    return Heat(caption, "true", names, rows, folded=folded)


def decides(findings: Findings) -> Iterator[Block]:
    """Which modality the fused answer follows, and what fusing costs."""
    facts, words = findings.evaluation, findings.words
    if facts is None:
        yield missing(findings, "evaluate", "who decides")
        return
    if not facts["decides"]["conflict"]:
        yield Text(f"The model has one modality, the {words.last}, which decides alone.")
        return
    text = _winner(facts["decides"]["conflict"], words.nouns)
    yield Text(text, strong=True)
    yield from drawn(findings, "evaluate", "who_decides", f"Stacked bars. {text}", "Whom the fused answer follows.")
    yield followed_table(facts["decides"], words)
    yield agreement_table(facts["decides"]["agreement"])
    lost = facts["negative_fusion"]
    yield Text(
        f"Negative fusion: {many(lost['num_lost'], words.unit)} ({percent(lost['share'], 2)}) that the fused answer "
        f"loses though one modality alone had them. {many(lost['num_rescued'], words.unit)} won though {words.none} "
        "had them."
    )
    if lost["num_lost"]:
        yield from lost_tables(lost)


def _winner(conflict: dict[str, Any], nouns: dict[str, str]) -> str:
    """Who wins, over all kinds of conflict."""
    won = [facts["won_clear"] or facts["won"] for facts in conflict.values()]
    shares = {noun: percent(sum(each[name] for each in won) / len(won), 0) for name, noun in nouns.items()}
    (first, share), *others = shares.items()
    wins = [f"the {first} wins {share} of the conflicts", *(f"the {noun} {share}" for noun, share in others)]
    return f"Set against each other, with each side right on its own, {together(wins)}."


def calibration(findings: Findings) -> Iterator[Block]:
    """Whether the confidence can be believed."""
    facts = findings.evaluation
    if facts is None:
        yield missing(findings, "evaluate", "calibration")
        return
    views = facts["calibration"]
    fused = views[FUSED]
    text = (
        f"The {findings.words.answer}'s confidence is off by {percent(fused['before']['ece'], 2)} on average, and by "
        f"{percent(fused['after']['ece'], 2)} after its temperature, {fused['temperature']:.2f}, fitted on validation."
    )
    yield Text(text, strong=True)
    yield calibration_table(views)
    num_views = len(view_titles([view for view in views if views[view]["before"]]))
    diagrams = f"Reliability diagrams of {in_words(num_views)} views" if num_views > 1 else "A reliability diagram"
    alt = f"{diagrams}, accuracy over confidence. {text}"
    yield from drawn(findings, "evaluate", "reliability", alt, "Reliability: accuracy over confidence.")


def trust(findings: Findings) -> Iterator[Block]:
    """What the model does not know, and whether its sets hold what they promise."""
    facts = (findings.evaluation or {}).get("trust")
    if facts is None:
        yield missing(findings, "evaluate", "how far it is to be trusted")
        return
    first, *others = trust_sentences(facts, findings.words)
    yield Text(first, strong=True)
    yield Text(" ".join(others))
    yield trust_table(facts)
    curve = facts["curve"]
    alt = f"Accuracy over the share that is answered: {curve[0][1]:.4f} of the surest, {curve[-1][1]:.4f} of all."
    yield from drawn(findings, "evaluate", "trust", alt, "Accuracy of the surest answers.")
    samples = together([f"{noun}s" for noun in findings.words.nouns.values()])
    alt = f"{samples[0].upper()}{samples[1:]} of the {len(facts['strangest'])} least familiar samples, with the votes."
    yield from drawn(findings, "evaluate", "strangest", alt, "The least familiar first.", photo=True, wide=True)


def robustness(findings: Findings) -> Iterator[Block]:
    """Accuracy under corruptions of one modality, and of two."""
    grid, nouns = findings.robustness, findings.words.nouns
    if grid is None:
        yield missing(findings, "evaluate", "the robustness grid")
        return
    area, maps = grid["area"], crossed_maps(grid)
    spoilt = [f"{percent(area[name])} with a spoilt {noun}" for name, noun in nouns.items()]
    if maps:
        spoilt.append(f"{percent(area['both'])} with {'both' if len(nouns) == 2 else 'two of them'} spoilt")
    text = (
        f"Over all corruptions the model keeps {percent(area['accuracy'])} accuracy: {', '.join(spoilt)}. Its "
        f"calibration error is then {percent(area['ece'])}."
    )
    yield Text(text, strong=True)
    yield from (_alone(findings, grid, modality) for modality in nouns)
    for name, title in (("robustness_accuracy", "accuracy"), ("robustness_ece", "expected calibration error")):
        for pair in maps:
            first, second = (nouns[each] for each in pair)
            alt = f"Heat map of the {title} for each corruption of the {first} with each of the {second}. {text}"
            caption = f"Mean {title} over five severities, {first} × {second}."
            figure = name if len(maps) == 1 else f"{name}_{'_'.join(pair)}"
            yield from drawn(findings, "evaluate", figure, alt, caption, photo=True)


def _alone(findings: Findings, grid: dict[str, Any], modality: str) -> Heat:
    """Fused accuracy by corruption and severity, all other modalities clean."""
    rows, words = [], findings.words
    for name, facts in grid["corruptions"][modality].items():
        shares = grid["alone"][modality][name][FUSED]["accuracy"]
        mean = sum(shares) / len(shares)
        rows.append((facts["title"], [(f"{100 * share:.1f}", 1 - share, "b") for share in [*shares, mean]]))
    clean = {view: percent(scores["accuracy"]) for view, scores in grid["clean"].items()}
    others = [clean[name] for name in words.nouns if name != modality]
    other = f", and the other modality alone has {others[0]}" if len(others) == 1 else ""
    return Heat(
        f"Accuracy with a spoilt {words.nouns[modality]}, %, by severity",
        "corruption",
        [*(f"{severity}" for severity in grid["severities"]), "mean"],
        rows,
        f"{words.answer.capitalize()}; clean it is {clean[FUSED]}{other}. {many(grid['num_rows'], words.unit)}.",
    )


def embeddings(findings: Findings) -> Iterator[Block]:
    """How well each modality's embeddings and the fused ones separate the classes."""
    facts = findings.embeddings
    if facts is None:
        yield missing(findings, "embed", "the embeddings")
        return
    yield Text(facts["verdict"], strong=True)
    yield separation_table({findings.name: facts}, findings.words)
    yield Text(_how_probed(findings, facts))
    yield from _projections(findings, facts)


def _how_probed(findings: Findings, facts: dict[str, Any]) -> str:
    """Why the probes' figures do not leak."""
    words = findings.words
    text = (
        f"{count(facts['num_rows'])} of {count(facts['num_test_rows'])} test {words.unit}s. The probes and their "
        f"scaling are fitted on the embeddings of {count(facts['num_fit_rows'])} training {words.unit}s, each "
        "different one once, and scored on these."
    )
    number = {name: count(each["num_different"]) for name, each in facts["embeddings"].items()}
    different = together([f"{number[name]} different {noun}s" for name, noun in words.nouns.items()])
    text += f" These hold {different}, {number[FUSED]} different {words.unit}s."
    share = facts["leaked_share"]
    items = together(words.items[::-1], "or")
    return text + (f" {percent(share)} of the test {words.unit}s hold a {items} of the training." if share else "")


def _projections(findings: Findings, facts: dict[str, Any]) -> Iterator[Block]:
    for kind, projection in PROJECTIONS.items():
        for name, numbers in facts["embeddings"].items():
            if f"{name}_{kind}" not in facts["figures"]:
                continue
            ari = score(numbers["kmeans"]["ari"]["mean"])
            alt = (
                f"Two panels of the same points: the {name} embedding in two dimensions by {projection}, coloured by "
                f"cluster and by class. Clusters and classes agree with an adjusted Rand index of {ari}."
            )
            caption = f"{projection} of the {name} embedding: KMeans' clusters beside the classes."
            if kind == "pca":
                held = percent(sum(numbers["pca_variance"]), 0)
                caption = f"{projection} of the {name} embedding; its two axes hold {held} of the variance"
            look = {"photo": True, "folded": kind == "pca"}
            yield from drawn(findings, "embed", f"{name}_{kind}", alt, caption, **look)


def errors(findings: Findings) -> Iterator[Block]:
    """The samples that the model does worst on."""
    facts, words = findings.evaluation, findings.words
    if facts is None:
        yield missing(findings, "evaluate", "the worst errors")
        return
    if not facts["worst"]:
        yield Text(f"No view gets any test {words.unit} wrong.")
        return
    samples = together([f"{noun}s" for noun in words.nouns.values()])
    alt = (
        f"{samples[0].upper()}{samples[1:]} of {many(len(facts['worst']), words.unit)} with the votes, as in the table "
        "below the picture."
    )
    caption = f"The worst errors, those of the {words.answer} first."
    yield from drawn(findings, "evaluate", "worst_errors", alt, caption, photo=True, wide=True)
    titles = view_titles(facts["worst"][0]["votes"])
    rows = [
        [called(row), row["label"], *(_vote(row["votes"][view]) for view in titles)]
        for row in facts["worst"][:SHOWN_ERRORS]
    ]
    head = ["test row", "truth", *titles.values()]
    yield Table("The same in words, with confidence", head, rows, tuple(range(len(head))), folded=True)


def _vote(vote: dict[str, Any]) -> str:
    return f"{vote['class']} ({percent(vote['confidence'], 0)})"
