"""Why an answer is as it is: the evidence lies where it is, comes from the weights, and is told in words on a page."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from kfusion.inference import measure_trust
from kfusion.model.answers import Answers
from kfusion.prediction.explanation import blank, explain, occlusion, windows_of
from kfusion.prediction.inputs import Arrays
from kfusion.spec import FUSED, SHARES, TRUSTED, Caution, Spec
from kfusion.validation import UserError
from tests.exports import SMALL, small_network
from tests.test_trust import samples


class Small:
    """A small network as what answers rows."""

    def __init__(self, network, spec: Spec = SMALL, trust=None, caution: Caution | None = None) -> None:
        self.spec, self.answers = spec, Answers(network, spec, {}, trust, caution)

    def answer(self, rows):
        scaled = {name: tf.constant(rows.values[name] * shape.scale) for name, shape in self.spec.modalities.items()}
        outputs = self.answers(scaled, tf.constant(rows.present))
        columns = {FUSED: "probabilities", **{name: f"{name}_probabilities" for name in self.spec.names}}
        columns |= {name: name for name in (*TRUSTED, SHARES) if name in outputs}
        return {view: outputs[column].numpy() for view, column in columns.items()}


class Bright:
    """Says the second class where one pixel, or one band of one frame, is bright."""

    spec = SMALL

    def answer(self, rows):
        odds = 9 * rows.values["image"][:, 6, 1, 0] + 4 * rows.values["audio"].reshape(-1, 4, 3)[:, 2, 1]
        second = 1 / (1 + np.exp(-odds))
        return {FUSED: np.stack([1 - second, second, 0 * second], axis=1)}


def one_row(seed: int = 0) -> Arrays:
    values = samples(SMALL, 3, seed).read(np.arange(1))
    return Arrays(values, np.ones((1, 2), bool), [""])


def test_every_value_is_hidden_and_channels_go_together():
    windows = windows_of(SMALL["image"])
    assert windows.any(axis=0).all() and (windows.any(axis=3) == windows.all(axis=3)).all()
    assert windows.reshape(len(windows), -1).sum(axis=1).max() <= 2 * 2 * 3


def test_the_evidence_lies_where_it_is():
    rows = one_row()
    rows.values["image"][:] = 0
    rows.values["image"][0, 6, 1] = 1
    rows.values["audio"][:] = 0
    rows.values["audio"].reshape(4, 3)[2, 1] = 1
    maps = {name: occlusion(Bright(), rows, name, 1) for name in ("image", "audio")}  # type: ignore[arg-type]
    assert maps["image"][6, 1, 0] == pytest.approx(maps["image"].max())
    assert maps["image"].max() > 2 * np.median(maps["image"])
    assert maps["audio"][2, 1] == maps["audio"].max() > 2 * np.median(maps["audio"])
    assert maps["image"].max() == pytest.approx(9, rel=1e-3) and maps["image"][0, 7].max() == pytest.approx(0, abs=1e-6)


def test_other_weights_give_other_maps_and_the_same_weights_the_same():
    """Adebayo et al. 2018: a map that random weights leave as it is shows the input, not the model."""
    rows, maps = one_row(), []
    for seed in (0, 0, 1, 2, 3):
        maps.append(occlusion(Small(small_network("lstm", seed)), rows, "image", 1)[..., 0].ravel())  # type: ignore[arg-type]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.mean([abs(spearmanr(maps[0], other).statistic) for other in maps[2:]]) < 0.5


@pytest.mark.parametrize(("shape", "wanted"), [((2, 2, 1), (1, 1, 1)), ((4, 3), (1, 3)), ((5,), (1,))])
def test_what_is_hidden_is_put_at_the_median(shape, wanted):
    assert blank(np.arange(np.prod(shape), dtype=np.float32).reshape(shape)).shape == wanted


def test_a_page_tells_it_in_words_and_needs_nothing_else():
    network, val = small_network("lstm"), samples(SMALL, 60, 1)
    trust = measure_trust(network, samples(SMALL, 60, 0), val)
    why = explain(Small(network, trust=trust), one_row(), Small(network))  # type: ignore[arg-type]
    lines, page = why.lines(), why.html()
    assert lines[0].startswith(f"The answer is {why.label}, ") and "log-odds" in lines[-2] and "one of: " in lines[-1]
    assert page.count("data:image/png;base64,") == 2 and "http" not in page and "<h1>Why " in page
    assert set(why.shares) == set(why.evidence) == {"image", "audio"} and why.evidence["image"].shape == (9, 8, 3)


def test_what_is_treated_as_absent_has_no_map():
    network = small_network("lstm")
    trust = measure_trust(network, samples(SMALL, 60, 0), samples(SMALL, 60, 1))
    assert trust is not None
    trust.arrays["accuracy"][:] = 0.9
    rows = one_row()
    rows.values["audio"][:] = 1e4
    why = explain(Small(network, trust=trust), rows, Small(network))  # type: ignore[arg-type]
    told = " ".join(why.lines())
    assert list(why.evidence) == ["image"] and "The audio is unfamiliar, and treated as absent." in told


def test_a_row_that_cannot_be_read_is_one_line():
    rows = one_row()
    rows.reason[0] = "audio: must be a WAV file"
    with pytest.raises(UserError, match="must be a WAV file"):
        explain(Small(small_network()), rows)  # type: ignore[arg-type]
