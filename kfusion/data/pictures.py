"""PNG and JPEG files -> pixels, in TensorFlow operations alone: one front end for the exported graph, `predict` and
training from files.

The files of a batch pass through a small tf.data pipeline inside the graph, which leaves out the rows that fail: so a
file that only the decoder finds damaged costs nobody else's answer. libpng checks the checksum of each chunk, so that a
flipped byte in a PNG is always found; a JPEG has none, and a flipped byte may show as nothing but a smear.
"""

from typing import Any

import tensorflow as tf

from kfusion.data.orientation import jpeg_exif, upright
from kfusion.data.picture_files import is_png, png_depth, png_notes, refusal
from kfusion.data.strokes import mnist_digit
from kfusion.spec import Spec

IMAGE_FRONT_END = "strokes-20-of-28-v1"
"""MNIST's convention (`strokes.py`): a bright stroke on dark ground, in a box of 20 pixels, centred by mass in 28."""
PLAIN_FRONT_END = "resized-v1"
"""Antialiased resizing, to the shape that the data have."""
_DIGIT_SHAPE = (28, 28, 1)
WORK_SIDE = 128
"""Pixels along the longer side at which signs are looked for."""
_PARALLEL = 4
_DAMAGED = "must be an undamaged PNG or JPEG file. Found: a picture that cannot be decoded"
_BLANK = "must show a sign. Found: nothing that stands out from its ground"


def image_front_end(spec: Spec) -> str:
    """How picture files become pixels for data of this shape, as a run folder notes it."""
    return IMAGE_FRONT_END if spec.image_shape == _DIGIT_SHAPE else PLAIN_FRONT_END


@tf.autograph.experimental.do_not_convert
def read_images(contents: Any, spec: Spec) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes PNG and JPEG files and brings them to the data's shape.

    Args:
        contents: string (batch,), whole files; an empty string is an absent picture.
        spec: with images of 28 × 28 × 1, pictures are brought to MNIST's convention; else they are resized.

    Returns:
        image float32 (batch, height, width, channels) in [0, spec.pixel_max], and reason string (batch,): the rule
        that a row breaks and what was found, or "". The pixels of such rows, and of absent pictures, are 0.
    """
    num = tf.shape(contents)[0]
    nothing = tf.zeros(spec.image_shape), tf.constant(_DAMAGED)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(num), contents))

    def read(place: Any, content: Any) -> tuple[Any, Any, Any]:
        return place, *_read_image(content, spec)

    # Everything here is written for the graph: to have AutoGraph look for loops would take longer than the rest.
    rows = rows.map(tf.autograph.experimental.do_not_convert(read), num_parallel_calls=_PARALLEL)
    # One more row, so that there is a batch even where all others were left out.
    rows = rows.ignore_errors().concatenate(tf.data.Dataset.from_tensors((num, *nothing)))
    place, image, reason = rows.batch(tf.cast(num, tf.int64) + 1).get_single_element()
    last = tf.size(place) - 1
    found = tf.tensor_scatter_nd_update(tf.fill((num + 1,), last), place[:, None], tf.range(last + 1))[:num]
    image = tf.ensure_shape(tf.gather(image, found), (None, *spec.image_shape))
    # Whole numbers, so that an array of bytes keeps exactly what a served file gives.
    return tf.round(image) * (spec.pixel_max / 255), tf.gather(reason, found)


def _read_image(content: Any, spec: Spec) -> tuple[tf.Tensor, tf.Tensor]:
    """One file -> pixels in [0, 255], and a reason."""
    blank = tf.zeros(spec.image_shape)

    def pixels() -> tuple[tf.Tensor, tf.Tensor]:
        rgba = decoded(content)
        if spec.image_shape != _DIGIT_SHAPE:
            return _resized(rgba, spec), tf.constant("")
        image, visible = mnist_digit(on_ground(_at_most(rgba, WORK_SIDE)))
        return image, tf.where(visible, "", _BLANK)

    def checked() -> tuple[tf.Tensor, tf.Tensor]:
        reason = refusal(content)
        return tf.cond(tf.equal(reason, ""), pixels, lambda: (blank, reason))

    return tf.cond(tf.equal(content, ""), lambda: (blank, tf.constant("")), checked)


def decoded(content: Any) -> tf.Tensor:
    """uint8 (height, width, 4), upright: red, green, blue, opacity."""
    png = is_png(content)
    translucent, exif = tf.cond(png, lambda: png_notes(content), lambda: (tf.constant(False), jpeg_exif(content)))

    def with_alpha() -> tf.Tensor:
        rgba = tf.io.decode_png(content, channels=4)
        # Where libpng finds no opacity after all, as in a damaged tRNS, TensorFlow takes 2ⁿ - 1, with n bits a sample.
        depth = png_depth(content)
        missing = (depth < 8) & tf.reduce_all(tf.equal(tf.cast(rgba[..., 3], tf.int32), tf.pow(2, depth) - 1))
        return tf.cond(missing, opaque, lambda: rgba)

    def opaque() -> tf.Tensor:
        # This operation decodes PNG as well. Asked for opacity, TensorFlow gives pixels of n bits 2ⁿ - 1 of 255.
        rgb = tf.io.decode_jpeg(content, channels=3)
        return tf.pad(rgb, ((0, 0), (0, 0), (0, 1)), constant_values=tf.constant(255, tf.uint8))

    rgba = tf.cond(translucent, with_alpha, opaque)
    return tf.cond(tf.equal(exif, ""), lambda: rgba, lambda: upright(rgba, exif))


def on_ground(rgba: Any) -> Any:
    """Puts a drawing on white, a bright one on black: what is drawn must stand out from its ground.

    Args:
        rgba: (height, width, 4) in [0, 255].

    Returns:
        float32 (height, width, 3) in [0, 255].
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:] / 255
    brightness = tf.reduce_sum(rgb * alpha) / (3 * tf.maximum(tf.reduce_sum(alpha), 1.0))
    return rgb * alpha + tf.where(brightness > 127.5, 0.0, 255.0) * (1 - alpha)


def _at_most(rgba: Any, side: int) -> Any:
    """float32 (height, width, 4): shrunk, if need be, until no side is longer."""
    size = tf.cast(tf.shape(rgba)[:2], tf.float32)
    share = tf.minimum(1.0, side / tf.reduce_max(size))
    wanted = tf.maximum(tf.cast(tf.round(size * share), tf.int32), 1)
    return tf.image.resize(rgba, wanted, antialias=True)


def _resized(rgba: Any, spec: Spec) -> tf.Tensor:
    """float32 (height, width, channels) of the spec, in [0, 255]."""
    height, width, channels = spec.image_shape
    rgb = on_ground(tf.image.resize(rgba, (height, width), antialias=True))
    if channels == 1:
        return tf.image.rgb_to_grayscale(rgb)
    return rgb
