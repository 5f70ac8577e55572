"""Pictures that are no signs: how they are told from signs and read; encoders that fit them or are trained before."""

import io
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from kfusion.config import AugmentConfig, Config, DataConfig, ModelConfig, TrainingConfig
from kfusion.data.loaders import load
from kfusion.inference import load_network
from kfusion.modalities import modality
from kfusion.modalities.encoders import fitted_filters, trained_variables
from kfusion.modalities.front_ends import file_reader
from kfusion.modalities.image.augmentation import turned
from kfusion.modalities.image.corruption import turn
from kfusion.modalities.image.decoding import PHOTO_FRONT_END, chosen
from kfusion.modalities.image.encoder import encode_by_trained
from kfusion.model.build import as_float32, build_model, with_all_views
from kfusion.prediction.inputs import Files
from kfusion.prediction.models import RunModel
from kfusion.prepared_data import load_own
from kfusion.spec import ModalitySpec, Spec, image_spec
from kfusion.training.optimizers import compile_model
from kfusion.training.trainer import train
from tests.exports import SMALL, export_small, small_network
from tests.folders import line
from tests.media import digit_images

PHOTO = ModalitySpec("image", (40, 40, 3), scale=255, front_end=PHOTO_FRONT_END)
CLASSES = {"leaf": (40, 160, 60), "sky": (90, 140, 230)}


def photo(colour: tuple[int, ...], seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    """A coloured thing with soft edges before a ground of another colour, in uneven light."""
    rng, (height, width) = np.random.default_rng(seed), size
    y, x = np.mgrid[:height, :width] / max(size)
    near = np.exp(-((x - rng.uniform(0.2, 0.6)) ** 2 + (y - rng.uniform(0.3, 0.7)) ** 2) / 0.05)[..., None]
    pixels = np.array(colour) * near + np.array((150, 120, 110)) * (1 - near) * (0.6 + 0.4 * y[..., None])
    return Image.fromarray(np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))


def files(folder: Path, pictures: list[Image.Image], ending: str = "png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.{ending}" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return paths


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of ten photos of each class, without sounds."""
    for name, colour in CLASSES.items():
        files(tmp_path / "photos" / name, [photo(colour, seed) for seed in range(10)], "jpg")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _cached(tmp_path, monkeypatch):
    monkeypatch.setenv("KFUSION_CACHE", str(tmp_path / "cache"))


def cut(digit: np.ndarray, side: int) -> Image.Image:
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    inside = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Image.fromarray(inside).resize((side, side))


def on_paper(digit: np.ndarray) -> Image.Image:
    """A digit in blue ink on yellowish paper, photographed in light that falls off."""
    ink = np.asarray(Image.fromarray(digit).resize((200, 200)), float)[..., None] / 255
    paper = np.array([210, 205, 190]) - 60 * np.linspace(0, 1, 200)[:, None, None]
    return Image.fromarray((paper * (1 - ink) + np.array([50, 60, 90]) * ink).astype(np.uint8))


@pytest.mark.parametrize("kind", ["as they are", "negative", "cut to the ink", "on paper"])
def test_signs_are_known_by_two_levels_without_colour(tmp_path, kind):
    change = {
        "as they are": Image.fromarray,
        "negative": lambda digit: Image.fromarray(255 - digit),
        "cut to the ink": lambda digit: cut(digit, 16),
        "on paper": on_paper,
    }[kind]
    paths = files(tmp_path, [change(digit) for digit in digit_images()[0][::250]])
    front_end, shape, note = chosen("auto", (), paths)
    assert (front_end, shape) == ("", (28, 28, 1)) and "signs" in note


def test_photos_are_known_in_colour_and_in_grey_and_keep_their_size(photos):
    paths = sorted(photos.glob("*/*"))
    assert chosen("auto", (), paths)[:2] == (PHOTO_FRONT_END, (48, 48, 3))
    grey = files(photos.parent / "grey", [Image.open(path).convert("L").resize((300, 200)) for path in paths])
    front_end, shape, note = chosen("auto", (), grey)
    assert (front_end, shape) == (PHOTO_FRONT_END, (64, 64, 3)) and "--image-preprocessing digit" in note


def test_what_is_told_is_not_looked_for():
    gone = [Path("gone.png")]
    assert chosen("auto", (28, 28, 1), gone) == ("", (28, 28, 1), "")
    assert chosen("auto", (32, 24, 3), gone) == ("", (32, 24, 3), "")
    assert chosen("digit", (), gone) == ("", (28, 28, 1), "")
    assert chosen("photo", (28, 28, 1), gone) == (PHOTO_FRONT_END, (28, 28, 1), "")
    assert chosen("auto", (), gone)[:2] == ("", (28, 28, 1))
    with pytest.raises(ValueError, match="'image_shape' must be 28 28 1 where 'image_preprocessing' is 'digit'"):
        DataConfig(image_preprocessing="digit", image_shape=(32, 32, 1))
    with pytest.raises(ValueError, match="'image_preprocessing' must be left out unless"):
        load(DataConfig(image_preprocessing="photo"))


def test_a_photo_is_fitted_in_proportion_into_its_mean_colour():
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[:, :60], pixels[:, 60:] = (200, 0, 40), (0, 100, 40)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    (image,), (reason,) = file_reader(PHOTO)(tf.constant([written.getvalue()]))
    image = image.numpy()
    assert reason == b"" and image.shape == (40, 40, 3)
    np.testing.assert_array_equal(image[:10], np.broadcast_to([100, 50, 40], (10, 40, 3)))
    np.testing.assert_array_equal(image[30:], image[:10])
    assert (image[10:30, :18] == [200, 0, 40]).all() and (image[10:30, 22:] == [0, 100, 40]).all()
    assert Spec.from_json(Spec({"image": PHOTO}, ("a", "b")).to_json())["image"] == PHOTO


@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        ((28, 28, 1), (32, 64)),
        ((32, 32, 3), (32, 64)),
        ((48, 48, 3), (32, 64, 128, 128)),
        ((64, 64, 3), (32, 64, 128, 128)),
        ((224, 224, 3), (32, 64, 128, 128, 128, 128)),
        ((1, 1024, 1), (32, 64, 128, 128, 128)),
    ],
)
def test_larger_images_get_more_blocks(shape, filters):
    assert fitted_filters((32, 64), shape) == filters


@pytest.mark.parametrize(
    ("shape", "encoder", "filters"),
    [
        ((28, 28, 1), "conv", (32, 64)),
        ((28, 28, 3), "pooled", (24, 48, 96)),
        ((48, 48, 3), "pooled", (24, 48, 96)),
        ((64, 64, 1), "pooled", (24, 48, 96)),
        ((128, 96, 3), "pooled", (24, 48, 96, 128)),
    ],
)
def test_photos_have_a_pooled_encoder_and_signs_the_papers(shape, encoder, filters):
    spec = image_spec(shape)
    fitted, line = modality(spec).fitted(ModelConfig(), spec)
    assert (fitted.image_encoder, fitted.filters) == (encoder, filters)
    assert line.startswith("a pooled encoder of filters" if encoder == "pooled" else "")
    # What a person sets is kept.
    assert modality(spec).fitted(ModelConfig(filters=(2, 3)), spec)[0].filters == (2, 3)
    assert modality(spec).fitted(ModelConfig(image_encoder="conv"), spec)[0].image_encoder == "conv"


def test_what_a_photo_shows_is_seen_alike_wherever_it_lies():
    spec = image_spec((64, 64, 3))
    values = keras.Input(spec.shape)
    config = ModelConfig(image_encoder="pooled", filters=(3, 4), embed_dim=8)
    encoder = keras.Model(values, modality(spec).encode(values, "image", spec, config))
    pictures = np.zeros((2, 64, 64, 3), np.float32)
    # By a multiple of what stride and pooling divide by, and far from the borders.
    pictures[0, 20:28, 24:32] = pictures[1, 36:44, 28:36] = np.random.default_rng(0).uniform(0, 255, (8, 8, 3))
    here, there = encoder(pictures).numpy()
    np.testing.assert_allclose(here, there, atol=1e-5)
    assert here.max() > 0.01


def test_around_a_colour_picture_its_edge_goes_on_and_around_a_stroke_is_nothing():
    for channels, outside in ((1, 0.0), (3, 0.5)):
        image = np.full((1, 8, 8, channels), 0.5, np.float32)
        assert turned(tf.constant(image), tf.constant([0.8]))[0, 0, 0, 0] == outside
        assert turn(image, 45, np.zeros((1, 1)))[0, 0, 0, 0] == outside


def small_model(scaled: bool = False) -> keras.Model:
    """Any model from pictures to features, in somebody's file."""
    x = picture = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x) if scaled else x
    x = keras.layers.Conv2D(4, 3, activation="relu", name="own")(x)
    return keras.Model(picture, keras.layers.BatchNormalization()(x))


@pytest.mark.parametrize(("scaled", "channels", "scale"), [(False, 3, 255), (True, 3, 1), (True, 1, 255)])
def test_a_model_from_a_file_gets_what_it_expects(tmp_path, scaled, channels, scale):
    own = small_model(scaled)
    own.save(tmp_path / "own.keras")
    config = ModelConfig(image_encoder=str(tmp_path / "own.keras"), embed_dim=5)
    spec = ModalitySpec("image", (16, 16, channels), scale=scale)
    x = keras.Input(spec.shape)
    encoder = keras.Model(x, encode_by_trained(x, "image", spec, config))
    pixels = np.random.default_rng(0).integers(0, 2, (3, *spec.shape)).astype(np.float32)
    given = np.repeat(pixels, 3 // channels, axis=-1) * (255 if scaled else 1)
    features = keras.ops.convert_to_numpy(own(given, training=False)).mean(axis=(1, 2))
    kernel, bias = encoder.get_layer("image_embedding").get_weights()
    found = keras.ops.convert_to_numpy(encoder(pixels * scale))
    np.testing.assert_allclose(found, np.maximum(features @ kernel + bias, 0), rtol=1e-4, atol=1e-4)


def test_an_encoder_is_cut_from_a_network_of_kfusion(tmp_path):
    """SMALL's pictures are on the scale 0-1, which the cut network still expects."""
    network = small_network()
    network.save(tmp_path / "best.keras")
    spec = ModalitySpec("image", (9, 8, 3), scale=255)
    x = keras.Input(spec.shape)
    encoder = keras.Model(x, encode_by_trained(x, "image", spec, ModelConfig(image_encoder=f"{tmp_path}/best.keras")))
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 9, 8, 3)).astype(np.float32)
    own = keras.Model(network.input["image"], network.get_layer("image_dropout").input)
    found = keras.Model(x, encoder.get_layer("image_dropout").output)(pixels * 255)
    np.testing.assert_allclose(found, own(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "DenseNet121"])
def test_networks_of_keras_applications_get_the_colours_that_they_expect(name, tmp_path):
    module = {"ResNet50": "resnet50", "MobileNetV2": "mobilenet_v2", "DenseNet121": "densenet"}[name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.float32)
    x = keras.Input(PHOTO.shape)
    encoder = keras.Model(x, encode_by_trained(x, "image", PHOTO, ModelConfig(image_encoder=name)))
    given = keras.Model(x, encoder.get_layer("image_colours").output)(pixels)
    wanted = getattr(keras.applications, module).preprocess_input(pixels.copy())
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-3)
    assert trained_variables(encoder, ModelConfig(image_encoder=name)) == []
    path = tmp_path / "own.weights.h5"
    encoder.get_layer("image_body").save_weights(path)
    config = ModelConfig(image_encoder=name, image_weights=str(path))
    again = keras.Model(x, encode_by_trained(x, "image", PHOTO, config))
    assert len(trained_variables(again, config)) > 100
    ours, theirs = (each.get_layer("image_body").get_weights() for each in (encoder, again))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_an_export_with_a_trained_encoder_needs_its_file_no_more(tmp_path):
    small_model(scaled=True).save(tmp_path / "own.keras")
    config = ModelConfig(image_encoder=f"{tmp_path}/own.keras", fusion="late", embed_dim=4, audio_units=(4,))
    network = build_model(config, SMALL, np.full(12, 2.0), np.full(12, 9.0))
    network.save(tmp_path / "best.keras")
    (tmp_path / "own.keras").unlink()
    network = keras.saving.load_model(tmp_path / "best.keras")
    assert all(check.passed for check in export_small(tmp_path / "1", network).checks().values())
    assert as_float32(with_all_views(network)).output_shape == (None, 3, 3)


def test_files_and_names_that_are_no_image_encoders_are_refused_in_one_line(tmp_path):
    x = keras.Input(PHOTO.shape)
    broken, flat = tmp_path / "broken.keras", tmp_path / "flat.keras"
    broken.write_bytes(b"no model")
    keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]).save(flat)
    for name, sentence in [
        (str(tmp_path / "gone.keras"), "gone.keras: an image encoder must be a Keras model that can be loaded"),
        (str(broken), "broken.keras: an image encoder must be a Keras model that can be loaded"),
        (str(flat), r"must take \(batch, height, width, 1 or 3\)"),
        (
            "Resnet",
            "'image_encoder' must be auto, conv, pooled, a .keras file, or one of keras.applications: .*ResNet50",
        ),
    ]:
        with pytest.raises(ValueError, match=sentence):
            encode_by_trained(x, "image", PHOTO, ModelConfig(image_encoder=name))
    with pytest.raises(ValueError, match="'image_weights' must be empty unless 'image_encoder' is a name"):
        ModelConfig(image_weights="x.weights.h5")


def test_what_was_trained_before_stays_and_then_learns_more_slowly():
    x = keras.Input((3,))
    body, head = keras.layers.Dense(4, name="body"), keras.layers.Dense(2, activation="softmax", name="head")
    model = keras.Model(x, head(body(x)))
    config = TrainingConfig(epochs=2, warmup_share=0.0, peak_learning_rate=0.1, encoder_rate=0.01)
    compile_model(model, config, 4).optimizer.tune(body.trainable_variables, config.encoder_rate, 4)
    kernel, seen = body.kernel.numpy(), []
    rows, label = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    for _ in range(8):
        before = head.kernel.numpy()
        model.train_on_batch(rows, label)
        seen.append((np.abs(body.kernel.numpy() - kernel).max(), np.abs(head.kernel.numpy() - before).max()))
        kernel = body.kernel.numpy()
    still, moving = np.array(seen[:4]), np.array(seen[4:7])
    assert (still[:, 0] == 0).all() and (still[:, 1] > 0).all()
    assert (moving[:, 0] > 0).all() and (moving[:, 0] < 0.1 * moving[:, 1].max()).all()


@pytest.mark.slow
def test_photos_from_a_folder_to_answers_with_an_encoder_from_a_file(photos, tmp_path):
    small_model().save(tmp_path / "own.keras")
    config = Config(
        data=DataConfig(data=str(photos), val_share=0.2, test_share=0.2),
        model=ModelConfig(image_encoder=str(tmp_path / "own.keras"), embed_dim=4, hidden_dim=4, fusion="late"),
        augment=AugmentConfig(flip="none", rotation=0.0, crop=0),
        training=TrainingConfig(epochs=1, batch_size=6, precision="float32"),
    )
    run = train(config, tmp_path / "run")
    (tmp_path / "own.keras").unlink()
    spec, facts = run.spec(), run.data()["source"]
    assert spec["image"] == ModalitySpec("image", (48, 48, 3), scale=255, front_end=PHOTO_FRONT_END)
    assert facts["front_end"] == PHOTO_FRONT_END
    source, parts = load_own(run)
    assert len(parts.train) == 12 and source["image"].values.shape == (20, 48, 48, 3)
    body = load_network(run).get_layer("image_body")
    assert not isinstance(body, keras.layers.Conv2D) and len(body.trainable_variables) == 4
    model = RunModel(run.folder, all_views=False)
    content = sorted(photos.glob("*/*"))[0].read_bytes()
    read = model.prepare(Files({"image": [content]}, [""]))
    np.testing.assert_allclose(read.values["image"][0] * 255, source["image"].values[0], atol=1e-4)


def write_arrays(folder: Path, images: np.ndarray, label: np.ndarray) -> str:
    folder.mkdir()
    np.save(folder / "images.npy", images)
    pd.DataFrame({"label": label}).to_csv(folder / "labels.csv", index=False)
    return str(folder)


@pytest.mark.slow
def test_few_tight_crops_are_learned_better_by_an_encoder_that_has_seen_mnist(tmp_path):
    """120 crops of 16 x 16, as USPS has them, after 2000 of MNIST's images: .69 without, .80 with the encoder."""
    images, label = digit_images()
    order = np.random.default_rng(0).permutation(len(images))
    seen, rest = order[:2500], order[2500:]
    few = np.concatenate([rest[label[rest] == digit][:60] for digit in range(10)])
    large = write_arrays(tmp_path / "large", images[seen], label[seen])
    crops = np.stack([np.asarray(cut(image, 16)) for image in images[few]])
    small = write_arrays(tmp_path / "small", crops, label[few])

    def accuracy(name: str, data: str, epochs: int, test_share: float, encoder: str) -> float:
        config = Config(
            data=DataConfig(data=data, val_share=0.1, test_share=test_share),
            model=ModelConfig(
                filters=(8, 16), embed_dim=32, hidden_dim=16, fusion="late", image_encoder=encoder, freeze_share=0.5
            ),
            augment=AugmentConfig(flip="none", rotation=0.02, crop=1),
            training=TrainingConfig(epochs=epochs, batch_size=16, precision="float32"),
        )
        return train(config, tmp_path / name).metrics()["views"]["fused"]["accuracy"]

    assert accuracy("mnist", large, 4, 0.1, "conv") > 0.85
    fresh = accuracy("fresh", small, 12, 0.7, "conv")
    assert accuracy("tuned", small, 12, 0.7, str(tmp_path / "mnist" / "best.keras")) > fresh + 0.05


def test_a_broken_photo_is_left_to_whoever_reads_all(photos):
    (photos / "leaf" / "000.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert "000.jpg" in line(photos)
