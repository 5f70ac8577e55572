"""PNG and JPEG files -> pixels: what is read, what is refused, and that one bad row costs no other."""

import numpy as np
import pytest
import tensorflow as tf

from kfusion.data.ink import ground
from kfusion.data.orientation import orientation
from kfusion.data.pictures import IMAGE_FRONT_END, PLAIN_FRONT_END, image_front_end, read_images
from kfusion.spec import Spec
from tests.media import digit_images, encoded, header_only

COLOUR = Spec(image_shape=(8, 10, 3))


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Two of each class."""
    images, label = digit_images()
    return images[np.concatenate([np.flatnonzero(label == digit)[:2] for digit in range(10)])]


@pytest.fixture(scope="module")
def read():
    """`read_images` for digits, as a graph: float32 (n, 28, 28), and sentences."""
    graph = tf.function(
        lambda contents: read_images(contents, Spec()), input_signature=[tf.TensorSpec([None], "string")]
    )

    def call(*files: bytes) -> tuple[np.ndarray, list[str]]:
        image, reason = graph(tf.constant(files, tf.string))
        assert image.shape == (len(files), 28, 28, 1)
        return image.numpy()[..., 0], [each.decode() for each in reason.numpy()]

    return call


def enlarged(digit: np.ndarray, times: int) -> np.ndarray:
    return np.kron(digit, np.ones((times, times), np.uint8))


def test_mnist_images_pass_through_unchanged(read, digits):
    image, reason = read(*(encoded(digit) for digit in digits))
    np.testing.assert_array_equal(image, digits)
    assert set(reason) == {""}
    image, _ = read(encoded(digits[0], mode="RGB"), encoded(digits[0], mode="P"))
    np.testing.assert_array_equal(image, [digits[0]] * 2)


def test_pixels_come_on_the_scale_of_the_data(digits):
    image, _ = read_images(tf.constant([encoded(digits[0])]), Spec(pixel_max=1))
    np.testing.assert_allclose(image.numpy()[0, ..., 0], digits[0] / 255, rtol=1e-6)


def test_enlarged_inverted_and_coloured_pictures_come_back_as_the_digit(read, digits):
    for digit in digits[::4]:
        big = enlarged(digit, 5)
        coloured = np.stack([200 - big // 2, 190 - big // 3, 60 + big // 2], -1).astype(np.uint8)
        pictures, reason = read(encoded(big), encoded(255 - big), encoded(coloured, "JPEG", quality=90))
        assert reason == [""] * 3
        for picture in pictures:
            assert np.corrcoef(picture.ravel(), digit.ravel())[0, 1] > 0.8
            assert picture.max() == 255


def test_any_picture_ends_in_a_box_of_20_centred_by_mass(read):
    page = np.full((90, 160), 240, np.uint8)
    page[20:50, 100:110] = 10
    page[44:50, 100:130] = 10
    image = read(encoded(page))[0][0]
    rows, columns = np.flatnonzero(image.max(1) > 127), np.flatnonzero(image.max(0) > 127)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    places = np.arange(28)
    assert abs((image.sum(1) @ places) / image.sum() - 14) <= 0.5
    assert abs((image.sum(0) @ places) / image.sum() - 14) <= 0.5


def test_dirt_and_the_edge_of_the_paper_are_no_part_of_the_sign(read, digits):
    page = np.full((200, 200), 230, np.uint8)
    page[40:152, 40:152] -= (enlarged(digits[4], 4) * 0.8).astype(np.uint8)
    clean = read(encoded(page))[0][0]
    page[:, :12] = 30
    page[180:183, 170:173] = 40
    np.testing.assert_allclose(read(encoded(page))[0][0], clean, atol=40)


def test_ground_is_found_beneath_the_ink_in_uneven_light():
    y, x = np.mgrid[0:60, 0:80] / 60
    light = (200 - 60 * x + 20 * y - 15 * x * y).astype(np.float32)
    paper = np.stack([light, 0.9 * light, 0.8 * light], -1)
    inked = paper.copy()
    inked[20:40, 30:36] = 20
    np.testing.assert_allclose(ground(tf.constant(inked)).numpy(), paper, atol=2)


def test_transparent_drawings_are_put_on_a_ground_that_shows_them(read, digits):
    alpha = enlarged(digits[6], 4)
    shown = []
    for colour in (0, 255):
        shown.append(read(encoded(np.dstack([np.full_like(alpha, colour)] * 3 + [alpha])))[0][0])
        assert np.corrcoef(shown[-1].ravel(), digits[6].ravel())[0, 1] > 0.8
    np.testing.assert_allclose(*shown, atol=30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_gives_the_same_picture(read, digits, mode):
    big = enlarged((digits[3] > 100).astype(np.uint8) * 255, 3)
    given = encoded(big.astype(np.uint16) * 257) if mode == "I;16" else encoded(big, mode=mode)
    np.testing.assert_allclose(read(given)[0][0], read(encoded(big))[0][0], atol=1)


def test_photographs_are_turned_upright(read, digits):
    from PIL import Image

    big = enlarged(digits[8], 4)
    turned = {1: big, 3: np.rot90(big, 2), 6: np.rot90(big), 8: np.rot90(big, -1), 2: big[:, ::-1], 5: big.T}
    plain = read(encoded(big, "JPEG", quality=95))[0][0]
    for way, picture in turned.items():
        exif = Image.Exif()
        exif[0x0112] = way
        file = encoded(np.ascontiguousarray(picture), "JPEG", quality=95, exif=exif)
        assert orientation(tf.constant(file)) == way
        np.testing.assert_allclose(read(file)[0][0], plain, atol=25)
    assert orientation(tf.constant(b"\xff\xd8\xff")) == 1


def bad_files(digit: np.ndarray) -> dict[str, bytes]:
    """By a part of the sentence that refuses them."""
    png, jpeg = encoded(digit), encoded(enlarged(digit, 3), "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    inks = np.dstack([enlarged(digit, 3)] * 4)
    return {
        "a text": b"must be a PNG",
        "must be a PNG or JPEG file. Found: another": encoded(digit, "GIF"),
        "must be complete. Found: a file that ends": png[:-20],
        "must be complete": jpeg[: len(jpeg) // 2],
        "must begin with a PNG header": png[:8],
        "1 to 4096 pixels along each side. Found: 20000 × 20000": header_only(20000, 20000),
        "along each side. Found: 0 × 5": header_only(0, 5),
        "along each side. Found: 4294967295 × 1": header_only(2**32 - 1, 1),
        "Found: a picture that cannot be decoded": bytes(flipped),
        "cannot be decoded": header_only(30, 30),
        "in the four inks": encoded(inks, "JPEG", mode="CMYK"),
        "nothing that stands out": encoded(np.full((50, 60), 200, np.uint8)),
        "must show a sign": encoded(np.zeros((28, 28), np.uint8)),
    }


def test_each_bad_file_is_refused_with_its_reason_and_the_others_are_read(read, digits):
    bad = bad_files(digits[0])
    files = list(bad.values())
    image, reason = read(*files, encoded(digits[1]), b"")
    for part, said in zip(bad, reason, strict=False):
        assert part in said or (part == "a text" and "must be a PNG or JPEG file" in said), (part, said)
    assert not image[: len(files)].any()
    np.testing.assert_array_equal(image[-2], digits[1])
    assert reason[-2:] == ["", ""] and not image[-1].any()


def test_a_batch_of_bad_files_alone_and_an_empty_batch(read):
    assert read(b"x", b"y")[1] == ["must be a PNG or JPEG file. Found: another beginning"] * 2
    assert read()[1] == []


def test_any_flipped_byte_of_a_png_is_found(read, digits):
    png = encoded(digits[2])
    files = []
    for place in range(8, len(png), 9):
        broken = bytearray(png)
        broken[place] ^= 0x10
        files.append(bytes(broken))
    image, reason = read(*files)
    for picture, said in zip(image, reason, strict=True):
        assert said or np.array_equal(picture, digits[2])


def test_other_shapes_are_resized_and_keep_their_colours():
    picture = np.zeros((16, 20, 3), np.uint8)
    picture[:8] = (250, 10, 30)
    image, reason = read_images(tf.constant([encoded(picture), encoded(picture[..., 0])]), COLOUR)
    assert image.shape == (2, 8, 10, 3) and reason.numpy().tolist() == [b"", b""]
    np.testing.assert_allclose(image[0, 1, 5], (250, 10, 30), atol=1)
    np.testing.assert_allclose(image[0, -2], 0, atol=1)
    assert (image_front_end(COLOUR), image_front_end(Spec())) == (PLAIN_FRONT_END, IMAGE_FRONT_END)
