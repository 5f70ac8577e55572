"""Who decides: six pairs that can be counted by eye."""

import numpy as np
import pytest

from kfusion.metrics.modalities import agreement, conflict, disagreement, negative_fusion, partners

LABEL = np.array([0, 0, 0, 1, 1, 1])
ANSWERS = {
    "fused": np.array([0, 0, 1, 1, 2, 1]),
    "image": np.array([0, 0, 0, 2, 2, 0]),
    "audio": np.array([0, 1, 1, 1, 1, 2]),
}


def test_agreement_counts_the_four_cases():
    counts = {(c["image"], c["audio"]): (c["num_rows"], c["num_fused_right"]) for c in agreement(LABEL, ANSWERS)}
    assert counts == {(True, True): (1, 1), (True, False): (2, 1), (False, True): (2, 1), (False, False): (1, 1)}


def test_disagreement_says_whom_the_fused_answer_followed_and_who_was_right():
    facts = disagreement(LABEL, ANSWERS)
    assert facts["num_rows"] == 5
    assert facts["followed"] == {"image": 2, "audio": 2, "neither": 1}
    assert facts["right"] == {"image": 2, "audio": 2, "fused": 3, "neither": 1}


def test_negative_fusion_names_the_rows_their_classes_and_their_speakers():
    facts = negative_fusion(LABEL, ANSWERS, ("a", "b", "c"), np.array([0, 1, 0, 1, 0, 1]), ("ann", "bob"))
    assert facts["rows"] == [2, 4]
    assert (facts["num_lost"], facts["share"], facts["num_rescued"]) == (2, pytest.approx(1 / 3), 1)
    assert facts["by_class"][0] == {"name": "a", "num_rows": 3, "num_lost": 1, "share": pytest.approx(1 / 3)}
    assert facts["by_class"][2] == {"name": "c", "num_rows": 0, "num_lost": 0, "share": 0.0}
    assert [entry["num_lost"] for entry in facts["by_speaker"]] == [2, 0]
    assert negative_fusion(LABEL, ANSWERS, ("a", "b", "c"), None, ())["by_speaker"] is None


def test_conflict_shares_are_those_of_all_and_of_the_clear_rows():
    image, audio, fused = np.array([0, 0, 1, 1]), np.array([1, 2, 0, 2]), np.array([0, 2, 1, 0])
    labels = {"image": image, "audio": audio}
    facts = conflict(labels, fused, np.array([True, True, False, False]))
    assert facts["won"] == {"image": 0.5, "audio": 0.25, "neither": 0.25}
    assert facts["won_clear"] == {"image": 0.5, "audio": 0.5, "neither": 0.0}
    assert conflict(labels, fused, np.zeros(4, bool))["won_clear"] is None
    with pytest.raises(ValueError, match="'labels' must be of two classes or more in each row"):
        conflict({"image": image, "audio": image}, fused, np.ones(4, bool))


def test_of_three_modalities_those_that_agree_are_followed_together():
    third = {**ANSWERS, "vector": np.array([0, 1, 1, 1, 0, 0])}
    assert len(agreement(LABEL, third)) == 8
    assert agreement(LABEL, third)[0] == {
        **dict.fromkeys(("image", "audio", "vector"), True), "num_rows": 1, "num_fused_right": 1,
    }  # fmt: skip
    facts = disagreement(LABEL, third)
    assert facts["num_rows"] == 5
    assert facts["followed"] == {"image": 2, "audio": 2, "vector": 2, "neither": 1}
    assert facts["right"] == {"image": 2, "audio": 2, "vector": 1, "fused": 3, "neither": 1}
    labels = {"image": np.array([0, 1]), "audio": np.array([0, 1]), "vector": np.array([1, 0])}
    won = conflict(labels, np.array([0, 2]), np.ones(2, bool))["won"]
    assert won == {"image": 0.5, "audio": 0.5, "vector": 0.0, "neither": 0.5}


def test_a_single_modality_never_disagrees():
    alone = {"fused": ANSWERS["image"], "image": ANSWERS["image"]}
    assert disagreement(LABEL, alone)["num_rows"] == 0
    assert [(case["image"], case["num_fused_right"]) for case in agreement(LABEL, alone)] == [(True, 3), (False, 0)]
    assert negative_fusion(LABEL, alone, ("a", "b", "c"), None, ())["num_lost"] == 0


def test_partners_are_of_other_classes_each_as_likely():
    label = np.array([2, 0, 1, 1, 0, 2, 2])
    draws = np.random.default_rng(0).random((4000, len(label)))
    found = np.stack([partners(label, draw) for draw in draws])
    assert (label[found] != label).all()
    # The first row is a 2: rows 1 to 4 are of other classes, a quarter each.
    np.testing.assert_allclose(
        np.bincount(found[:, 0], minlength=7) / 4000, [0, 0.25, 0.25, 0.25, 0.25, 0, 0], atol=0.04
    )
    assert partners(label, np.full(7, 0.99999997)).max() < 7


def test_partners_need_two_classes():
    with pytest.raises(ValueError, match=r"'label' must be of two classes at least. Received: \[3\]"):
        partners([3, 3], [0.1, 0.2])
