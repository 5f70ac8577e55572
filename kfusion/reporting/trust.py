"""The sections on trust: who decides, calibration, the worst errors."""

from collections.abc import Iterator
from typing import Any

from kfusion.analysis.tables import TITLES
from kfusion.reporting.blocks import Block, Table, Text
from kfusion.reporting.findings import Findings
from kfusion.reporting.making import drawn, missing
from kfusion.reporting.words import change, count, many, percent

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
    for view, title in TITLES.items():
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
