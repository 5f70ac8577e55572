"""Why a model answers as it does: each modality's share in the answer, and where in it the evidence lies.

A part of an input counts as evidence for the answer's class k by what the log-odds of k lose where the part is hidden,
put in place of the input's own median: windows of a fifth of each axis are moved over it by half their size, and a
value's evidence is the mean loss over the windows that hold it. Reference: Zeiler, Fergus 2014, occlusion sensitivity.
It takes no gradients, so that runs and exported versions are explained alike, whatever their modalities are.
"""

import base64
import io
from dataclasses import dataclass, replace
from functools import reduce
from html import escape
from itertools import product

import numpy as np
import pandas as pd

from kfusion.modalities import each_of
from kfusion.prediction.engine import in_windows, votes
from kfusion.prediction.inputs import Arrays, Files
from kfusion.prediction.models import Model, VersionModel
from kfusion.prediction.outputs import trust_columns
from kfusion.spec import FUSED, SHARES, ModalitySpec, Spec
from kfusion.validation import UserError

WINDOW = 5
"""Windows beside each other on an axis."""
BATCH = 64
TINY = float(np.finfo(np.float32).tiny)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#202124}}
img{{max-width:100%}} td,th{{padding:.2rem 1rem .2rem 0;text-align:left}}</style></head>
<body><h1>{title}</h1>
{lines}
{table}
{figures}
<p>Bright places of a map are evidence for the answer: where they are hidden, the log-odds of the answer fall.</p>
</body></html>
"""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one sample got its answer.

    Args:
        label: the class, by name.
        confidence: its probability.
        table: a row of what `FusionClassifier.explain_decision` tells of the sample, by the classes' names.
        shares: of each modality that is there, in the log-odds of the class; empty where the model tells none.
        evidence: for each modality that is there, (*grid): what the log-odds lose where this is hidden.
        values: the same modalities as the network takes them, in the unit of a request, (*grid).
        spec: of the model.
        num_windows: of the sample; the evidence is in the window that speaks most for the class.
    """

    label: str
    confidence: float
    table: pd.DataFrame
    shares: dict[str, float]
    evidence: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    spec: Spec
    num_windows: int = 1

    def lines(self) -> list[str]:
        """The answer in plain words."""
        row = self.table.iloc[0]
        given = [name for name in self.spec.names if f"{name}_label" in row]
        lines = [f"The answer is {self.label}, {self.confidence:.1%} sure."]
        if self.num_windows > 1:
            lines.append(f"It is pooled over {self.num_windows} windows; shown is the one that speaks most for it.")
        if "accepted" in row and not row["accepted"]:
            lines.append(f"But nothing here is familiar: the model does not know this {' or this '.join(given)}.")
        elif "rests_on" in row:
            strange = [name for name in given if name not in row["rests_on"].split("|")]
            lines += [f"The {' and the '.join(strange)} is unfamiliar, and treated as absent."] if strange else []
        if len(self.shares) > 1:
            listed = ", ".join(f"{name} {share:+.1f}" for name, share in self.shares.items())
            lines.append(f"What each adds to the log-odds of {self.label}: {listed}.")
        if "prediction_set" in row:
            lines.append(f"With the promised coverage it is one of: {row['prediction_set'].replace('|', ', ')}.")
        return lines

    def html(self) -> str:
        """A page that needs nothing else."""
        lines = "\n".join(f"<p>{escape(line)}</p>" for line in self.lines())
        parts = [f"<h2>{escape(name)}</h2>\n{self._figure(name)}" for name in self.evidence]
        title = escape(f"Why {self.label}?")
        table = self.table.T.to_html(header=False, border=0, na_rep="–")
        return PAGE.format(title=title, lines=lines, table=table, figures="\n".join(parts))

    def _figure(self, name: str) -> str:
        from kfusion.plots.style import bare, look, new_figure

        kind, shape = next((kind, shape) for each, kind, shape in each_of(self.spec) if each == name)
        heat = np.clip(self.evidence[name], 0, None)
        heat = heat / max(float(heat.max()), TINY)
        # In the layout of the kind's own pictures: with this reference, values are shown as they are.
        unit = np.stack([-np.ones(shape.shape), np.ones(shape.shape)]) * shape.scale
        map_of = kind.pictures(heat.reshape(1, *shape.shape) * shape.scale, shape, unit).pixels[0]
        shown = kind.pictures(self.values[name].reshape(1, *shape.shape) * shape.scale, shape)
        with look():
            width, height = shown.cell_in
            figure = new_figure(4 * width + 1, 2 * height + 0.6, layout="compressed")
            left, right = figure.subplots(1, 2)
            left.imshow(shown.pixels[0], **shown.show)
            right.imshow(map_of if map_of.ndim == 2 else map_of.mean(axis=2), cmap="magma", aspect="auto")
            for axes, title in ((left, name), (right, "evidence")):
                bare(axes)
                axes.set_title(title, fontsize=9)
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=120)
        alt = f"The {name} beside the map of the evidence in it; {shown.caption}".strip("; ")
        return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def explain(model: Model, rows: Arrays | Files, hiding: Model | None = None) -> Explanation:
    """Why a model answers one row as it does.

    Args:
        model: loaded with all views.
        rows: one row, as the model's `prepare` gives it.
        hiding: the same model with nothing turned away, where there is one: hiding a part must not make a modality
            unfamiliar. None: the model itself.

    Raises:
        UserError: the row cannot be answered.
    """
    answer = votes(model, 0, rows)
    names, label = model.spec.class_names, int(answer.label[FUSED][0])
    rows, num_windows = _most_telling(model, rows, label)
    if rows.reason[0] or isinstance(rows, Files):
        raise UserError(f"the sample must be readable. Found: {rows.reason[0]}")
    columns = {f"{view}_label": names[each[0]] for view, each in answer.label.items() if view != FUSED and each[0] >= 0}
    table = pd.DataFrame([columns]).assign(**trust_columns(answer, names))
    used = answer.trust.get("used", rows.present)
    there = [name for name, here in zip(model.spec.names, used[0], strict=True) if here]
    hiding, resting = hiding or model, replace(rows, present=used)
    found = answer.trust[SHARES][0] if SHARES in answer.trust else []
    return Explanation(
        label=names[label],
        confidence=float(answer.confidence[FUSED][0]),
        table=table,
        shares={name: float(share) for name, share in zip(model.spec.names, found, strict=False) if name in there},
        evidence={name: occlusion(hiding, resting, name, label) for name in there},
        values={name: rows.values[name][0].reshape(model.spec[name].grid) for name in there},
        spec=model.spec,
        num_windows=num_windows,
    )


def _most_telling(model: Model, rows: Arrays | Files, label: int) -> tuple[Arrays | Files, int]:
    """The window of the first row that speaks most for a class, as arrays where it can be read; and of how many."""
    if isinstance(rows, Files):
        cut = in_windows(model, rows)[0] if not rows.reason[0] else rows
        best = int(model.answer(cut)[FUSED][:, label].argmax())
        contents = {name: each[best : best + 1] for name, each in cut.contents.items()}
        one = Files(contents, rows.reason[:1], {name: each[best : best + 1] for name, each in cut.numbers.items()})
        return model.read(one) if isinstance(model, VersionModel) else one, len(cut.reason)
    if not rows.counts:
        return rows, 1
    num = max(int(each[0]) for each in rows.counts.values())
    places = {
        name: np.arange(num) * int(rows.counts[name][0] if name in rows.counts else 1) // num for name in rows.values
    }
    values = {name: each[places[name]] for name, each in rows.values.items()}
    every = Arrays(values, np.repeat(rows.present[:1], num, axis=0), [""] * num)
    best = int(model.answer(every)[FUSED][:, label].argmax())
    chosen = {name: each[best : best + 1] for name, each in values.items()}
    return Arrays(chosen, rows.present[:1], rows.reason[:1]), num


def occlusion(model: Model, rows: Arrays, name: str, label: int) -> np.ndarray:
    """What the log-odds of a class lose where a place of one modality is hidden, (*grid).

    Args:
        model: what answers.
        rows: one row.
        name: of the modality.
        label: the class.
    """
    spec = model.spec[name]
    values, windows = rows.values[name][0].reshape(spec.grid), windows_of(spec)
    hidden = np.where(windows, blank(values), values).astype(np.float32).reshape(-1, *spec.shape)
    odds = []
    for start in range(0, len(hidden), BATCH):
        some = hidden[start : start + BATCH]
        repeated = {each: np.repeat(known[:1], len(some), axis=0) for each, known in rows.values.items()}
        batch = replace(rows, values=repeated | {name: some}, present=np.repeat(rows.present[:1], len(some), axis=0))
        odds.append(_log_odds(model, replace(batch, reason=[""] * len(some)), label))
    lost = _log_odds(model, rows, label)[0] - np.concatenate(odds)
    return np.tensordot(lost, windows, axes=1) / windows.sum(axis=0)


def windows_of(spec: ModalitySpec) -> np.ndarray:
    """What each window hides, bool (windows, *grid); the channels of a picture are hidden together."""
    spans = []
    for at, size in enumerate(spec.grid):
        width = size if at == 2 else max(1, round(size / WINDOW))
        starts = sorted({*range(0, size - width, max(1, width // 2)), size - width})
        spans.append([(np.arange(size) >= start) & (np.arange(size) < start + width) for start in starts])
    return np.array([reduce(np.logical_and.outer, each) for each in product(*spans)])


def blank(values: np.ndarray) -> np.ndarray:
    """The median over a picture's pixels in each channel, over a sound's frames in each band; of a vector, over all."""
    axes = (0, 1) if values.ndim == 3 else (0,)
    return np.nanmedian(values, axis=axes, keepdims=True)


def _log_odds(model: Model, rows: Arrays, label: int) -> np.ndarray:
    probabilities = model.answer(rows)[FUSED].astype(np.float64)
    others = np.delete(probabilities, label, axis=1).sum(axis=1)
    return np.log(np.maximum(probabilities[:, label], TINY)) - np.log(np.maximum(others, TINY))
