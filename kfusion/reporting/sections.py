"""The sections on trust: who decides, calibration, the worst errors.

The section on the answers: accuracies with intervals, tests, the report by class, confusion.

The sections on what noise does to a run, and on its embeddings.
"""

from collections.abc import Iterator
from typing import Any

from kfusion.metrics.classification import class_rows
from kfusion.plots.tables import EMBEDDING_TITLES, HEADS, VIEW_TITLES
from kfusion.reporting.components import (
    Block,
    Heat,
    Interval,
    Intervals,
    Table,
    Text,
    between,
    change,
    count,
    digits_for,
    drawn,
    many,
    missing,
    p_value,
    percent,
    points,
    points_between,
    score,
)
from kfusion.reporting.run_data import Findings
from kfusion.spec import FUSED

SPOILT = {"image": "image", "audio": "sound"}
SCORES = {"ari": "adjusted Rand index", "nmi": "mutual information", "purity": "purity", "silhouette": "silhouette"}
PROJECTIONS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}


def robustness(found: Findings) -> Iterator[Block]:
    """Accuracy under corruptions of the image, the sound, and both."""
    grid = found.robustness
    if grid is None:
        yield missing(found, "evaluate", "the robustness grid")
        return
    area = grid["area"]
    text = (
        f"Over all corruptions the model keeps {percent(area['accuracy'])} accuracy: {percent(area['image'])} with a "
        f"spoilt image, {percent(area['audio'])} with a spoilt sound, {percent(area['both'])} with both spoilt. Its "
        f"calibration error is then {percent(area['ece'])}."
    )
    yield Text(text, strong=True)
    yield from (_alone(grid, modality) for modality in SPOILT)
    for name, title in (("robustness_accuracy", "accuracy"), ("robustness_ece", "expected calibration error")):
        alt = f"Heat map of the {title} for each corruption of the image with each of the sound. {text}"
        caption = f"Mean {title} over five severities, image × sound."
        yield from drawn(found, "evaluate", name, alt, caption, photo=True)


def _alone(grid: dict[str, Any], modality: str) -> Heat:
    """Fused accuracy by corruption and severity, the other modality clean."""
    rows = []
    for name, facts in grid["corruptions"][modality].items():
        shares = grid["alone"][modality][name]["fused"]["accuracy"]
        mean = sum(shares) / len(shares)
        rows.append((facts["title"], [(f"{100 * share:.1f}", 1 - share, "b") for share in [*shares, mean]]))
    clean, other = (
        grid["clean"]["fused"]["accuracy"],
        grid["clean"]["audio" if modality == "image" else "image"]["accuracy"],
    )
    return Heat(
        f"Accuracy with a spoilt {SPOILT[modality]}, %, by severity",
        "corruption",
        [*(f"{severity}" for severity in grid["severities"]), "mean"],
        rows,
        f"Fused answer; clean it is {percent(clean)}, and the other modality alone has {percent(other)}. "
        f"{count(grid['num_rows'])} pairs.",
    )


def embeddings(found: Findings) -> Iterator[Block]:
    """How well image, sound and fused embeddings separate the classes."""
    facts = found.embeddings
    if facts is None:
        yield missing(found, "embed", "the embeddings")
        return
    yield Text(facts["verdict"], strong=True)
    yield separation([(found.name, facts)])
    yield Text(how_probed(facts))
    yield from _projections(found, facts)


def separation(runs: list[tuple[str, dict[str, Any]]]) -> Table:
    """Scores of each embedding, for one run or several."""
    rows = []
    for run, facts in runs:
        for name, title in EMBEDDING_TITLES.items():
            numbers = facts["embeddings"][name]
            scores = [f"{score(s['mean'])} ± {score(s['std'])}" for s in (numbers["kmeans"][key] for key in HEADS)]
            probes = [percent(numbers["probes"][key]) for key in ("linear", "knn")]
            label = [f"{run}, {title}"] if len(runs) > 1 else [title]
            rows.append([*label, *scores, score(numbers["class_silhouette"]), *probes])
    head = ["embedding", *SCORES.values(), "silhouette by class", "linear probe", "5-NN"]
    return Table("Clusters of ten KMeans seeds (mean ± standard deviation), and probes", head, rows)


def how_probed(facts: dict[str, Any]) -> str:
    """Why the probes' figures do not leak."""
    text = (
        f"{count(facts['num_rows'])} of {count(facts['num_test_rows'])} test pairs. The probes and their scaling are "
        f"fitted on the embeddings of {count(facts['num_fit_rows'])} training pairs, each different one once, and "
        "scored on these."
    )
    different = [count(facts["embeddings"][name]["num_different"]) for name in EMBEDDING_TITLES]
    text += " These hold {} different images and {} different sounds, {} different pairs.".format(*different)
    share = facts["leaked_share"]
    return text + (f" {percent(share)} of the test pairs hold a clip or image of the training." if share else "")


def _projections(found: Findings, facts: dict[str, Any]) -> Iterator[Block]:
    for kind, projection in PROJECTIONS.items():
        for name, title in EMBEDDING_TITLES.items():
            if f"{name}_{kind}" not in facts["figures"]:
                continue
            numbers = facts["embeddings"][name]
            ari = score(numbers["kmeans"]["ari"]["mean"])
            alt = (
                f"Two panels of the same points: the {title} embedding in two dimensions by {projection}, coloured by "
                f"cluster and by class. Clusters and classes agree with an adjusted Rand index of {ari}."
            )
            caption = f"{projection} of the {title} embedding: KMeans' clusters beside the classes."
            if kind == "pca":
                held = percent(sum(numbers["pca_variance"]), 0)
                caption = f"{projection} of the {title} embedding; its two axes hold {held} of the variance"
            look = {"photo": True, "folded": kind == "pca"}
            yield from drawn(found, "embed", f"{name}_{kind}", alt, caption, **look)


MAX_HEAT_CLASSES = 20
"""Classes of a confusion matrix that is a table; a larger one is a picture."""


def accuracies(found: Findings) -> list[Interval]:
    """Each way to ask the model, with its interval where the evaluation knows one."""
    views = (found.evaluation or found.metrics)["views"]
    digits = digits_for(found.num_rows)
    rows = []
    for view, title in VIEW_TITLES.items():
        facts = views[view]
        bounds = facts.get("interval")
        cells = [percent(facts["accuracy"], digits), between(bounds, digits), count(facts["num_errors"])]
        rows.append(Interval(title, facts["accuracy"], bounds and tuple(bounds), cells))
    return rows


def axis_low(rows: list[Interval]) -> float:
    """Where a scale begins that holds all of these, on a tenth or, near the top, on a twentieth."""
    lowest = min(row.bounds[0] if row.bounds else row.value for row in rows)
    step = 20 if lowest >= 0.9 else 10
    return max(0.0, int(lowest * step - 1e-9) / step)


def results(found: Findings) -> Iterator[Block]:
    """Accuracies with intervals, tests, the report by class, and what is taken for what."""
    rows = accuracies(found)
    head = ["asked by", "accuracy", "95 % interval", "errors"]
    data = (found.evaluation or {}).get("data", {})
    part = data.get("part", "test part")
    caption = f"One model, asked in each way: {part} of {count(found.num_rows)} pairs"
    yield Intervals(caption, head, rows, axis_low(rows))
    facts = found.evaluation
    if facts is None:
        yield missing(found, "evaluate", "intervals and tests")
    else:
        yield Text(facts["interval_method"] + ".")
        yield _tests(facts["tests"], digits_for(found.num_rows))
    if found.elsewhere:
        yield _elsewhere(found.elsewhere)
    report = (facts or found.metrics)["report"]
    yield _report(report)
    yield from _confusions(found, facts)


def _elsewhere(evaluations: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, facts in evaluations.items():
        data, digits = facts["data"], digits_for(facts["data"]["num_rows"])
        views = [facts["views"][view] for view in VIEW_TITLES]
        cells = [f"{percent(each['accuracy'], digits)} ({between(each['interval'], digits)})" for each in views]
        rows.append([f"{name}, {data['part']}", count(data["num_rows"]), *cells])
    return Table("On other data, with 95 % intervals", ["data", "pairs", *VIEW_TITLES.values()], rows)


def _confusions(found: Findings, facts: dict[str, Any] | None) -> Iterator[Block]:
    matrices = facts["confusion"] if facts else {FUSED: found.metrics["confusion"]}
    names = list(found.run.spec().class_names)
    for view, matrix in matrices.items():
        title = f"Confusion, {VIEW_TITLES[view]}"
        if len(names) <= MAX_HEAT_CLASSES:
            folded = view != FUSED
            yield confusion(matrix, names, f"{title}: true class by row, answer by column", folded)
        elif facts:
            alt = f"Confusion matrix of the {VIEW_TITLES[view]} answers over {len(names)} classes."
            yield from drawn(found, "evaluate", f"confusion_{view}", alt, f"{title}.", photo=True)


def _tests(tests: list[dict[str, Any]], digits: int) -> Table:
    rows = [
        [
            f"{VIEW_TITLES[test['first']]} against {VIEW_TITLES[test['second']]}",
            points(test["difference"], digits),
            points_between(test["interval"], digits),
            count(test["first_only"]),
            count(test["second_only"]),
            p_value(test["p"]),
        ]
        for test in tests
    ]
    head = [
        "paired on the same rows",
        "difference, points",
        "95 % interval",
        "only 1st right",
        "only 2nd right",
        "McNemar p",
    ]
    return Table("Who is right where the other is wrong", head, rows)


def _report(report: dict[str, Any]) -> Table:
    def line(name: str) -> list[str]:
        row = report[name]
        return [name, *(score(row[key], 4) for key in ("precision", "recall", "f1-score")), count(row["support"])]

    rows = [line(name) for name in [*class_rows(report), "macro avg", "weighted avg"]]
    return Table(
        "Classification report, both modalities", ["class", "precision", "recall", "F1", "rows"], rows, folded=True
    )


def confusion(matrix: list[list[int]], names: list[str], caption: str, folded: bool = False) -> Heat:
    """A confusion matrix; the colour is the share of the true class, errors in another one."""
    rows = []
    for at, (name, counts) in enumerate(zip(names, matrix, strict=True)):
        total = max(sum(counts), 1)
        # The square root: one error among many rows would not be seen on a straight scale.
        cells = [(str(each), (each / total) ** 0.5, "a" if at == to else "b") for to, each in enumerate(counts)]
        rows.append((name, cells))
    return Heat(caption, "true", names, rows, folded=folded)


SHOWN_ERRORS = 40


def decides(found: Findings) -> Iterator[Block]:
    """Which modality the fused answer follows, and what fusing costs."""
    facts = found.evaluation
    if facts is None:
        yield missing(found, "evaluate", "who decides")
        return
    text = _winner(facts["decides"]["conflict"])
    yield Text(text, strong=True)
    alt = f"Stacked bars. {text}"
    yield from drawn(found, "evaluate", "who_decides", alt, "Whom the fused answer follows.")
    yield _conflicts(facts["decides"])
    cases = [
        [
            f"image {_right(case['image'])}, sound {_right(case['audio'])}",
            count(case["num_rows"]),
            count(case["num_fused_right"]),
        ]
        for case in facts["decides"]["agreement"]
    ]
    yield Table("Each alone, and the fused answer", ["alone", "pairs", "fused right"], cases)
    yield from _negative(facts["negative_fusion"])


def _winner(conflict: dict[str, Any]) -> str:
    """Who wins, over both kinds of conflict."""
    won = [conflict[name]["won_clear"] or conflict[name]["won"] for name in ("audio", "image")]
    image, sound = (percent(sum(shares[side] for shares in won) / len(won), 0) for side in ("image", "audio"))
    return (
        f"Set against each other, with each side right on its own, the image wins {image} of the conflicts and the "
        f"sound {sound}."
    )


def _conflicts(decides: dict[str, Any]) -> Table:
    rows = []
    for shuffled, name in (("audio", "sounds of other classes"), ("image", "images of other classes")):
        facts = decides["conflict"][shuffled]
        rows.append([name, count(facts["num_rows"]), *_shares(facts["won"])])
        rows.append([f"{name}, each right alone", count(facts["num_clear"]), *_shares(facts["won_clear"])])
    differ = decides["disagreement"]
    total = differ["num_rows"]
    shares = {side: number / total for side, number in differ["followed"].items()} if total else None
    rows.append(["true pairs whose two votes differ", count(total), *_shares(shares)])
    head = ["pairs", "number", "follows the image", "the sound", "neither"]
    return Table("Conflicts, and who wins them", head, rows)


def _right(value: bool) -> str:
    return "right" if value else "wrong"


def _shares(shares: dict[str, float] | None) -> list[str]:
    return [percent(shares[side]) if shares else "–" for side in ("image", "audio", "neither")]


def _negative(lost: dict[str, Any]) -> Iterator[Block]:
    text = (
        f"Negative fusion: {many(lost['num_lost'], 'pair')} ({percent(lost['share'], 2)}) that the fused answer loses "
        f"though one modality alone had them. {many(lost['num_rescued'], 'pair')} won though neither had them."
    )
    yield Text(text)
    for key, name in (("by_class", "class"), ("by_speaker", "speaker")):
        entries = [entry for entry in lost[key] or [] if entry["num_lost"]]
        if entries:
            rows = [[e["name"], count(e["num_lost"]), count(e["num_rows"]), percent(e["share"], 2)] for e in entries]
            yield Table(f"Lost by fusing, by {name}", [name, "lost", "pairs", "share"], rows)


def calibration(found: Findings) -> Iterator[Block]:
    """Whether the confidence can be believed."""
    facts = found.evaluation
    if facts is None:
        yield missing(found, "evaluate", "calibration")
        return
    views = facts["calibration"]
    fused = views["fused"]
    text = (
        f"The fused answer's confidence is off by {percent(fused['before']['ece'], 2)} on average, and by "
        f"{percent(fused['after']['ece'], 2)} after its temperature, {fused['temperature']:.2f}, fitted on validation."
    )
    yield Text(text, strong=True)
    rows = []
    for view, title in VIEW_TITLES.items():
        row = views[view]
        cells = [change(row["before"] and row["before"][name], row["after"][name]) for name in ("ece", "brier", "nll")]
        rows.append([title, "–" if row["temperature"] is None else f"{row['temperature']:.2f}", *cells])
    head = ["asked by", "temperature", "calibration error", "Brier score", "log loss, nats"]
    yield Table("Before and after the temperature", head, rows)
    alt = f"Reliability diagrams of three views, accuracy over confidence. {text}"
    yield from drawn(found, "evaluate", "reliability", alt, "Reliability: accuracy over confidence.")


def errors(found: Findings) -> Iterator[Block]:
    """The samples that the model does worst on."""
    facts = found.evaluation
    if facts is None:
        yield missing(found, "evaluate", "the worst errors")
        return
    if not facts["worst"]:
        yield Text("No view gets any test pair wrong.")
        return
    alt = f"Images and sounds of {many(len(facts['worst']), 'pair')} with the votes, as in the table below the picture."
    yield from drawn(
        found,
        "evaluate",
        "worst_errors",
        alt,
        "The worst errors, those of the fused answer first.",
        photo=True,
        wide=True,
    )
    rows = [
        [str(row["row"]), row["label"], *(_vote(row["votes"][view]) for view in ("fused", "image", "audio"))]
        for row in facts["worst"][:SHOWN_ERRORS]
    ]
    head = ["test row", "truth", "fused", "image only", "audio only"]
    yield Table("The same in words, with confidence", head, rows, (0, 1, 2, 3, 4), folded=True)


def _vote(vote: dict[str, Any]) -> str:
    return f"{vote['class']} ({percent(vote['confidence'], 0)})"
