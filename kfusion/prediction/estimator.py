"""Classifiers as scikit-learn has them: classes, probabilities, and how each modality votes.

    X -> rows -> batches of 1024 -> the model of a run folder or of an exported version -> labels in the type of `y`

Nothing here needs Python's TensorFlow: the model of a run folder brings it, an exported version runs through the C API.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kfusion.data.dataset import Classes, of_names, read_classes
from kfusion.data.in_memory import read_samples, write_frame
from kfusion.prediction.arrays import FilesOf, on_scale, rows_of
from kfusion.prediction.engine import joined, votes, window_table
from kfusion.prediction.inputs import Arrays, Files, Rows, batch_rows
from kfusion.prediction.job import Job, check_readable, open_rows
from kfusion.prediction.models import Model, load_model
from kfusion.prediction.outputs import Work, trust_columns
from kfusion.run_dir import CLASSES
from kfusion.spec import FUSED
from kfusion.validation import UserError, broken

if TYPE_CHECKING:
    from kfusion.prediction.explanation import Explanation

T = TypeVar("T")
LABEL = "label"
"""The column of a table that holds the classes."""


class Classifier:
    """Whatever `kfusion.load` returns: predicts classes and their probabilities, and tells how each modality votes.

    Attributes:
        classes_: the classes, in the order of the columns of `predict_proba`.
    """

    classes_: np.ndarray

    def _loaded(self) -> Model:
        """The model that answers, with every view."""
        raise NotImplementedError

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row.

        Args:
            X: `{"image": …, "audio": …}` of arrays or paths, by the model's modalities, any of which may be left out; a
                DataFrame with these columns; a list of (picture, sound) pairs of paths, one path for each modality
                that comes in files, any of which may be None; or a folder or manifest, as `python -m kfusion.predict`
                takes it. Images are (N, H, W[, C]) in 0-255 or 0-1, sounds (N, D) or (N, frames, coefficients).

        Returns:
            (N,), of the dtype of `classes_`.

        Raises:
            UserError: a row or a file breaks a rule; the row is named.

        Example:
            >>> clf.predict({"image": X[:4]})
            array([7, 2, 1, 0])
        """
        model = self._loaded()
        codes = ask_each(model, X, lambda start, batch: votes(model, start, batch).label[FUSED])
        return self.classes_[self._places(model)[np.concatenate(codes)]]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class; tempered where the model has been evaluated, and so calibrated.

        Args:
            X: as for `predict`.

        Returns:
            float32 (N, K); columns in the order of `classes_`, rows sum to 1.

        Raises:
            UserError: as `predict`.
        """
        model = self._loaded()
        by_code = np.concatenate(ask_each(model, X, lambda _, batch: model.answer(batch)[FUSED]))
        probabilities = np.empty_like(by_code)
        probabilities[:, self._places(model)] = by_code
        return probabilities

    def explain_decision(self, X: Any) -> pd.DataFrame:
        """How the decision came about: the fused prediction of each row beside that from each modality alone.

        Args:
            X: as for `predict`.

        Returns:
            A row for each of X: `label`, `confidence`; for each modality, as for one called image, `image_label` and
            `image_confidence`, missing where the row lacks it; and `agree`, whether all modalities that the row has
            name one class, missing where it has fewer than two. Then `image_share`, what the image adds to the log-odds
            of the label, its Shapley value; and where the model knows how far to trust itself `accepted`, whether
            anything is familiar, `rests_on`, the modalities on which the answer rests, `prediction_set`, the classes
            that it may be, and `image_familiarity`, the share of known images that are stranger.

        Raises:
            UserError: as `predict`.
        """
        model = self._loaded()
        whole = joined(ask_each(model, X, lambda start, batch: votes(model, start, batch)))
        columns: dict[str, Any] = {}
        for view, label in whole.label.items():
            prefix = "" if view == FUSED else f"{view}_"
            columns[f"{prefix}label"] = self._named(label, self._places(model))
            columns[f"{prefix}confidence"] = whole.confidence[view].astype(float)
        columns |= {"agree": whole.agree(), **trust_columns(whole, model.spec.class_names)}
        if "prediction_set" in columns:
            columns["prediction_set"] = self._sets(whole.trust["prediction_set"], model)
            columns["rests_on"] = columns["rests_on"].str.split("|").map(tuple)
        table = pd.DataFrame(columns)
        return table.set_axis(X.index) if isinstance(X, pd.DataFrame) else table

    def windows(self, X: Any) -> pd.DataFrame:
        """The answer to each window of long files, such as recordings longer than those of the training.

        The answer to a row is exp(mean log p) of its windows, renormalised, without those in which nothing is heard.

        Args:
            X: files, as for `predict`.

        Returns:
            A row for each window: `row_id`, `window`, where it starts and ends, as `audio_start_s` and `audio_end_s`,
            the label and the confidence, also of each modality alone, by the names of the model's classes, and
            `reason`, why nothing is heard in it, or "".

        Raises:
            UserError: as `predict`; or X is arrays.
        """
        model = self._loaded()
        with _opened(model, X) as rows:
            num = batch_rows(rows, model.spec)
            starts = range(0, len(rows), num)
            tables = [window_table(model, rows, start, min(start + num, len(rows))) for start in starts]
        return pd.concat(tables, ignore_index=True)

    def explain(self, X: Any) -> "Explanation":
        """Why the first row of X gets its class: each modality's share, and where in it the evidence lies.

        Args:
            X: as for `predict`.

        Returns:
            Its `lines()` tell it in words, `html()` is a page; `evidence` holds the maps.

        Raises:
            UserError: as `predict`.
        """
        from kfusion.prediction.explanation import explain

        model = self._loaded()
        return explain(model, ask_each(model, X, lambda _, batch: batch)[0], self._hiding())

    def _hiding(self) -> Model | None:
        """The same model with nothing turned away; None: an exported version, which is as it is."""
        return None

    def predict_set(self, X: Any) -> list[tuple[Any, ...]]:
        """The classes that each row may be, with the coverage that the model promises on data like its validation part.

        Args:
            X: as for `predict`.

        Returns:
            A tuple of classes for each row, in the order of `classes_`; the class of `predict` is always among them.

        Raises:
            UserError: as `predict`; or the model is an older one that knows nothing of its coverage.
        """
        model = self._loaded()
        return self._sets(self._trusted(model, X, "prediction_set"), model)

    def familiarity(self, X: Any) -> pd.DataFrame:
        """How familiar each modality of each row is: the share of known inputs that are stranger.

        Args:
            X: as for `predict`.

        Returns:
            A column for each modality, in [0, 1]; 0 where the row lacks it.

        Raises:
            UserError: as `predict_set`.
        """
        model = self._loaded()
        return pd.DataFrame(self._trusted(model, X, "familiarity").astype(float), columns=list(model.spec.names))

    def _trusted(self, model: Model, X: Any, name: str) -> np.ndarray:
        """One of `TRUSTED`."""
        batches = ask_each(model, X, lambda _, batch: model.answer(batch))
        if name not in batches[0]:
            rule = "must know how far it is to be trusted; evaluate its run, and export it again"
            raise broken(model.folder, rule, "a model of an earlier version")
        return np.concatenate([batch[name] for batch in batches])

    def _sets(self, flags: np.ndarray, model: Model) -> list[tuple[Any, ...]]:
        order = np.argsort(self._places(model))
        return [tuple(self.classes_[np.flatnonzero(row)].tolist()) for row in flags[:, order]]

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """The share of rows that get their right class.

        Args:
            X: as for `predict`.
            y: (N,), the right classes; None: the column `label` of a DataFrame.
            sample_weight: (N,), how much each row counts; None: all the same.
        """
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(label_of(X, y), self.predict(X), sample_weight=sample_weight))

    def _places(self, model: Model) -> np.ndarray:
        """Where in `classes_` each of the model's classes is."""
        names = Classes(self.classes_).names
        return np.array([names.index(name) for name in model.spec.class_names])

    def _named(self, label: np.ndarray, places: np.ndarray) -> pd.Series:
        """The model's classes as values; missing where a label is -1."""
        named = pd.Series(self.classes_[places[label]])
        if (label >= 0).all():
            return named
        nullable = {"i": "Int64", "u": "UInt64", "b": "boolean"}.get(self.classes_.dtype.kind)
        return named.astype(nullable or object).mask(label < 0)


class ExportedClassifier(Classifier):
    """An exported version as a classifier: answers through TensorFlow's C API, without Python's TensorFlow.

    Args:
        folder: the version's, such as `saved_models/kfusion/1`.

    Attributes:
        classes_: the classes, in the order of the columns of `predict_proba`.
        folder_: the version's folder.

    Raises:
        UserError: it is no version that `python -m kfusion.export` or `FusionClassifier.export` wrote.

    Example:
        >>> load("saved_models/kfusion/1").predict([("3.png", "three.wav")])
        array([3])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder_ = Path(folder)
        self._model = load_model(self.folder_, all_views=True)
        path = self.folder_ / "assets.extra" / CLASSES
        self.classes_ = np.sort(classes_of(self._model.spec.class_names, path).values)

    def _loaded(self) -> Model:
        return self._model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder_)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder_,)


def classes_of(names: tuple[str, ...], path: Path) -> Classes:
    """The classes of a model.

    Args:
        names: the model's own.
        path: the `kfusion_classes.json` that may lie with it.

    Raises:
        UserError: the file is of another model.
    """
    classes = read_classes(path) if path.is_file() else of_names(names)
    if set(classes.names) != set(names):
        raise UserError(f"{path}: must hold the classes of the model ({', '.join(names[:6])}). Found: others")
    return classes


def label_of(X: Any, y: Any) -> Any:
    """The labels of X.

    Args:
        X: as for `fit`.
        y: (N,); None: the table's own.

    Raises:
        UserError: there are none.
    """
    if y is not None:
        return y
    if isinstance(X, pd.DataFrame) and LABEL in X.columns:
        return X[LABEL]
    raise UserError(f"'y' must be given unless X is a folder, a manifest, or a DataFrame with a column {LABEL!r}")


def ask_each(model: Model, X: Any, ask: Callable[[int, Arrays | Files], T]) -> list[T]:
    """Asks a model about X, batch by batch.

    Args:
        model: what answers.
        X: as for `Classifier.predict`.
        ask: called with each batch's first row and the batch as the model takes it.

    Returns:
        What `ask` returned for each batch.

    Raises:
        UserError: the first row that cannot be answered, by its number and its files.
    """
    results = []
    with _opened(model, X) as rows:
        num = batch_rows(rows, model.spec)
        for start in range(0, len(rows), num):
            stop = min(start + num, len(rows))
            batch = model.prepare(rows.read(start, stop))
            results.append(ask(start, batch))
            place = next((place for place, reason in enumerate(batch.reason) if reason), None)
            if place is not None:
                names = [column[place] for column in (rows.files(start, stop) or {}).values()]
                files = f" ({', '.join(filter(None, names))})" if any(names) else ""
                received = f"row {start + place}{files}: {batch.reason[place]}"
                raise UserError(f"'X': each row must be readable. Found: {received}")
    return results


def _written(X: pd.DataFrame, columns: Mapping[str, str | list[str]], path: Path) -> Path:
    """The columns of a DataFrame that a model reads, as a table."""
    names = [name for of_name in columns.values() for name in ([of_name] if isinstance(of_name, str) else of_name)]
    there = X.set_axis(list(map(str, X.columns)), axis=1)
    files = [name for name in columns.values() if isinstance(name, str)]
    write_frame(path, there[[name for name in names if name in there.columns]], files)
    return path


@contextmanager
def _opened(model: Model, X: Any) -> Iterator[Rows]:
    """X as rows that a model can answer.

    Raises:
        UserError: it is no input, or not one for this model.
    """
    columns = model.columns_of_tables if isinstance(X, pd.DataFrame) else {}
    if isinstance(X, str | os.PathLike) or columns:
        with tempfile.TemporaryDirectory(prefix="kfusion-") as folder:
            work = Work(Path(folder) / "predictions.csv")
            work.folder.mkdir()
            place = X if isinstance(X, str | os.PathLike) else _written(X, columns, Path(folder) / "X.csv")
            yield open_rows(Job(model.folder, Path(place), work.out), work, model)[0]
        return
    rows = rows_of(read_samples(X, model.spec), model.spec)
    if isinstance(rows, FilesOf):
        check_readable(rows, model)
        yield rows
    else:
        yield on_scale(rows, model, force=False)[0]
