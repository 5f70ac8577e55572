"""The numbers of the report, each against a case worked out by hand or by another route."""

import json

import numpy as np
import pytest
from sklearn.metrics import classification_report

from kfusion.metrics import classification as metrics

# Two cats called cat, one called dog; one dog called dog. Rows are the truth.
LABEL, PREDICTED, NAMES = [0, 0, 0, 1], [0, 0, 1, 1], ("cat", "dog")


def sampled(temperature: float, num_rows: int = 20000, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true posteriors, and what a model would say whose logits are `temperature` times too large."""
    rng = np.random.default_rng(7)
    logits = 2 * rng.normal(size=(num_rows, num_classes))
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (posteriors.cumsum(1) > rng.random((num_rows, 1))).argmax(1)
    said = np.exp(temperature * logits)
    return said / said.sum(1, keepdims=True), label


def test_report_of_four_rows_is_as_by_hand():
    report = metrics.report(LABEL, PREDICTED, NAMES)
    assert report["accuracy"] == 3 / 4
    assert report["cat"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1-score": 4 / 5, "support": 3})
    assert report["dog"] == pytest.approx({"precision": 1 / 2, "recall": 1, "f1-score": 2 / 3, "support": 1})
    assert report["macro avg"]["recall"] == pytest.approx(5 / 6)
    assert report["weighted avg"]["precision"] == pytest.approx(7 / 8)
    assert json.loads(json.dumps(report)) == report


def test_report_of_a_class_that_never_occurs_has_zeros_and_no_warning():
    report = metrics.report(LABEL, PREDICTED, ("cat", "dog", "eel"))
    assert report["eel"] == {"precision": 0, "recall": 0, "f1-score": 0, "support": 0}


def test_report_of_many_classes_in_few_rows_gives_no_warning():
    names = [f"class {index}" for index in range(60)]
    assert metrics.report(np.arange(60), np.arange(60), names)["accuracy"] == 1


def test_report_text_starts_with_the_overall_accuracy_and_goes_on_as_scikit_learn_prints_it():
    rng = np.random.default_rng(0)
    label, names = rng.integers(0, 4, 200), ("a", "b", "a much longer name", "d")
    predicted = np.where(rng.random(200) < 0.8, label, rng.integers(0, 4, 200))
    first, empty, rest = metrics.report_text(metrics.report(label, predicted, names)).split("\n", 2)
    assert first == f"overall accuracy: {np.mean(label == predicted):.4f}"
    assert not empty
    assert rest == classification_report(label, predicted, target_names=names, digits=4)


def test_confusion_counts_true_rows_by_predicted_columns():
    assert metrics.confusion(LABEL, PREDICTED, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("label", "predicted", "message"),
    [
        ([], [], r"^'label' must be of shape \(n ≥ 1,\)\. Received: \(0,\)$"),
        ([0, 1], [0], r"^'predicted' must be as long as 'label', 2\. Received: 1$"),
        ([0, 2], [0, 0], r"^'label' must be in \[0, 2\)\. Received: \(0, 2\)$"),
        ([0, 1], [0.0, 1.0], r"^'predicted' must be integers\. Received: float64$"),
    ],
)
def test_report_of_bad_input_names_the_argument(label, predicted, message):
    with pytest.raises(ValueError, match=message):
        metrics.report(label, predicted, NAMES)


def test_temper_by_two_takes_square_roots():
    assert metrics.temper([[0.64, 0.36], [0.5, 0.5]], 2) == pytest.approx(np.array([[8 / 14, 6 / 14], [0.5, 0.5]]))


def test_temper_keeps_saturated_probabilities_finite():
    tempered = metrics.temper(np.array([[1, 0, 0]], np.float32), 10)
    assert np.isfinite(np.log(tempered)).all()
    assert tempered.sum() == pytest.approx(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_fit_temperature_recovers_the_temperature_of_sampled_data(temperature):
    probabilities, label = sampled(temperature)
    assert metrics.fit_temperature(probabilities, label) == pytest.approx(temperature, rel=0.03)


def test_fit_temperature_without_any_error_expects_one_in_n_plus_two():
    # Two classes, eight rows, all right at the same odds: the best answer to the targets 9/10 is 9/10 itself.
    probabilities = np.tile([[0.99, 0.01]], (8, 1))
    temperature = metrics.fit_temperature(probabilities, np.zeros(8, int))
    assert temperature == pytest.approx(np.log(99) / np.log(9), rel=1e-3)
    assert metrics.temper(probabilities, temperature)[0, 0] == pytest.approx(0.9, abs=1e-3)


def test_fit_temperature_of_probabilities_with_nan_says_so():
    with pytest.raises(ValueError, match=r"^'probabilities' must be in \[0, 1\]\. Received: 2 NaN"):
        metrics.fit_temperature([[np.nan, np.nan], [0.5, 0.5]], [0, 1])


def test_late_fusion_is_bayes_rule_for_modalities_independent_given_the_class():
    # A prior of 3/4 : 1/4; a picture that is seen with 0.2 : 0.6, a sound that is heard with 0.5 : 0.3.
    prior, seen, heard = np.array([0.75, 0.25]), np.array([0.2, 0.6]), np.array([0.5, 0.3])
    image, audio, both = (prior * seen, prior * heard, prior * seen * heard)
    fused = metrics.late_fusion([[image / image.sum()], [audio / audio.sum()]], prior)
    assert fused[0] == pytest.approx(both / both.sum())
    assert fused[0, 0] == pytest.approx(0.075 / 0.12)


def test_late_fusion_with_a_class_that_has_no_prior_is_refused():
    with pytest.raises(ValueError, match=r"^'prior' must be > 0 for each class\. Received: 0\.0$"):
        metrics.late_fusion([[[0.5, 0.5]], [[0.5, 0.5]]], [1, 0])


def test_view_summary_counts_the_errors_of_each_view():
    label = [0, 1, 1]
    views = {
        "fused": [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]],
        "image": [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]],
        "audio": [[0.4, 0.6], [0.1, 0.9], [0.1, 0.9]],
    }
    summary = metrics.view_summary(label, views, {"image": 1.0, "audio": 1.0}, [0.5, 0.5])
    # By hand, late fusion multiplies: .36 > .06, .06 < .36, .07 < .27, so it is right three times.
    errors = {view: numbers["num_errors"] for view, numbers in summary["views"].items()}
    assert errors == {"fused": 1, "image": 2, "audio": 1, "late_fusion": 0}
    # Always class 0: its precision is 1/3, its recall 1, so F1 is 1/2; that of class 1 is 0.
    scores = {"accuracy": pytest.approx(1 / 3), "macro_f1": pytest.approx(1 / 4)}
    assert summary["views"]["image"] == {**scores, "num_errors": 2, "num_rows": 3}
    assert summary["confusion"] == [[1, 0], [1, 1]]
    assert json.loads(json.dumps(summary)) == summary


def test_a_single_modality_is_not_joined_with_any_other():
    views = {"fused": [[0.9, 0.1]], "vector": [[0.9, 0.1]]}
    assert list(metrics.view_summary([0], views, {"vector": 1.0}, [0.5, 0.5])["views"]) == ["fused", "vector"]


def test_view_summary_calibrates_before_it_joins():
    # Taken at its word, the sure voice wins; at its temperature of 10, it is hardly more than a guess.
    views = {"fused": [[0.9, 0.1]], "image": [[0.8, 0.2]], "audio": [[0.01, 0.99]]}
    trusting = metrics.view_summary([0], views, {"image": 1.0, "audio": 1.0}, [0.5, 0.5])
    calibrated = metrics.view_summary([0], views, {"image": 1.0, "audio": 10.0}, [0.5, 0.5])
    assert trusting["views"]["late_fusion"]["num_errors"] == 1
    assert calibrated["views"]["late_fusion"]["num_errors"] == 0
