"""What is known of a run: the content of its folder's files, read once. Nothing else is read, no model is loaded."""

import csv
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.config import Config, ModelConfig
from kfusion.io import file_hash, read_arrays, read_json
from kfusion.plots.tables import Words
from kfusion.recipes import smaller
from kfusion.run_dir import Run, open_finished
from kfusion.validation import UserError

FORMAT = 1
"""Of the files of kfusion.evaluate and kfusion.embed."""


@dataclass(frozen=True, eq=False)
class Findings:
    """The files of a run folder; None where a stage has not been run, or was run with other weights.

    Args:
        run: the folder.
        name: what the run is called: the folder's name.
        config: config.json.
        data: data.json.
        metrics: metrics.json.
        history: history.csv, one dict per epoch.
        environment: environment.json.
        evaluation: evaluation/evaluation.json.
        robustness: evaluation/robustness.json.
        embeddings: embeddings/embeddings.json.
        elsewhere: evaluation/NAME/evaluation.json by NAME, of other data.
        stale: the verbs of which the folder holds files that were made with other weights than it has now.
    """

    run: Run
    name: str
    config: Config
    data: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    environment: dict[str, Any]
    evaluation: dict[str, Any] | None
    robustness: dict[str, Any] | None
    embeddings: dict[str, Any] | None
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()

    @cached_property
    def words(self) -> Words:
        """What the run's modalities and samples are called."""
        return Words.of(self.run.spec())

    @property
    def kept(self) -> str:
        """Which of several candidates the run's network is; "network" where there was but one."""
        return self.metrics.get("choice", {}).get("kept", "network")

    @property
    def model(self) -> ModelConfig:
        """The settings of the network that was kept; baselines are late fusion, whatever they say."""
        config = smaller(self.config) if self.kept == "smaller" else self.config
        return replace(config.model, fusion="late") if self.kept == "baselines" else config.model

    @property
    def num_rows(self) -> int:
        """Samples in the test part."""
        return self.metrics["views"]["fused"]["num_rows"]

    def predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The predictions that the evaluation was made from; None where they are missing.

        Returns:
            label, int64 (n,); class probabilities, float32 (n, views, num_classes); and which rows share one of the
            last modality, such as a sound, int64 (n,).

        Raises:
            UserError: the file is damaged.
        """
        path = self.run.evaluation / "answers.npz"
        if self.evaluation is None or not path.exists():
            return None
        arrays = read_arrays(path, "must be what kfusion.evaluate wrote; run it again")
        same = str(arrays.get("key")) == self.evaluation["key"]
        return (arrays["label"], arrays["test"], arrays["group"]) if same else None


def read_findings(folder: Path) -> Findings:
    """Reads the files of a run folder.

    Raises:
        UserError: the run is unfinished, a file is damaged or of another version.
    """
    run = open_finished(folder)
    evaluation = _later(run.evaluation / "evaluation.json", "evaluate")
    robustness = _later(run.evaluation / "robustness.json", "evaluate")
    embeddings = _later(run.folder / "embeddings/embeddings.json", "embed")
    weights = file_hash(run.best) if run.best.exists() else None
    stale = set()
    if evaluation and weights not in (None, evaluation.get("weights")):
        evaluation = stale.add("evaluate")
    if robustness and (evaluation is None or robustness.get("key") != evaluation.get("key")):
        robustness = stale.add("evaluate")
    if embeddings and weights not in (None, embeddings.get("weights")):
        embeddings = stale.add("embed")
    return Findings(
        run=run,
        name=folder.resolve().name,
        config=run.config(),
        data=run.data(),
        metrics=run.metrics(),
        history=_history(run.history),
        environment=read_json(run.folder / "environment.json"),
        evaluation=evaluation,
        robustness=robustness,
        embeddings=embeddings,
        elsewhere=_elsewhere(run, weights),
        stale=frozenset(stale),
    )


def _elsewhere(run: Run, weights: str | None) -> dict[str, dict[str, Any]]:
    """The evaluations on other data that were made with these weights."""
    every = {path.parent.name: _later(path, "evaluate") for path in sorted(run.evaluation.glob("*/evaluation.json"))}
    return {name: facts for name, facts in every.items() if facts and weights in (None, facts.get("weights"))}


def _later(path: Path, verb: str) -> dict[str, Any] | None:
    """A file that a later stage may have written."""
    if not path.exists():
        return None
    content = read_json(path)
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        rule = f"must be of format {FORMAT}; 'python -m kfusion.{verb}' writes it anew"
        raise UserError(f"{path}: {rule}. Found: format {version!r}")
    return content


def _history(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: must be the history that training wrote. Found: {reason}") from error
    if not rows:
        raise UserError(f"{path}: must be the history that training wrote. Found: no epoch")
    return rows
