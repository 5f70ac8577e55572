"""PNG and JPEG files -> pixels: what is read, what is refused, and that one bad row costs no other."""

import io
import itertools
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Picture

from kfusion.modalities.image.decoding import (
    IMAGE_FRONT_END,
    PLAIN_FRONT_END,
    decoded,
    image_front_end,
    read_images,
)
from kfusion.modalities.image.files import PNG_START, png_chunk
from kfusion.modalities.image.formats import jpeg_exif, orientation, png_notes
from kfusion.modalities.image.handwriting import ground
from kfusion.spec import image_spec
from tests.media import any_png, digit_images, encoded, header_only

COLOUR = image_spec((8, 10, 3))


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Two of each class."""
    images, label = digit_images()
    return images[np.concatenate([np.flatnonzero(label == digit)[:2] for digit in range(10)])]


@pytest.fixture(scope="module")
def read():
    """`read_images` for digits, as a graph: float32 (n, 28, 28), and sentences."""
    graph = tf.function(
        lambda contents: read_images(contents, image_spec()), input_signature=[tf.TensorSpec([None], "string")]
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
    image, _ = read_images(tf.constant([encoded(digits[0])]), image_spec(pixel_max=1))
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


def cut_to_ink(digit: np.ndarray, side: int, square: bool) -> np.ndarray:
    """As USPS has it: the longer side of the ink fills the picture; `square`: beside the ink there is ground."""
    rows, columns = (np.flatnonzero(digit.max(axis)) for axis in (1, 0))
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = [max(1, round(side * extent / max(cut.shape))) for extent in cut.shape]
    scaled = np.asarray(Picture.fromarray(cut).resize((size[1], size[0]), Picture.Resampling.BILINEAR))
    if not square:
        return scaled
    before = [(side - extent) // 2 for extent in size]
    return np.pad(scaled, [(at, side - extent - at) for at, extent in zip(before, size, strict=True)])


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("side", [16, 20, 28])
def test_a_digit_cut_to_its_ink_comes_back_as_the_digit(read, digits, side, square):
    crops = [cut_to_ink(digit, side, square) for digit in digits]
    pictures, reason = read(*map(encoded, crops), *(encoded(255 - crop) for crop in crops))
    assert set(reason) == {""}
    np.testing.assert_allclose(pictures[: len(crops)], pictures[len(crops) :], atol=1)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(pictures, digits, strict=False)]
    assert np.median(alike) > 0.95 and min(alike) > 0.6


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


DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits a sample that each kind of PNG may have."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_and_pixels(colour: int, depth: int, interlaced: bool, keyed: bool) -> tuple[bytes, np.ndarray]:
    """A PNG of random samples, and the uint8 (9, 11, 4) that it shows; `keyed`: with a tRNS chunk."""
    rng = np.random.default_rng([colour, depth, interlaced, keyed])
    samples = rng.integers(0, 2**depth, (9, 11, CHANNELS[colour]))
    samples[2, 3] = samples[5:7, 4] = samples[0, 0]
    palette = rng.integers(0, 256, (2**depth if colour == 3 else 2, 3))
    shown = np.full((9, 11, 4), 255)
    before = [(b"PLTE", palette.astype(np.uint8).tobytes())] if colour == 3 else []
    bytes_of = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    if colour == 3:
        opacity = rng.integers(0, 256, 2 ** (depth - 1)) if keyed else np.empty(0, int)
        shown[..., :3] = palette[samples[..., 0]]
        shown[..., 3] = np.append(opacity, np.full(2**depth - len(opacity), 255))[samples[..., 0]]
        key = opacity.astype(np.uint8).tobytes()
    else:
        has_alpha = colour >= 4
        shown[..., :3] = bytes_of[..., :-1] if has_alpha else bytes_of
        shown[..., 3] = bytes_of[..., -1] if has_alpha else np.where((samples == samples[0, 0]).all(-1) & keyed, 0, 255)
        key = samples[0, 0].astype(">u2").tobytes()
    before += [(b"tRNS", key)] if keyed else []
    return any_png(samples, depth, colour, interlaced, tuple(before)), shown


@pytest.fixture(scope="module")
def decode():
    """`decoded` as a graph: uint8 (height, width, 4)."""
    graph = tf.function(decoded, input_signature=[tf.TensorSpec([], "string")])
    return lambda content: graph(tf.constant(content)).numpy()


def test_every_kind_of_png_shows_the_colours_and_the_opacity_that_it_holds(decode):
    from PIL import Image

    kinds = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
    for (colour, depth), interlaced, keyed in itertools.product(kinds, (False, True), (False, True)):
        if keyed and colour >= 4:
            continue
        case = f"colour {colour}, {depth} bits, interlaced {interlaced}, tRNS {keyed}"
        png, shown = png_and_pixels(colour, depth, interlaced, keyed)
        np.testing.assert_array_equal(decode(png), shown, case)
        # Pillow 13 cuts 16 bits of grey off at 255, and compares a key of 2, 4 or 16 bits with 8.
        if depth == 8 or colour == 3 or (not keyed and (colour, depth) != (0, 16)):
            by_pillow = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
            np.testing.assert_array_equal(by_pillow, shown, f"Pillow: {case}")


def test_opacity_that_libpng_leaves_out_is_none(decode):
    pixels = np.arange(8).reshape(2, 4) % 2
    plain = any_png(pixels, 1, 3, before=((b"PLTE", b"\0\0\0\xff\xff\xff"), (b"tRNS", b"\x40")))
    assert set(decode(plain)[..., 3].ravel()) == {0x40, 255}
    at = plain.index(b"tRNS") + 5
    damaged = plain[:at] + b"\0\0\0\0" + plain[at + 4 :]
    late = any_png(pixels, 1, 0, after=((b"tRNS", b"\0\0"),))
    for png in (damaged, late):
        assert set(decode(png)[..., 3].ravel()) == {255}


def test_two_colours_of_a_palette_are_read_like_the_same_digit_in_grey(read, digits):
    big = enlarged((digits[3] > 100).astype(np.uint8), 3)
    black_on_white, white_on_black = (
        any_png(big, 1, 3, before=((b"PLTE", bytes(colours)),))
        for colours in ([255] * 3 + [0] * 3, [0] * 3 + [255] * 3)
    )
    image, reason = read(black_on_white, white_on_black, encoded(big * 255))
    assert reason == [""] * 3
    np.testing.assert_array_equal(image[:2], image[[2, 2]])


def exif(way: int, order: str = ">", kind: int = 3, tag: int = 0x0112) -> bytes:
    """A TIFF header and two entries, the second of which says which way up; kinds: 1 byte, 3 short, 4 long."""
    form = {1: "B3x", 3: "H2x", 4: "I", 9: "i"}[kind]
    entries = [struct.pack(f"{order}HHIH2x", 0x0103, 3, 1, 6), struct.pack(f"{order}HHI{form}", tag, kind, 1, way)]
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, 2) + b"".join(entries) + b"\0" * 4


def turned(picture: np.ndarray) -> dict[int, np.ndarray]:
    """By what Exif calls it: the picture as a camera that was turned writes it."""
    ways = {1: picture, 3: np.rot90(picture, 2), 6: np.rot90(picture), 8: np.rot90(picture, -1)}
    return ways | {2: picture[:, ::-1], 4: picture[::-1], 5: picture.T, 7: np.rot90(picture, 2).T}


def test_photographs_are_turned_upright(read, digits):
    from PIL import Image

    big = enlarged(digits[8], 4)
    plain = read(encoded(big, "JPEG", quality=95))[0][0]
    for way, picture in turned(big).items():
        exif = Image.Exif()
        exif[0x0112] = way
        file = encoded(np.ascontiguousarray(picture), "JPEG", quality=95, exif=exif)
        assert orientation(jpeg_exif(tf.constant(file))) == way
        np.testing.assert_allclose(read(file)[0][0], plain, atol=25)
    assert orientation(jpeg_exif(tf.constant(b"\xff\xd8\xff"))) == 1


def test_a_png_is_turned_upright_wherever_its_exif_stands(decode):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    for way, pixels in turned(picture).items():
        chunk = ((b"eXIf", exif(way)),)
        for png in (
            any_png(pixels, before=chunk),
            any_png(pixels, after=chunk),
            any_png(pixels, before=((b"tEXt", b"Comment\0" + b"eXIf" * 2000),), after=chunk, interlaced=True),
            any_png(pixels, before=((b"eXIf", b"Exif\0\0" + exif(way, "<")),)),
        ):
            np.testing.assert_array_equal(decode(png)[..., 0], picture, f"orientation {way}")


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_may_be_of_any_whole_number_type(order):
    for kind in (1, 3, 4, 9):
        ways = [int(orientation(tf.constant(exif(way, order, kind)))) for way in range(10)]
        assert ways == [1, *range(1, 9), 1], kind


def test_exif_that_says_nothing_or_nonsense_leaves_a_picture_as_it_is():
    whole = exif(6, "<")
    assert orientation(tf.constant(exif(6, tag=0x0113))) == 1
    for content in (b"", b"II", whole[:20], b"XX" + whole[2:], whole[:4] + b"\xff" * 4 + whole[8:], b"\xff" * 5000):
        assert orientation(tf.constant(content)) == 1, content[:20]
    rng = np.random.default_rng(0)
    for _ in range(40):
        content = bytearray(whole)
        content[rng.integers(len(whole))] = rng.integers(256)
        assert 1 <= orientation(tf.constant(bytes(content))) <= 8


def test_a_chain_of_chunks_that_is_broken_or_endless_comes_to_an_end(digits):
    png = encoded(digits[0])
    keyed, found = png_notes(tf.constant(png[:33] + b"\xff" * 400 + b"tRNS eXIf"))
    assert not keyed and found == b""
    notes = tf.function(png_notes, input_signature=[tf.TensorSpec([], "string")])
    endless = PNG_START + png[8:33] + png_chunk(b"teST", b"") * 9000 + png_chunk(b"eXIf", exif(6))
    assert notes(tf.constant(endless))[1] == b""
    cut_off = PNG_START + png[8:33] + png_chunk(b"eXIf", exif(6))[:-9]
    assert png_notes(tf.constant(cut_off))[1] == b""


def bad_files(digit: np.ndarray) -> dict[str, bytes]:
    """By a part of the sentence that refuses them."""
    png, jpeg = encoded(digit), encoded(enlarged(digit, 3), "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        "a text": b"must be a PNG",
        "must be a PNG, JPEG, GIF, BMP or WebP file. Found: a TIFF picture": encoded(digit, "TIFF"),
        "can read. Found: Apple's own variant": png[:8] + png_chunk(b"CgBI", b"\x50\0\x20\2") + png[8:],
        "must be complete. Found: a file that ends": png[:-20],
        "must be complete": jpeg[: len(jpeg) // 2],
        "must begin with a PNG header": png[:8],
        "1 to 4096 pixels along each side. Found: 20000 × 20000": header_only(20000, 20000),
        "along each side. Found: 0 × 5": header_only(0, 5),
        "along each side. Found: 4294967295 × 1": header_only(2**32 - 1, 1),
        "Found: a picture that cannot be decoded": bytes(flipped),
        "cannot be decoded": header_only(30, 30),
        "nothing that stands out": encoded(np.full((50, 60), 200, np.uint8)),
        "must show a sign": encoded(np.zeros((28, 28), np.uint8)),
    }


def test_each_bad_file_is_refused_with_its_reason_and_the_others_are_read(read, digits):
    bad = bad_files(digits[0])
    files = list(bad.values())
    image, reason = read(*files, encoded(digits[1]), b"")
    for part, said in zip(bad, reason, strict=False):
        assert part in said or (part == "a text" and "must be a PNG, JPEG" in said), (part, said)
    assert not image[: len(files)].any()
    np.testing.assert_array_equal(image[-2], digits[1])
    assert reason[-2:] == ["", ""] and not image[-1].any()


FOREIGN = {
    "a HEIC picture": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "an AVIF picture": b"\0\0\0\x20ftypavif\0\0\0\0",
    "a video (MP4 or MOV)": b"\0\0\0\x20ftypisom",
    "a JPEG XL picture": b"\0\0\0\x0cJXL \r\n\x87\n",
    "a PDF document": b"%PDF-1.7",
    "an SVG drawing": b'<svg xmlns="http://www.w3.org/2000/svg">',
    "an SVG drawing, or another text in XML": b'<?xml version="1.0"?><svg>',
    "a web page": b"<!DOCTYPE html><html>",
    "a WAV sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "an .npy array": b"\x93NUMPY\1\0",
    "what Git LFS keeps in place of a file; git lfs pull fetches it": b"version https://git-lfs.github.com/spec/v1",
    "another beginning": b"hello",
}


def test_the_format_of_a_file_that_is_neither_png_nor_jpeg_is_named(read, digits):
    made = {"a TIFF picture": encoded(digits[0], "TIFF")}
    for found in (FOREIGN, made):
        assert read(*found.values())[1] == [
            f"must be a PNG, JPEG, GIF, BMP or WebP file. Found: {name}" for name in found
        ]


def test_bytes_after_the_end_of_a_png_do_not_matter(read, digits):
    png = encoded(digits[1])
    image, reason = read(png + b"\0" * 10, png + b"a film" * 10_000, png[:-12] + b"\0" * 5000)
    np.testing.assert_array_equal(image[:2], digits[[1, 1]])
    assert reason[:2] == ["", ""] and "must be complete" in reason[2]


def test_a_batch_of_bad_files_alone_and_an_empty_batch(read):
    assert read(b"x", b"y")[1] == ["must be a PNG, JPEG, GIF, BMP or WebP file. Found: another beginning"] * 2
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
    assert (image_front_end(COLOUR), image_front_end(image_spec())) == (PLAIN_FRONT_END, IMAGE_FRONT_END)
