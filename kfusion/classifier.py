"""kfusion from Python: a scikit-learn classifier of samples with several modalities, with a run folder behind it.

    clf = FusionClassifier(recipe="robust", epochs=5).fit({"image": X, "audio": A}, y)
    clf.predict({"image": X[:4]})
    clf.evaluate().report("report.html")

`fit` calls what `python -m kfusion.train` calls, and so do `evaluate`, `embed` and `export`: whatever a command does
with a run folder, it does with `clf.run_dir_` too.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from kfusion.cli import console, quiet, without_tracing_advice
from kfusion.config import Config
from kfusion.data.dataset import Classes
from kfusion.data.in_memory import OwnData, own_data, own_table, read_samples, staging, write_samples, write_table
from kfusion.io import PARTIAL, read_json
from kfusion.prediction.estimator import Classifier, ExportedClassifier, ask_each, classes_of, label_of
from kfusion.prediction.models import Model, load_model
from kfusion.recipes import OWN, SETTINGS, config_of, parameters_of, signature, unknown, with_data
from kfusion.run_dir import CLASSES, LOCK, OWN_DATA, check_new, open_finished
from kfusion.spec import FUSED, Caution
from kfusion.validation import UserError

if TYPE_CHECKING:
    import keras


class FusionClassifier(Classifier, ClassifierMixin, BaseEstimator):
    """Names the class of a picture, of a sound, of both together, or of whatever modalities it was fitted on.

    A scikit-learn estimator: parameters are checked when it is fitted, `clone`, `get_params`, `set_params`,
    `cross_val_score` and pickling work. Its X has a part for each modality and so is no matrix: of `check_estimator`,
    what does not need a matrix holds; there is no `n_features_in_`.

    Args:
        recipe: the settings to start from: "paper", "robust", "auto", or a `Config`.
        out: the run folder to write; None: a temporary one, which goes with the classifier.
        verbose: 0 prints nothing; 1 shows progress and tables.
        tensorboard: write scalars into `tensorboard/` in the run folder.
        overwrite: replace the run that is in `out`.
        resume: go on where a fit into `out` was broken off.
        turn_away: share of known inputs that may be turned away as unfamiliar; what is turned away is treated as absent
            where something else is known. 0: off. It counts where the classifier predicts and exports.
        coverage: probability with which `predict_set` is to hold the right class.
        **settings: every setting of `python -m kfusion.train --help` by its flat name, such as `epochs`, `filters` or
            `val_share`; None: the recipe's.

    Attributes:
        classes_: the classes, sorted, in the dtype of `y`; strings, or whole numbers from 0, where `fit` read a folder.
        run_dir_: the run folder.
        model_: the network, a functional Keras model.
        history_: a row of figures for each epoch.

    Raises:
        TypeError: a parameter that does not exist.

    Example:
        >>> clf = FusionClassifier(recipe="robust", epochs=5)
        >>> clf.fit({"image": images, "audio": sounds}, y).score({"image": images}, y)
    """

    classes_: np.ndarray
    run_dir_: Path

    def __init__(self, recipe: str | Config = "paper", *, out: str | os.PathLike[str] | None = None, **settings: Any):
        parameters = {"recipe": recipe, "out": out, **settings}
        known = {**OWN, **dict.fromkeys(SETTINGS)}
        for name in parameters:
            if name not in known:
                raise TypeError(unknown(name))
        for name, value in (known | parameters).items():
            setattr(self, name, value)

    @without_tracing_advice()
    def fit(
        self, X: Any, y: Any = None, groups: Any = None, callbacks: "Sequence[keras.callbacks.Callback]" = ()
    ) -> "FusionClassifier":
        """Trains, tests and keeps a run.

        The rows are divided into training, validation and test as the settings say; `evaluate` uses the test part.

        Args:
            X: `{"image": (N, H, W[, C]), "audio": (N, D) or (N, frames, coefficients)}`, arrays or paths, and any other
                kind of `kfusion.modalities`, or one alone; a DataFrame with these columns, each cell a path or an
                array, and maybe `label`, `group` and `speaker`; a list of (picture, sound) pairs of paths; or a folder
                or manifest, or "builtin", or a list of several of these, as `--data` of the command takes them.
            y: (N,), texts or whole numbers; None: the column `label`, or the folder's own labels.
            groups: (N,), rows of one group stay in one part; None: the column `group` where there is one.
            callbacks: Keras callbacks, called after kfusion's own. One that stops training ends it well.

        Returns:
            The classifier.

        Raises:
            UserError: a parameter, the data or the run folder break a rule; nothing is written then.
        """
        config = config_of(self.recipe, {name: getattr(self, name) for name in SETTINGS})
        _ = self._caution  # Its values are checked before anything is written.
        folder = None if self.out is None else Path(os.path.abspath(self.out))
        if folder is None and self.resume:
            raise UserError("'resume' must be False without 'out'. Received: True")
        if self.resume and self.overwrite:
            raise UserError("'resume' and 'overwrite' must not be given together. Received: both")
        temporary = None if folder else _Temporary()
        try:
            place = folder or Path(str(temporary)) / (self.recipe if isinstance(self.recipe, str) else "run")
            self._train(config, place, X, y, groups, tuple(callbacks))
        except BaseException:
            if temporary:
                temporary.remove()
            raise
        return self._take(place, temporary)

    def _train(self, config: Config, folder: Path, X: Any, y: Any, groups: Any, callbacks: tuple[Any, ...]) -> None:
        """One call of what the command calls."""
        with quiet():
            from kfusion.training.trainer import train

        def start(own: OwnData | None, data: str | tuple[str, ...]) -> None:
            flags = {name: bool(getattr(self, name)) for name in ("resume", "overwrite", "tensorboard")}
            more: Any = {"callbacks": callbacks, "own": own, "console": self._console}
            run = train(with_data(config, data), folder, **flags, **more, finish_stopped=True)
            if not run.finished:
                raise UserError(
                    f"{folder}: training must come to the end of an epoch. Found: a callback stopped before"
                )

        paths = [X] if isinstance(X, str | os.PathLike) else X
        if isinstance(paths, list) and paths and all(isinstance(path, str | os.PathLike) for path in paths):
            if y is not None or groups is not None:
                found = os.fspath(paths[0])
                raise UserError(f"'y' and 'groups' must be left out where X is a folder. Received: X {found!r}")
            start(None, tuple("builtin" if p == "builtin" else os.path.abspath(os.path.expanduser(p)) for p in paths))
            return
        if config.data.columns:
            kept = own_table(X, y, groups, folder, config.data, self._console)
        else:
            samples = read_samples(X)
            groups = samples.more.get("group") if groups is None else groups
            kept = own_data(samples, label_of(X, y), groups, folder, config.data, self._console)
        with kept as own:
            try:
                start(own, own.data)
            except UserError as error:
                raise UserError(str(error).replace(own.data, "'X'")) from error

    def _take(self, folder: Path, temporary: "_Temporary | None" = None) -> "FusionClassifier":
        """Predicts from now on with the run in a folder."""
        run = open_finished(folder)
        self.classes_ = np.sort(classes_of(run.spec().class_names, folder / OWN_DATA / CLASSES).values)
        self.run_dir_ = folder
        self._temporary, self._model, self._network = temporary, None, None
        return self

    @property
    def model_(self) -> "keras.Model":
        """The best network: {name: values, "present"} -> probabilities, in the order of the run's classes."""
        self._check_fitted()
        if self._network is None:
            with quiet():
                from kfusion.inference import load_fitting

                self._network = load_fitting(open_finished(self.run_dir_))
        return self._network

    @property
    def history_(self) -> pd.DataFrame:
        """Loss, accuracy, validation figures, learning rate and speed, indexed by the epoch's number from 1."""
        self._check_fitted()
        return pd.read_csv(self.run_dir_ / "history.csv", index_col="epoch")

    @without_tracing_advice()
    def evaluate(
        self, X: Any = None, y: Any = None, *, grid: bool = True, grid_rows: int = 10_000, seed: int = 0
    ) -> "Evaluation":
        """Evaluates the classifier, as `python -m kfusion.evaluate`, and calibrates its probabilities.

        Args:
            X: other labelled data, as for `fit`; None: the run's own test part.
            y: (N,), their labels.
            grid: compute the robustness grid, which takes most of the time.
            grid_rows: rows of the grid at most, evenly over the classes; 0: all.
            seed: decides conflicts, corruptions and the bootstrap.

        Returns:
            Its tables and metrics.

        Raises:
            UserError: the data do not fit the run, or are gone.
        """
        self._check_fitted()
        with quiet():
            from kfusion.evaluation.evaluator import Request, evaluate

        flags: Any = {"grid": grid, "grid_rows": grid_rows, "seed": seed}
        if X is None or isinstance(X, str | os.PathLike):
            data = "" if X is None else os.fspath(X)
            place = evaluate(self.run_dir_, Request(data=data, **flags), self._console)
        else:
            model = self._loaded()
            ask_each(model, X, lambda start, batch: None)  # Scale, shapes and files are as they must be.
            known, columns = (
                Classes(self.classes_[self._places(model)]),
                open_finished(self.run_dir_).config().data.columns,
            )
            with tempfile.TemporaryDirectory(prefix="kfusion-") as folder:
                place = Path(folder) / "data"
                if columns and isinstance(X, pd.DataFrame):
                    data = write_table(place, X, y, None, columns, known)
                else:
                    data = write_samples(place, read_samples(X, model.spec), label_of(X, y), None, known)
                # Files of one size would be taken for those of the training.
                place = evaluate(self.run_dir_, Request(data=str(data), force=True, **flags), self._console)
        self._model = None  # The temperatures may have changed.
        text = (place / "report.txt").read_text(encoding="utf-8")
        return Evaluation(self, place, read_json(place / "evaluation.json"), text)

    @without_tracing_advice()
    def embed(self, samples: int = 6000, seed: int = 0, umap: bool = False) -> dict[str, np.ndarray]:
        """Embeddings of the test part, as `python -m kfusion.embed`; its figures are in `run_dir_ / "embeddings"`.

        Args:
            samples: test pairs at most, evenly over the classes; 0: all.
            seed: decides the samples and the projections.
            umap: draw UMAP's projection too; needs the extra `umap`.

        Returns:
            Each modality's and `fused`, float32 (n, features) each, and `labels`, (n,).
        """
        self._check_fitted()
        with quiet():
            from kfusion.evaluation.embeddings import embed

        place, model = embed(self.run_dir_, samples, seed, umap, self._console), self._loaded()
        arrays = {name: np.load(place / f"{name}.npy") for name in (*model.spec.names, FUSED, "labels")}
        return {**arrays, "labels": self.classes_[self._places(model)[arrays["labels"]]]}

    @without_tracing_advice()
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        version: int | None = None,
        verify: bool = True,
        calibrate: bool = True,
        format: str = "savedmodel",
    ) -> Path:
        """Exports a version for a server or another runtime, proved before it appears, as `python -m kfusion.export`.

        Args:
            path: the model's folder, such as "saved_models/digits"; its versions lie in it.
            version: the number; None: the next.
            verify: prove it before it is published.
            calibrate: temper the probabilities, where `evaluate` has fitted temperatures.
            format: "savedmodel"; or "litert", "litert-int8" or "onnx", in a folder of their own, PATH-FORMAT.

        Returns:
            The version's folder; of another format, the file.

        Raises:
            UserError: a value breaks a rule, or the version exists.
        """
        self._check_fitted()
        with quiet():
            from kfusion.exporting.exporter import Options, export
            from kfusion.exporting.model_store import store_of
            from kfusion.exporting.runtimes import FORMATS
        if format not in FORMATS:
            raise UserError(f"'format' must be one of {', '.join(FORMATS)}. Received: {format!r}")
        if version is not None and (type(version) is not int or version < 1):
            raise UserError(f"'version' must be None or a number ≥ 1. Received: {version!r}")
        place, options = Path(os.path.abspath(path)), Options(version, verify, calibrate, format, self._caution)
        store = store_of(place.parent, place.name, format)
        return export(open_finished(self.run_dir_), self.model_, store, options, self._console)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copies the run folder, with its evaluation and all else; `load` reads it.

        Args:
            path: the folder to be.

        Raises:
            UserError: the folder exists and is not empty.
        """
        self._check_fitted()
        place = Path(os.path.abspath(path))
        check_new(place, overwrite=False)
        if place.is_dir() and any(place.iterdir()):
            raise UserError(f"{place}: a run needs a folder of its own. Found: files of a run that was broken off")
        with staging(place.parent, "saved") as folder:
            ignored = shutil.ignore_patterns(LOCK, f"{PARTIAL}*")
            shutil.copytree(self.run_dir_, folder / place.name, ignore=ignored).rename(place)
        return place

    @property
    def _console(self) -> Any:
        return console if self.verbose else None

    def _loaded(self) -> Model:
        self._check_fitted()
        if self._model is None or self._model_caution != self._caution:
            self._model_caution = self._caution
            self._model = load_model(self.run_dir_, all_views=True, caution=self._caution)
        return self._model

    def _hiding(self) -> Model:
        return load_model(self.run_dir_, all_views=True, caution=Caution(0, self.coverage))

    @property
    def _caution(self) -> Caution:
        return Caution(self.turn_away, self.coverage)

    def _check_fitted(self) -> None:
        check_is_fitted(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_dir_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False  # A folder and a table bring their own.
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        tags.non_deterministic = True  # On several cores sums come in any order; see the setting `deterministic`.
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """A pickle holds the whole run folder."""
        parameters: Any = super().__getstate__()
        state: dict[str, Any] = dict(parameters)
        for name in ("_temporary", "_model", "_model_caution", "_network"):
            state.pop(name, None)
        if hasattr(self, "run_dir_"):
            files = (path for path in sorted(self.run_dir_.rglob("*")) if path.is_file() and path.name != LOCK)
            state["run_dir_"] = {str(path.relative_to(self.run_dir_)): path.read_bytes() for path in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("run_dir_", None)
        super().__setstate__(state)
        if files is not None:
            temporary = _Temporary()
            for name, content in files.items():
                path = Path(str(temporary)) / "run" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._take(Path(str(temporary)) / "run", temporary)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of an evaluation; a notebook shows it as tables.

    Args:
        classifier: the one that was evaluated.
        folder: where the evaluation's files and figures are.
        metrics: the content of evaluation.json: "views", "report", "confusion", "decides", "calibration" and the rest.
        text: the tables.
    """

    classifier: FusionClassifier
    folder: Path
    metrics: dict[str, Any]
    text: str

    @property
    def robustness(self) -> dict[str, Any] | None:
        """The content of robustness.json; None where there is no grid."""
        path = self.folder / "robustness.json"
        return read_json(path) if path.exists() else None

    @property
    def views(self) -> pd.DataFrame:
        """Accuracy, errors, rows and interval of each view and of calibrated late fusion."""
        return pd.DataFrame(self.metrics["views"]).T.rename_axis("view")

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the page about the run, one HTML file, as `python -m kfusion.report`.

        Args:
            path: the file; None: `report.html` in the run folder.

        Returns:
            The file.

        Raises:
            UserError: the extra `report` is missing, or the run is damaged.
        """
        from kfusion.reporting.page import report

        return report(self.classifier.run_dir_, (), None if path is None else Path(path))

    def __repr__(self) -> str:
        return self.text.rstrip()

    def _repr_html_(self) -> str:
        return f"{self.views.to_html()}<details><summary>Tables</summary><pre>{escape(repr(self))}</pre></details>"


def load(path: str | os.PathLike[str]) -> Classifier:
    """A classifier from its folder.

    Args:
        path: a run folder, of a finished training; an exported version; or an exported model's folder, whose newest
            version is taken.

    Returns:
        What predicts. Of a run, a fitted `FusionClassifier`, whose parameters are the run's settings. Of a version, an
        `ExportedClassifier`, which needs no TensorFlow of Python's.

    Raises:
        UserError: it is neither, or it is damaged.

    Example:
        >>> load("runs/robust-1").predict({"image": images})
        >>> load("saved_models/kfusion").predict([("3.png", "three.wav")])
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    if (folder / "saved_model.pb").is_file():
        return ExportedClassifier(folder)
    if (folder / "config.json").is_file():
        config = open_finished(folder).config()
        return FusionClassifier(**parameters_of(config))._take(folder)
    versions = [path.parent.name for path in folder.glob("*/saved_model.pb") if path.parent.name.isdecimal()]
    if versions:
        return ExportedClassifier(folder / max(versions, key=int))
    rule = "must be a run folder, an exported version, or a folder of versions"
    raise UserError(f"{path}: {rule}. Found: {'neither' if folder.exists() else 'no such folder'}")


FusionClassifier.__init__.__signature__ = signature()  # pyright: ignore[reportFunctionMemberAccess]


class _Temporary:
    """A folder that goes with its object, or at the end of the process that made it."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="kfusion-")
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())

    def __str__(self) -> str:
        return self.path


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)
