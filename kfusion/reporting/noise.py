"""The sections on what noise does to a run, and on its embeddings."""

from collections.abc import Iterator
from typing import Any

from kfusion.analysis.embedding_tables import HEADS, TITLES
from kfusion.reporting.blocks import Block, Heat, Table, Text
from kfusion.reporting.findings import Findings
from kfusion.reporting.making import drawn, missing
from kfusion.reporting.words import count, percent, score

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
        for name, title in TITLES.items():
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
    different = [count(facts["embeddings"][name]["num_different"]) for name in TITLES]
    text += " These hold {} different images and {} different sounds, {} different pairs.".format(*different)
    share = facts["leaked_share"]
    return text + (f" {percent(share)} of the test pairs hold a clip or image of the training." if share else "")


def _projections(found: Findings, facts: dict[str, Any]) -> Iterator[Block]:
    for kind, projection in PROJECTIONS.items():
        for name, title in TITLES.items():
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
