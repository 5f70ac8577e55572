"""The tables of metrics.json, evaluation.json, robustness.json and embeddings.json, as a person reads them.

A `Table` is described once: the terminal and report.txt show it within 80 columns, the report as HTML. `Words` holds
what a run's modalities and samples are called in sentences.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from kfusion.metrics.classification import AVERAGES, LATE_FUSION, class_rows
from kfusion.modalities import each_of
from kfusion.modalities.base import Modality
from kfusion.spec import FUSED, Spec, together

Facts = Mapping[str, Any]
SHOWN_CLASSES = 12
"""Lines of a table that names only what loses most."""
BASELINE = "logistic regression"
SCORES = ("precision", "recall", "f1-score")
CLUSTER_SCORES = {
    "ari": ("ARI", "adjusted Rand index"),
    "nmi": ("NMI", "mutual information"),
    "purity": ("purity", "purity"),
    "silhouette": ("silh.", "silhouette"),
}
"""Of the clusters, mean over the seeds of KMeans: what each is called in short, and in full."""


@dataclass(frozen=True)
class Words:
    """What a run's modalities and samples are called.

    Args:
        nouns: one sample of each modality, by the modality's name, such as "sound".
        items: the same as the audit of a split calls it, such as "clip".
    """

    nouns: dict[str, str]
    items: tuple[str, ...]

    @classmethod
    def of(cls, spec: Spec) -> "Words":
        """The kind's noun for a modality that is called like its kind; else the modality's own name."""
        # The base class' noun, a row, would be taken for a row of the table.
        nouns = {
            name: kind.noun if name == kind.kind and kind.noun != Modality.noun else name
            for name, kind, _ in each_of(spec)
        }
        return cls(nouns, tuple(dict.fromkeys(kind.item_noun for _, kind, _ in each_of(spec))))

    @property
    def last(self) -> str:
        """The noun of the last modality, whose rows several samples may share."""
        return list(self.nouns.values())[-1]

    @property
    def unit(self) -> str:
        """One row of the data."""
        return "pair" if len(self.nouns) == 2 else "sample"

    @property
    def none(self) -> str:
        """No modality."""
        return "neither" if len(self.nouns) == 2 else "none"

    @property
    def answer(self) -> str:
        """The answer to all modalities."""
        return "fused answer" if len(self.nouns) > 1 else "answer"


def view_titles(views: Iterable[str]) -> dict[str, str]:
    """What the ways to ask a model are called, in the order in which they are shown; those missing are left out.

    A model of one modality is asked in one way.
    """
    views = list(views)
    alone = [view for view in views if view not in (FUSED, LATE_FUSION)]
    if len(alone) == 1 and FUSED in views:
        return {FUSED: alone[0]}
    titles = {FUSED: "fused", **{name: f"{name} only" for name in alone}, LATE_FUSION: "calibrated late fusion"}
    return {view: title for view, title in titles.items() if view in views}


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        caption: what it shows; "" where that needs no words.
        head: one text per column.
        rows: as many cells each.
        words: columns, counted from 0, that hold words; the others hold numbers and are set to the right.
        strong: rows, counted from 0, that stand out.
        ruled: rows, counted from 0, before which there is a gap in the terminal.
        note: how to read it.
        full_head: the head without abbreviations, where there is room; `head` if left out.
        folded: a page shows it only when it is opened.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: tuple[int, ...] = (0,)
    strong: tuple[int, ...] = ()
    ruled: tuple[int, ...] = ()
    note: str = ""
    full_head: Sequence[str] = ()
    folded: bool = False

    kind = "table"
    """Its macro in the report's template."""

    def __rich__(self) -> Group:
        """For the terminal, within 80 columns, however long the class names are."""
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, caption=self.note or None, caption_justify="left")
        table.add_column(self.head[0], max_width=32, overflow="fold")
        for head in self.head[1:]:
            table.add_column(head, justify="right", no_wrap=True)
        for at, cells in enumerate(self.rows):
            if at in self.ruled:
                table.add_section()
            # Texts, not strings: a class may well be called "[red]", which rich would read as markup.
            table.add_row(*map(Text, cells), style="bold" if at in self.strong else None)
        # Not the table's own title, which is wrapped where the table is narrow.
        return Group(*([Text(self.caption, style="bold")] if self.caption else []), table)


def results_table(views: Mapping[str, Facts], baselines: Mapping[str, Facts] | None = None) -> Table:
    """One row per way to ask the model, the late fusion it has to beat, and the baselines.

    Args:
        views: `{view: {"accuracy", "num_errors", "num_rows"}}`, as in `metrics.view_summary(...)["views"]`. A view that
            is missing has no row.
        baselines: as many of the baselines.
    """
    rows, ruled = result_rows(views, baselines or {}), (len(result_rows(views, {})),)
    head = ("view", "accuracy", *macro_f1_cells(views), "errors", "rows")
    return Table("", head, rows, strong=(0,) if FUSED in views else (), ruled=ruled)


def result_rows(views: Mapping[str, Facts], baselines: Mapping[str, Facts]) -> list[tuple[str, ...]]:
    """Title, accuracy, macro-F1 where views have it, errors and rows of each view, then of each baseline.

    Args:
        views: as `results_table`.
        baselines: likewise.
    """
    named = {title: views[view] for view, title in view_titles(views).items()}
    for view, facts in baselines.items():
        named[f"{BASELINE}, {'late fusion' if view == LATE_FUSION else view}"] = facts
    has_f1 = bool(macro_f1_cells(views))
    return [
        (
            title,
            f"{facts['accuracy']:.4f}",
            *((f"{facts['macro_f1']:.4f}" if "macro_f1" in facts else "",) if has_f1 else ()),
            str(facts["num_errors"]),
            str(facts["num_rows"]),
        )
        for title, facts in named.items()
    ]


def sources_table(sources: Sequence[Facts], words: "Words") -> Table:
    """A row for each source, a column for each view.

    Args:
        sources: from `classification.by_origin`.
        words: of the modalities.
    """
    titles = view_titles({view for each in sources for view in each["views"]})
    rows = []
    for each in sources:
        found = each["views"]
        of_what = f"{words.nouns[each['modality']]}s of " if each["modality"] else ""
        cells = [f"{found[view]['accuracy']:.4f}" if view in found else "" for view in titles]
        rows.append((f"{of_what}{each['source']}", *cells, str(max(facts["num_rows"] for facts in found.values()))))
    return Table("Accuracy by source", ("source", *titles.values(), "rows"), rows)


def macro_f1_cells(views: Mapping[str, Facts], view: str = "") -> tuple[str, ...]:
    """The cell on macro-F1; none where no view has that figure, since the run is older than it.

    Args:
        views: of metrics.json or evaluation.json.
        view: the row's; "": the head.
    """
    if not any("macro_f1" in facts for facts in views.values()):
        return ()
    return (f"{views[view]['macro_f1']:.4f}" if "macro_f1" in views[view] else "",) if view else ("macro-F1",)


def folds_table(views: Mapping[str, Facts]) -> Table:
    """Mean and spread of each view's scores over the folds.

    Args:
        views: of folds.json.
    """
    rows = []
    for view, title in view_titles(views).items():
        accuracy, balanced = views[view]["accuracy"], views[view]["macro_f1"]
        bounds = [f"{bound(accuracy['values']):.4f}" for bound in (min, max)]
        rows.append((title, *(f"{each['mean']:.4f} ± {each['std']:.4f}" for each in (accuracy, balanced)), *bounds))
    num_folds = max(len(facts["accuracy"]["values"]) for facts in views.values())
    head = ("view", "accuracy", "macro-F1", "lowest", "highest")
    caption = f"mean over {num_folds} folds ± standard deviation; lowest and highest accuracy"
    return Table(caption, head, rows, strong=(0,) if FUSED in views else ())


def report_table(report: Facts) -> Table:
    """The test report in the paper's form: the overall accuracy, a row per class, then the averages.

    Args:
        report: what `metrics.report` returned.
    """
    names, accuracy = class_rows(report), f"{report['accuracy']:.4f}"

    def line(name: str) -> tuple[str, ...]:
        row = report[name]
        return (name, *(f"{row[score]:.4f}" for score in SCORES), str(int(row["support"])))

    overall = ("accuracy", "", "", accuracy, str(int(report[AVERAGES[1]]["support"])))
    rows = [*map(line, names), overall, *map(line, AVERAGES)]
    return Table(f"overall accuracy {accuracy}", ("class", *SCORES, "support"), rows, ruled=(len(names),))


def evaluation_tables(facts: Facts, words: Words) -> Iterator[Table]:
    """All tables of evaluation.json, in the order in which they are read.

    Args:
        facts: evaluation.json.
        words: of the run.
    """
    yield report_table(facts["report"])
    yield views_table(facts["views"])
    if "sources" in facts:
        yield sources_table(facts["sources"], words)
    if len(words.nouns) > 1:
        yield tests_table(facts["tests"])
        yield agreement_table(facts["decides"]["agreement"])
        yield followed_table(facts["decides"], words)
        yield from lost_tables(facts["negative_fusion"])
    yield calibration_table(facts["calibration"])
    if "trust" in facts:
        yield trust_table(facts["trust"])
    if worst := facts["worst"][:SHOWN_CLASSES]:
        rows = [(called(row), row["label"], wrong_votes(row)) for row in worst]
        yield Table("worst errors", ("row", "truth", "wrong"), rows, words=(0, 1, 2))


def wrong_votes(row: Facts) -> str:
    """The answers to a sample that are not its class, each in a line: `3` of both, `image: 7` of one alone."""
    wrong = {view: vote["class"] for view, vote in row["votes"].items() if vote["class"] != row["label"]}
    return "\n".join(each if view == FUSED else f"{view}: {each}" for view, each in wrong.items())


def called(row: Facts) -> str:
    """A sample by its files, else by its number, as evaluation.json's "worst" has it."""
    return "\n".join(row["files"].values()) if row.get("files") else str(row["row"])


def _interval(bounds: Sequence[float], form: str = ".4f") -> str:
    return f"{bounds[0]:{form}} – {bounds[1]:{form}}"


def views_table(views: Mapping[str, Facts]) -> Table:
    """Each way to ask the model, with intervals."""
    rows = [
        (
            title,
            f"{views[view]['accuracy']:.4f}",
            _interval(views[view]["interval"]),
            *macro_f1_cells(views, view),
            str(views[view]["num_errors"]),
            str(views[view]["num_rows"]),
        )
        for view, title in view_titles(views).items()
    ]
    head = ("view", "accuracy", "95 % interval", *macro_f1_cells(views), "errors", "rows")
    return Table("one model, asked in each way", head, rows, strong=(0,))


def tests_table(tests: Sequence[Facts]) -> Table:
    """Paired tests of two ways to ask the model."""
    titles = view_titles([view for test in tests for view in (test["first"], test["second"])])
    rows = [
        (
            f"{titles[test['first']]} / {titles[test['second']].replace('calibrated ', '')}",
            str(test["first_only"]),
            str(test["second_only"]),
            p_value(test["p"]),
            _interval(test["interval"], "+.4f"),
        )
        for test in tests
    ]
    head = ("1st against 2nd", "only 1st", "only 2nd", "McNemar p", "difference, 95 %")
    return Table("who is right where the other is wrong", head, rows)


def p_value(p: float) -> str:
    """A probability, never written as zero."""
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def agreement_table(cases: Sequence[Facts]) -> Table:
    """Each modality right or wrong, and the fused answer."""
    names = [name for name in cases[0] if name not in ("num_rows", "num_fused_right")]
    rows = [
        (
            *("right" if case[name] else "wrong" for name in names),
            str(case["num_rows"]),
            str(case["num_fused_right"]),
        )
        for case in cases
    ]
    head = (*(f"{name} alone" for name in names), "rows", "fused right")
    return Table("agreement with the truth, and the fused answer", head, rows, words=tuple(range(len(names))))


def followed_table(decides: Facts, words: Words) -> Table:
    """Whom the fused answer follows where the modalities are, or name, different classes.

    Args:
        decides: evaluation.json's "decides".
        words: of the run.
    """
    apart = decides["disagreement"]
    shares = {name: count / max(apart["num_rows"], 1) for name, count in apart["followed"].items()}
    lines = [(f"vote differently, true {words.unit}s", apart["num_rows"], shares if apart["num_rows"] else None)]
    for shuffled, facts in decides["conflict"].items():
        lines.append((f"conflict: {words.nouns[shuffled]}s shuffled", facts["num_rows"], facts["won"]))
        lines.append(("  … each alone right", facts["num_clear"], facts["won_clear"]))
    sides = (*words.nouns, "neither")
    rows = [
        (name, str(num_rows), *(f"{won[side]:.1%}" if won else "–" for side in sides)) for name, num_rows, won in lines
    ]
    head = (f"where {together(words.nouns.values())}", f"{words.unit}s", *words.nouns.values(), words.none)
    note = "those of one class are followed together\n" if len(words.nouns) > 2 else ""
    return Table("who decides: the fused answer follows …", head, rows, note=note)


def lost_tables(facts: Facts) -> Iterator[Table]:
    """The classes and people of the rows that the fused answer loses though one modality alone had them.

    Args:
        facts: evaluation.json's "negative_fusion".
    """
    caption = f"negative fusion: {facts['num_lost']} lost that one alone had ({facts['share']:.2%})"
    for key, name, title in (("by_class", "class", caption), ("by_speaker", "speaker", "the same by speaker")):
        entries = [entry for entry in facts[key] or () if entry["num_lost"]]
        rows = [
            (entry["name"], str(entry["num_lost"]), str(entry["num_rows"]), f"{entry['share']:.2%}")
            for entry in sorted(entries, key=lambda entry: -entry["share"])[:SHOWN_CLASSES]
        ]
        if rows or key == "by_class":
            yield Table(title, (name, "lost", "rows", "share"), rows or [("none", "0", "", "")])


def calibration_table(calibration: Mapping[str, Facts]) -> Table:
    """Each view before and after its temperature."""
    rows = []
    for view, title in view_titles(calibration).items():
        before, after = calibration[view]["before"], calibration[view]["after"]
        cells = [
            f"{before[score]:.4f} → {after[score]:.4f}" if before else f"{after[score]:.4f}"
            for score in ("ece", "brier", "nll")
        ]
        temperature = f"{calibration[view]['temperature']:.2f}" if before else ""
        rows.append((title.replace("calibrated ", ""), temperature, *cells))
    head = ("view", "T", "ECE", "Brier", "log loss, nats")
    full = ("view", "temperature", "calibration error", "Brier score", "log loss, nats")
    return Table("calibration, before → after the temperature", head, rows, full_head=full)


def trust_table(trust: Facts) -> Table:
    """The prediction sets of each view."""
    titles = view_titles(trust["sets"])
    rows = []
    for view, title in titles.items():
        facts = trust["sets"][view]
        if facts["coverage"] is not None:
            single = facts["sizes"][0] / max(1, sum(facts["sizes"]))
            rows.append((title, f"{facts['coverage']:.4f}", f"{facts['mean_size']:.3f}", f"{single:.4f}"))
    promised = f"prediction sets: coverage {trust['coverage']:g} is promised on data like those of validation"
    return Table(promised, ("view", "coverage", "mean size", "one class"), rows)


def trust_sentences(trust: Facts, words: Words) -> list[str]:
    """What is turned away, and what that does, in words.

    Args:
        trust: of evaluation.json.
        words: of the run.
    """
    away = together([f"{share:.1%} of the {words.nouns[name]}s" for name, share in trust["turned_away"].items()])
    accuracy, shares = trust["accuracy"], trust["shares"]
    text = (
        f"Unfamiliar, at {trust['turn_away']:.0%} of the validation part's: {away}; accepted: {trust['accepted']:.1%}."
    )
    change = f"Accuracy with nothing turned away {accuracy['untouched']:.4f}, as answered {accuracy['answered']:.4f}."
    added = together([f"the {words.nouns[name]} {share:+.1f}" for name, share in shares.items()])
    return [text, change, f"What each adds to the log-odds of the answer, on average: {added}."]


def robustness_tables(grid: Facts, words: Words) -> Iterator[Table]:
    """The tables of robustness.json.

    Args:
        grid: robustness.json.
        words: of the run.
    """
    clean, nouns = {view: scores["accuracy"] for view, scores in grid["clean"].items()}, words.nouns
    for modality, corruptions in grid["corruptions"].items():
        other = [f", the other alone {clean[name]:.3f}" for name in nouns if name != modality and len(nouns) == 2]
        caption = f"fused accuracy with a corrupted {nouns[modality]} (clean {clean[FUSED]:.3f}{''.join(other)})"
        scores = {name: grid["alone"][modality][name][FUSED]["accuracy"] for name in corruptions}
        rows = [
            (facts["title"], *(f"{score:.3f}" for score in [*scores[name], sum(scores[name]) / len(scores[name])]))
            for name, facts in corruptions.items()
        ]
        yield Table(caption, ("severity", *map(str, grid["severities"]), "mean"), rows)
    area = grid["area"]
    titles = {name: f"the {noun}" for name, noun in nouns.items()}
    titles |= {"both": "both" if len(nouns) == 2 else "two of them"} if "both" in area else {}
    rows = [(title, f"{area[name]:.4f}") for name, title in (titles | {"accuracy": "whole grid"}).items()]
    rows.append(("whole grid, calibration error", f"{area['ece']:.4f}"))
    caption = "area under the grid, mean over corruptions and severities"
    yield Table(caption, ("corrupted", "accuracy"), rows, strong=(len(titles),))


def separation_table(runs: Mapping[str, Facts], words: Words) -> Table:
    """A row per embedding: how its clusters agree with the classes, and what probes read off it.

    Args:
        runs: embeddings.json of each run, by the run's name.
        words: of the runs.
    """
    rows, spread = [], 0.0
    for run, facts in runs.items():
        for name, numbers in facts["embeddings"].items():
            scores = [numbers["kmeans"][score]["mean"] for score in CLUSTER_SCORES]
            cells = [*scores, numbers["class_silhouette"], numbers["probes"]["linear"], numbers["probes"]["knn"]]
            rows.append((f"{run}, {name}" if len(runs) > 1 else name, *(f"{value:.4f}" for value in cells)))
            spread = max(spread, numbers["kmeans"]["ari"]["std"])
    short, full = zip(*CLUSTER_SCORES.values(), strict=True)
    num_rows = together(dict.fromkeys(f"{facts['num_rows']:,}" for facts in runs.values()), "or")
    return Table(
        f"how well {num_rows} test {words.unit}s separate",
        ("embedding", *short, "by class", "linear", "k-NN"),
        rows,
        full_head=("embedding", *full, "silhouette by class", "linear probe", "5-NN"),
        note=f"ARI of other KMeans seeds: ± {spread:.4f} at most. silh.: silhouette of clusters, and by class",
    )


def verdict(facts: Facts, words: Words) -> str:
    """Which modality's embeddings separate the classes better, in a sentence for every two of them.

    Args:
        facts: embeddings.json.
        words: of the run.
    """
    scores = {name: numbers["kmeans"]["ari"] for name, numbers in facts["embeddings"].items()}
    index = {name: f"{each['mean']:.3f} ± {each['std']:.3f}" for name, each in scores.items()}
    sentences = []
    for key, test in facts.items():
        one, _, other = key.partition("_against_")
        if not other:
            continue
        first, second = (f"{words.nouns[name]}s" for name in (one, other))
        low, high = test["interval"]
        # The paper's claim is one about its own two modalities.
        claims = ("", "") if (one, other) != Spec().names else (", as the paper says", ", against what the paper says")
        if low > 0:
            text = f"{first} separate better than {second}{claims[0]}"
        elif high < 0:
            text = f"{second} separate better than {first}{claims[1]}"
        else:
            text = f"{first} and {second} cannot be told apart in how well they separate"
        sentences.append(
            f"{text[0].upper()}{text[1:]}: adjusted Rand index {index[one]} against {index[other]} over ten seeds of "
            f"KMeans; difference {test['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f} (resampled by "
            f"{words.last})."
        )
    alone = (
        f"Adjusted Rand index of the {words.last}s' clusters: {index[list(words.nouns)[-1]]} over ten seeds of KMeans."
    )
    return " ".join(sentences) or alone
