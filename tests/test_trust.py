"""How familiar an input is, what an answer rests on, which classes it may be, what each modality adds, and where."""

import math
from dataclasses import replace
from itertools import permutations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfusion.data.dataset import Pairs
from kfusion.exporting.samples import Expected
from kfusion.inference import measure_trust
from kfusion.modalities import modality
from kfusion.modalities.image.unknowns import letters_besides
from kfusion.model.answers import Answers, shapley_weights
from kfusion.model.build import Halves
from kfusion.model.trust import DECIMALS, MOST_LOST, Trust, codes, fit_trust
from kfusion.spec import TRUSTED, Caution, ModalitySpec, Spec, audio_spec, image_spec
from kfusion.validation import UserError
from tests.exports import SMALL, small_network

THREE = Spec({**SMALL.modalities, "pulse": ModalitySpec("vector", (5,))}, SMALL.class_names)
TEMPERATURE = {"fused": 2.0, "image": 3.0, "audio": 0.5, "pulse": 1.5}


def samples(spec: Spec, num: int, seed: int) -> Pairs:
    """Samples whose values tell their classes a little."""
    rng, rows = np.random.default_rng(seed), np.arange(num)
    label = rows % spec.num_classes
    values = {
        name: (rng.uniform(0, 1, (num, *shape.shape)) + label.reshape(-1, *[1] * len(shape.shape))).astype(np.float32)
        / 4
        for name, shape in spec.modalities.items()
    }
    return Pairs(values, dict.fromkeys(values, rows), label, spec)


@pytest.fixture(scope="module", params=["late", "lstm"])
def trusted(request) -> tuple[keras.Model, Trust, Pairs]:
    """An untrained network of three modalities, what its trust rests on, and its validation part."""
    network, val = small_network(request.param, spec=THREE), samples(THREE, 90, 1)
    trust = measure_trust(network, samples(THREE, 120, 0), val)
    assert trust is not None
    return network, trust, val


def answered(network, trust, pairs: Pairs, present=None, caution=Caution()) -> dict[str, np.ndarray]:  # noqa: B008
    seen = np.ones((len(pairs), len(pairs.spec.names)), bool) if present is None else present
    answers = Answers(network, pairs.spec, {}, trust, caution)
    outputs = answers(
        {name: tf.constant(each) for name, each in pairs.read(np.arange(len(pairs))).items()}, tf.constant(seen)
    )
    return {name: each.numpy() for name, each in outputs.items()}


def test_the_answers_to_a_rows_windows_are_pooled(trusted):
    network, trust, val = trusted
    values = val.read(np.arange(6))
    # The first row has two sounds, the second one has three sounds and two pulses, the third one of each.
    counts = {"audio": tf.constant([2, 3, 1]), "pulse": tf.constant([1, 2, 1])}
    given = {"image": values["image"][:3], "audio": values["audio"], "pulse": values["pulse"][:4]}
    present = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]], bool)
    answers = Answers(network, THREE, TEMPERATURE, trust, Caution())
    pooled = {name: each.numpy() for name, each in answers(given, tf.constant(present), counts).items()}
    row, pulse = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 3])
    every = {"image": values["image"][row], "audio": values["audio"], "pulse": values["pulse"][pulse]}
    alone = {name: each.numpy() for name, each in answers(every, tf.constant(present[row])).items()}
    for name in ("probabilities", "audio_probabilities", "image_probabilities"):
        logs = [np.log(np.maximum(alone[name][row == each], 1e-38)).mean(axis=0) for each in range(3)]
        joined = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
        joined[2] = alone[name][5]
        np.testing.assert_allclose(pooled[name], joined, rtol=1e-4, atol=1e-6)
    assert not pooled["image_probabilities"][2].any()
    for name in pooled:
        np.testing.assert_allclose(pooled[name][2], alone[name][5], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(pooled["used"], [alone["used"][row == each].any(axis=0) for each in range(3)])
    np.testing.assert_allclose(
        pooled["familiarity"], [alone["familiarity"][row == each].mean(axis=0) for each in range(3)], rtol=1e-5
    )


def test_the_familiarity_is_the_share_of_stranger_validation_inputs(trusted):
    network, trust, val = trusted
    found, num = answered(network, trust, val)["familiarity"], len(val)
    for at, name in enumerate(THREE.names):
        inner = Halves(network).inner(name, val.read(np.arange(num))[name])[1]
        strange = trust.strangeness(name, tf.constant(inner)).numpy().round(DECIMALS)
        share = (strange[None] > strange[:, None]).sum(axis=1) / num
        np.testing.assert_allclose(found[:, at], (share * num + 1) / (num + 1), atol=0.01)
        assert found[:, at].min() > 0 and (found[:, at] < 0.25).mean() <= 0.25


def test_what_is_none_of_the_classes_is_strange():
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4  # The last one is none of the three.
    inner = rng.normal(0, 1, (400, 5)) + 4 * np.eye(5)[classes]
    trust = fit_trust({"pulse": (inner, classes)}, {"pulse": inner[classes < 3]}, {}, {}, 3)
    strange = trust.strangeness("pulse", tf.constant(inner, tf.float32)).numpy()
    assert (strange[classes == 3] > np.quantile(strange[classes < 3], 0.95)).mean() > 0.9
    (hidden, out), x = (trust.arrays[f"pulse_{what}"] for what in ("hidden", "classes")), inner.astype(np.float32)
    logits = np.maximum(x @ hidden[:-1] + hidden[-1], 0) @ out[:-1] + out[-1]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(strange, np.log(p[:, 3] / p[:, :3].sum(axis=1)), rtol=1e-3, atol=1e-3)


def test_a_run_of_the_first_version_goes_by_the_distance_to_its_classes():
    rng = np.random.default_rng(0)
    means, embedding = rng.normal(0, 1, (2, 3, 5)), rng.normal(0, 3, (7, 5))
    whitening, scale = rng.normal(0, 1, (2, 5, 5)), np.array([[1.0, 2.0], [0.5, 0.25]])
    arrays = {"whitening": whitening, "means": means, "scale": scale}
    trust = Trust(("image",), {f"image_{name}": each.astype(np.float32) for name, each in arrays.items()})
    rooted = np.sign(embedding) * np.sqrt(np.abs(embedding))
    wanted = []
    for at, values in enumerate((rooted, rooted / np.linalg.norm(rooted, axis=1, keepdims=True))):
        away = ((values @ whitening[at])[:, None] - means[at]) ** 2
        wanted.append((np.log(away.sum(axis=2).min(axis=1)) - scale[0, at]) / scale[1, at])
    found = trust.strangeness("image", tf.constant(embedding, tf.float32))
    np.testing.assert_allclose(found, np.max(wanted, axis=0), rtol=1e-4)


@pytest.mark.parametrize("kind", ["image", "audio", "vector"])
def test_unknown_inputs_are_of_the_shape_and_range_and_none_is_as_it_was(kind):
    shape = {
        "image": ModalitySpec("image", (8, 6, 3), scale=255),
        "audio": audio_spec((9, 4)),
        "vector": ModalitySpec("vector", (6,)),
    }
    spec, rng = shape[kind], np.random.default_rng(0)
    values = rng.uniform(1, 255, (12, *spec.shape)).astype(np.float32)
    made = modality(kind).unknowns(values, np.arange(12) % 3, spec, rng, ("zero", "1", "Two"))
    assert len(made) >= 2 and ("letters" in made) == (kind == "image")
    for how, each in made.items():
        assert each.shape == values.shape and each.dtype == np.float32 and np.isfinite(each).all(), how
        assert (each != values).reshape(12, -1).any(axis=1).all(), how
        assert kind != "image" or (each.min() >= 0 and each.max() <= 255.5), how


@pytest.mark.parametrize(
    "names, letters",
    [
        ([*"0123456789"], "ACEFHJKLMNPRTUVWXYacdefhkmnprtuvwxy"),
        (["one", "two", "A"], "BCDEFGHJKLMNOPQRSTUVWXYbcdefghkmnopqrstuvwxy"),
        (["7", "cat"], ""),  # A cat may well be a letter.
        (["七", "八"], ""),
        ([], ""),
    ],
)
def test_letters_that_are_no_class_are_unknown_pictures_where_each_class_is_a_sign_by_its_name(names, letters):
    assert letters_besides(names) == letters
    made = modality("image").unknowns(
        np.ones((4, 28, 28, 1), np.float32), np.arange(4), image_spec(), np.random.default_rng(0), names
    )
    drawn = [name for name in made if "letters" in name]
    assert len(drawn) == (4 if letters else 0)
    for name in drawn[:3]:  # As large as signs are in MNIST, and in its middle.
        rows, columns = np.nonzero(made[name].max(axis=(0, 3)) > 100)
        assert 2 <= rows.min() < 9 and 19 <= rows.max() < 28 and columns.min() < columns.max(), name


def test_what_stays_of_its_class_is_not_called_unknown(monkeypatch):
    train = samples(SMALL, 60, 0)
    monkeypatch.setattr(modality("audio"), "unknowns", lambda values, *rest: {"same": values, "other": -values})
    monkeypatch.setattr(Halves, "alone", lambda halves, name, embedding: np.zeros(len(embedding), int))
    found = {}
    monkeypatch.setattr("kfusion.inference.fit_trust", lambda train, *rest: found.update(train))
    measure_trust(small_network(), train, samples(SMALL, 30, 1))
    # The first class is always named: what was made of it is of it still, however it was made.
    assert (found["audio"][1] == 3).sum() == 2 * 40


def test_few_validation_inputs_never_turn_anything_away(trusted):
    network, _, val = trusted
    trust = measure_trust(network, samples(THREE, 120, 0), val.take(np.arange(15)))
    assert trust and answered(network, trust, samples(THREE, 50, 9))["accepted"].all()


def test_what_a_threshold_turns_away_is_treated_as_absent(trusted):
    network, trust, val = trusted
    trust = Trust(trust.names, trust.arrays | {"accuracy": np.full(8, 0.9, np.float32)})
    found = answered(network, trust, val, caution=Caution(turn_away=0.3))
    familiar = found["familiarity"] >= 0.3
    assert 0 < familiar.all(axis=1).sum() < len(val) and (found["accepted"] == familiar.any(axis=1)).all()
    used = np.where(familiar.any(axis=1, keepdims=True), familiar, True)
    np.testing.assert_array_equal(found["used"], used)
    alone = network({**val.read(np.arange(len(val))), "present": used}, training=False)
    np.testing.assert_allclose(found["probabilities"], alone, atol=1e-6)
    off = answered(network, trust, val, caution=Caution(turn_away=0))
    assert off["used"].all() and off["accepted"].all()


def test_a_modality_stays_where_the_others_alone_would_be_wrong_too_often(trusted):
    network, trust, val = trusted
    accuracy = np.full(8, 0.9 - MOST_LOST - 0.01, np.float32)
    accuracy[7] = 0.9
    trust = Trust(trust.names, trust.arrays | {"accuracy": accuracy})
    found = answered(network, trust, val, caution=Caution(turn_away=0.3))
    assert found["used"].all() and not (found["familiarity"] >= 0.3).all()


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_sets_hold_the_right_class_of_as_many_validation_samples_as_promised(trusted, coverage):
    network, trust, val = trusted
    for code, seen in enumerate(codes(3)):
        if code:
            found = answered(network, trust, val, np.tile(seen, (len(val), 1)), Caution(0, coverage))
            held = found["prediction_set"][np.arange(len(val)), val.label]
            assert held.mean() >= coverage and found["prediction_set"][np.arange(len(val)), found["label"]].all()


def test_too_few_samples_for_a_coverage_give_every_class(trusted):
    network, _, val = trusted
    trust = measure_trust(network, samples(THREE, 120, 0), val.take(np.arange(10)))
    assert trust and answered(network, trust, val)["prediction_set"].all()


def test_shares_are_shapley_values_and_add_up_for_any_number_of_modalities(trusted):
    network, trust, val = trusted
    found = answered(network, trust, val.take(np.arange(6)), caution=Caution(0))
    values, rows = val.read(np.arange(6)), np.arange(6)

    def odds(seen):
        p = np.asarray(network({**values, "present": np.tile(seen, (6, 1))}), np.float64)[rows, found["label"]]
        return np.log(p / (1 - p))

    wanted = np.zeros((6, 3))
    for order in permutations(range(3)):
        for place, at in enumerate(order):
            before, after = np.zeros(3, bool), np.zeros(3, bool)
            before[list(order[:place])], after[list(order[: place + 1])] = True, True
            wanted[:, at] += (odds(after) - odds(before)) / math.factorial(3)
    np.testing.assert_allclose(found["shares"], wanted, atol=2e-4)
    np.testing.assert_allclose(found["shares"].sum(axis=1), odds([True] * 3) - odds([False] * 3), atol=2e-4)


def test_the_weights_of_two_modalities_are_halves():
    np.testing.assert_array_equal(shapley_weights(codes(2)), np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) / 2)


def test_the_graph_says_what_the_network_called_combination_by_combination_says(trusted):
    network, trust, val = trusted
    pairs, caution = val.take(np.arange(24)), Caution(0.3, 0.8)
    present = codes(3)[1:][np.arange(24) % 7]
    answers = Answers(network, THREE, TEMPERATURE, trust, caution)
    values = pairs.read(np.arange(24))
    found = answers({name: tf.constant(each) for name, each in values.items()}, tf.constant(present))
    wanted = Expected(network, THREE, TEMPERATURE, trust, caution).outputs(values, present)
    named = {name for name in wanted if name.endswith("class_name")}
    assert found.keys() == wanted.keys() - named - {"present"} and {*TRUSTED, "shares"} <= found.keys()
    for name, each in found.items():
        np.testing.assert_allclose(each.numpy(), wanted[name], atol=1e-3 if name == "shares" else 1e-5, err_msg=name)


def test_what_lies_in_place_of_an_absent_modality_changes_nothing(trusted):
    network, trust, val = trusted
    some, present = val.take(np.arange(5)), np.tile([True, False, True], (5, 1))
    wanted = answered(network, trust, some, present)
    broken = replace(some, values={**some.values, "audio": np.full_like(some.values["audio"], np.nan)})
    for name, each in answered(network, trust, broken, present).items():
        np.testing.assert_array_equal(each, wanted[name], err_msg=name)
    assert not wanted["familiarity"][:, 1].any() and not wanted["shares"][:, 1].any()


def test_without_trust_nothing_is_said_of_it_and_too_many_modalities_have_none():
    spec = Spec({f"v{at}": ModalitySpec("vector", (2,)) for at in range(7)}, ("a", "b"))
    network, pairs = small_network(spec=spec), samples(spec, 6, 0)
    assert measure_trust(network, pairs, pairs) is None
    present = np.ones((6, 7), bool)
    present[0, 1:5] = False
    found = answered(network, None, pairs, present)
    assert "shares" not in found and not found.keys() & set(TRUSTED)
    wanted = Expected(network, spec, {}).outputs(pairs.read(np.arange(6)), present)
    for name, each in found.items():
        np.testing.assert_allclose(each, wanted[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("turn_away", -0.1), ("turn_away", 0.6), ("turn_away", math.nan), ("coverage", 0), ("coverage", 1)],
)
def test_a_wrong_caution_is_one_line(name, value):
    with pytest.raises(UserError, match=f"'{name}' must be in"):
        Caution(**{name: value})
