"""What a user writes, for the type checker: `pyright` reads this file, nothing runs it."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

import kfusion
from kfusion import (  # fmt: skip
    HEADS,
    RECIPES,
    Classifier,
    Config,
    FusionClassifier,
    ModalitySpec,
    ModelConfig,
    Spec,
    UtteranceNorm,
    WarmupCosine,
    build_model,
    load,
)


def five_lines(X: np.ndarray, A: np.ndarray, y: np.ndarray) -> Path:
    clf = FusionClassifier(recipe="robust", epochs=5).fit({"image": X, "audio": A}, y)
    labels: np.ndarray = clf.predict({"image": X[:4]})
    probabilities: np.ndarray = clf.predict_proba([("a.png", "a.wav"), ("b.png", None)])
    table: pd.DataFrame = clf.explain_decision({"image": X[:4], "audio": A[:4]})
    clf.evaluate().report("report.html")
    print(labels, probabilities, table["agree"], clf.history_["loss"], clf.classes_, clf.score({"image": X}, y))
    return clf.export("saved_models/digits")


def loaded(X: np.ndarray, y: np.ndarray) -> float:
    version: Classifier = load("saved_models/kfusion/1")
    print(load("runs/robust-1").predict("folder"), version.classes_, version.explain_decision({"image": X}))
    run = load("runs/robust-1")
    if isinstance(run, FusionClassifier):  # What only a run can do.
        run.evaluate().report("report.html")
    return version.score({"image": X}, y)


def own_shapes() -> Spec:
    return Spec({"image": ModalitySpec("image", (32, 32, 3), scale=255)}, class_names=("cat", "dog"))


def own_model(config: Config = RECIPES["paper"]) -> keras.Model:
    network = build_model(ModelConfig(fusion="late"), Spec(), np.zeros(507), np.ones(507))
    network.compile(optimizer=keras.optimizers.Adam(WarmupCosine(1e-3, 10, 100)))
    sound = keras.Input((507,))
    keras.Model(sound, UtteranceNorm((39, 13), trim=0.3)(sound))
    print(kfusion.__version__, config.training.epochs, sorted(HEADS))
    return network
