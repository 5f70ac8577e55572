"""Arrays whose axes come in another order or number: each is read as it is meant, or one line says what was taken.

The same arrays must be read alike for training, `predict`, and the client.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kfusion.config import Config, DataConfig
from kfusion.data.dataset import Source
from kfusion.data.loaders import load
from kfusion.data.splits import split
from kfusion.evaluation.inference import EvaluationSet, other_data
from kfusion.prediction.arrays import on_scale, open_arrays
from kfusion.prepared_data import gather
from kfusion.spec import Spec
from kfusion.transport import read_inputs
from tests.folders import line, write_digits, write_own

NUM = 30
ONE_FRAME = "one frame, which no change in time touches; (N, frames, coefficients) has several"


def own(folder: Path, images: np.ndarray | None = None, audio: np.ndarray | None = None) -> Path:
    """A folder of 30 rows in the own layout, with these arrays in place of its own."""
    write_own(folder, np.arange(NUM) % 3, image_shape=(9, 8, 3))
    for name, array in (("images", images), ("audio", audio)):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def numbered(*shape: int) -> np.ndarray:
    """uint8 (30, *shape), no two rows alike."""
    return np.random.default_rng(0).integers(0, 256, (NUM, *shape), dtype=np.uint8)


def notes(folder: Path, name: str) -> list[str]:
    """What training says of a file."""
    return [note.removeprefix(f"{name}.npy: ") for note in load(DataConfig(data=str(folder))).notes if name in note]


def read(source: Source, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows as training reads them."""
    return source.pairs(dict.fromkeys(source.data, rows)).read(np.arange(len(rows)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_channels_that_come_first_are_moved_to_the_end_and_it_is_said(tmp_path, channels, order):
    pictures = numbered(9, 9, channels)
    first = np.asarray(np.moveaxis(pictures, -1, 1), order=order)
    source = load(DataConfig(data=str(own(tmp_path, first))))
    assert source.spec["image"].shape == (9, 9, channels)
    many = "1 channel" if channels == 1 else f"{channels} channels"
    said = f"images.npy: (30, {channels}, 9, 9) is taken as 9 × 9 pixels of {many}, channels first"
    assert source.notes[0] == said
    rows = np.array([4, 5, 6, 29, 0])
    np.testing.assert_array_equal(read(source, rows)["image"], pictures[rows])
    predicted = open_arrays(tmp_path, None, source.spec)
    assert predicted is not None
    np.testing.assert_array_equal(predicted.read(2, 7).values["image"], pictures[2:7] / np.float32(255))
    if channels <= 4:
        np.testing.assert_array_equal(read_inputs({"image": first})[1]["image"], pictures / np.float32(255))


def test_an_order_that_is_documented_is_taken_without_a_word(tmp_path):
    for shape in ((9, 8), (28, 28, 1), (9, 8, 3), (9, 9, 4)):
        source = load(DataConfig(data=str(own(tmp_path, numbered(*shape)))))
        assert source.spec["image"].shape == (*shape, 1)[:3]
        assert not any("images" in note for note in source.notes)
        sent = read_inputs({"image": numbered(*(*shape, 1)[:3])})[1]["image"]
        assert sent.shape[1:] == source.spec["image"].shape


@pytest.mark.parametrize("shape", [(3, 4, 3), (1, 4, 4), (9, 8, 12), (12, 9, 8), (8, 8, 8), (7, 7, 12)])
def test_an_order_that_is_ambiguous_is_taken_as_documented_and_said(tmp_path, shape):
    pictures = numbered(*shape)
    source = load(DataConfig(data=str(own(tmp_path, pictures))))
    assert source.spec["image"].shape == shape
    np.testing.assert_array_equal(read(source, np.arange(2))["image"], pictures[:2])
    taken = f"{(NUM, *shape)} is taken as {shape[0]} × {shape[1]} pixels of {shape[2]} channels, channels last"
    assert notes(tmp_path, "images") == [f"{taken}; if they come first, save np.moveaxis(images, 1, -1)"]
    predicted = open_arrays(tmp_path, None, source.spec)
    assert predicted is not None and predicted.notes == ()
    np.testing.assert_array_equal(predicted.read(0, 2).values["image"], pictures[:2] / np.float32(255))
    np.testing.assert_array_equal(read_inputs({"image": pictures})[1]["image"], pictures / np.float32(255))


def test_published_digits_may_have_a_channel_before_or_after_and_frames(tmp_path):
    for shape in ((1, 28, 28), (28, 28, 1)):
        write_digits(tmp_path, "competition", shape=shape)
        source = load(DataConfig(data=str(tmp_path)))
        assert source.spec["image"].shape == (28, 28, 1) and source.notes == ()
        np.testing.assert_array_equal(
            read(source, np.arange(3))["image"].ravel(),
            np.load(tmp_path / "x_train_wr.npy")[:3].ravel().astype(np.float32),
        )
    audio = np.load(tmp_path / "x_train_sp.npy")
    for shape in ((39, 13), (39, 13, 1), (1, 39, 13)):
        np.save(tmp_path / "x_train_sp.npy", audio.reshape(-1, *shape))
        source = load(DataConfig(data=str(tmp_path)))
        assert source.spec["audio"].grid == (39, 13) and source.notes == ()
        np.testing.assert_array_equal(read(source, np.array([2]))["audio"], audio[[2]].astype("f4"))
    np.save(tmp_path / "x_train_sp.npy", np.swapaxes(audio.reshape(-1, 39, 13), 1, 2))
    assert line(tmp_path).endswith("must have the shape (N, 507) or (N, 39, 13). Found: shape (60, 13, 39)")


@pytest.mark.parametrize("shape", [(20, 10), (20, 10, 1), (1, 20, 10), (39, 13), (1, 507)])
def test_frames_by_coefficients_are_a_grid_everywhere(tmp_path, shape):
    sounds = np.random.default_rng(0).normal(size=(NUM, *shape)).astype(np.float32)
    source = load(DataConfig(data=str(own(tmp_path, audio=sounds))))
    frames, coefficients = grid = (1, 507) if shape == (1, 507) else tuple(size for size in shape if size > 1)
    assert source.spec["audio"].grid == grid
    taken = ONE_FRAME if frames == 1 else f"{frames} frames of {coefficients} coefficients"
    assert notes(tmp_path, "audio") == [f"rows of {frames} × {coefficients} values are taken as {taken}"]
    flat = sounds.reshape(NUM, -1)
    np.testing.assert_array_equal(read(source, np.array([3, 1]))["audio"], flat[[3, 1]])
    by_size = f"audio.npy: rows of {frames} × {coefficients} values are taken as {frames} frames one after the other"
    for model, said in ((grid, ()), ((1, flat.shape[1]), (by_size,) if frames > 1 else ())):
        predicted = open_arrays(tmp_path, None, Spec.pair(source.spec["image"].shape, model))
        assert predicted is not None and predicted.notes == said
        np.testing.assert_array_equal(predicted.read(3, 9).values["audio"], flat[3:9])
    np.testing.assert_array_equal(read_inputs({"audio": sounds})[1]["audio"], flat)


def test_what_is_taken_for_flat_rows_is_said(tmp_path):
    own(tmp_path, numbered(784), np.random.default_rng(0).normal(size=(NUM, 507)))
    assert notes(tmp_path, "images") == ["rows of 784 values are taken as 28 × 28 pixels"]
    assert notes(tmp_path, "audio") == ["rows of 507 values are taken as 39 frames of 13 coefficients"]
    lines = gather(Config(data=DataConfig(data=str(tmp_path)))).lines()
    assert set(load(DataConfig(data=str(tmp_path))).notes) < set(lines) and all("\n" not in said for said in lines)
    np.save(tmp_path / "audio.npy", np.random.default_rng(0).normal(size=(NUM, 506)))
    assert notes(tmp_path, "audio") == [f"rows of 506 values are taken as {ONE_FRAME}"]


def test_a_model_of_frames_takes_flat_rows_and_refuses_transposed_ones(tmp_path):
    sounds = np.random.default_rng(0).normal(size=(NUM, 20, 10)).astype(np.float32)
    spec = Spec.pair((9, 8, 3), (20, 10))
    for given in (sounds, sounds.reshape(NUM, 200), sounds[:, None]):
        predicted = open_arrays(own(tmp_path, audio=given), None, spec)
        assert predicted is not None and predicted.notes == ()
        np.testing.assert_array_equal(predicted.read(0, 5).values["audio"], sounds[:5].reshape(5, 200))
    with pytest.raises(ValueError, match=r"20 × 10 values, frame by frame; np.swapaxes\(audio, 1, 2\) transposes them"):
        open_arrays(own(tmp_path, audio=np.swapaxes(sounds, 1, 2)), None, spec)
    with pytest.raises(ValueError, match=r"20 × 10 values, frame by frame. Found: shape \(30, 8\)"):
        open_arrays(own(tmp_path, audio=sounds[:, 0, :8]), None, spec)
    with pytest.raises(ValueError, match="'audio' must have 1 to 3 axes"):
        read_inputs({"audio": np.zeros((2, 3, 4, 5))})
    predicted = open_arrays(own(tmp_path, numbered(216)), None, Spec.pair((9, 8, 3), (1, 6)))
    assert predicted is not None
    assert predicted.notes == ("images.npy: rows of 216 values are taken as 9 × 8 × 3, channels last",)


def test_blank_rows_are_counted_and_said(tmp_path):
    pictures, sounds = numbered(9, 8, 3), np.random.default_rng(0).normal(size=(NUM, 6))
    pictures[[1, 2]], pictures[7], sounds[5] = 0, 255, -80.5
    own(tmp_path, pictures, sounds)
    source = load(DataConfig(data=str(tmp_path)))
    blank = [note for note in source.notes if "blank" in note]
    assert blank == [
        "images.npy: 3 of 30 are blank, all their values alike",
        "audio.npy: 1 of 30 are blank, all their values alike",
    ]
    assert not any("blank" in note for note in load(DataConfig(data=str(own(tmp_path)))).notes)
    rows = open_arrays(own(tmp_path, pictures, sounds), None, source.spec)
    said = on_scale(rows, SimpleNamespace(ranges={"audio": (-3, 3)}), force=False)[1]  # type: ignore[arg-type]
    assert said == [
        "images.npy: 3 of 30 rows looked at are blank, all their values alike",
        "audio.npy: 1 of 30 rows looked at are blank, all their values alike",
    ]


def test_notes_change_nothing_that_a_run_remembers_of_its_data(tmp_path):
    source = load(DataConfig(data=str(own(tmp_path, numbered(3, 9, 9)))))
    assert source.notes and not {"notes", "said"} & source.info.keys()
    assert len(split(source, DataConfig(), 0).train) > 0


def judged(folder: Path, spec: Spec) -> EvaluationSet:
    """Another folder's rows for a run with these shapes."""
    spec = Spec.pair(spec["image"].shape, spec["audio"].grid, ("0", "1", "2"))
    run = SimpleNamespace(spec=lambda: spec, data=lambda: {"source": {}, "audio_range": [-4, 4]}, config=Config)
    return other_data(run, str(folder), "", 0, force=True)  # type: ignore[arg-type]


def test_evaluation_takes_the_same_arrays_flat_or_as_frames_and_says_it(tmp_path):
    pictures, sounds = numbered(9, 9, 3), np.random.default_rng(0).normal(size=(NUM, 20, 10)).astype(np.float32)
    first = np.moveaxis(pictures, -1, 1)
    for model in ((20, 10), (1, 200)):
        for given in (sounds, sounds.reshape(NUM, 200)):
            subject = judged(own(tmp_path, first, given), Spec.pair((9, 9, 3), model))
            assert subject.pairs.spec["audio"].grid == model
            image, audio = subject.read(subject.pairs, np.array([5, 2])).values()
            np.testing.assert_array_equal(image, pictures[[5, 2]])
            np.testing.assert_array_equal(audio, sounds[[5, 2]].reshape(2, 200))
            assert subject.notes[0].endswith("is taken as 9 × 9 pixels of 3 channels, channels first")
    with pytest.raises(ValueError, match=r"sounds must be those of the run \(10 × 20\). Found: 20 × 10"):
        judged(own(tmp_path, first, sounds), Spec.pair((9, 9, 3), (10, 20)))
