"""How much ink there is at each place of a picture, whatever its colour, on paper of any colour in uneven light.

Ink is what differs from the ground. The ground's colour is a smooth surface over the picture, fitted so that what
lies far from it does not count; so nobody needs to know which of the two is the brighter one.

A picture of a written sign -> MNIST's convention: a bright stroke on dark ground, scaled to fit a box of 20 × 20
pixels, centred by its mass in 28 × 28.

Reference: LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition, III.A.

Which spots of ink belong to the sign: the largest, and those near it that are not small; dirt and edges go.
"""

from typing import Any

import tensorflow as tf

_CELLS = 64
"""Cells along the longer side at which ink is joined."""
_DARK = 0.5
"""The share of ink from which a cell is part of a spot."""
_SHARE = 0.08
"""A spot counts if it has this share of the largest one's ink."""
_NEAR = 0.5
"""How far from the largest spot another may lie, as a share of that one's size."""
_AT_BORDER = 0.15
"""How much the ink of a spot counts that runs out of the picture, as an edge of the paper does."""


def sign_mask(ink: Any) -> Any:
    """Where the sign is.

    Args:
        ink: float32 (height, width) in [0, 1].

    Returns:
        float32 (height, width): 1 where ink belongs to the sign and close around it, else 0.
    """
    shape = tf.shape(ink)
    stride = tf.maximum(1, -(-tf.reduce_max(shape) // _CELLS))
    grid = -(-shape // stride)
    rest = grid * stride - shape
    blocks = tf.reshape(tf.pad(ink, tf.stack([tf.zeros_like(rest), rest], axis=1)), (grid[0], stride, grid[1], stride))
    label = _labels(tf.reduce_max(blocks, axis=(1, 3)) > _DARK)
    kept = tf.gather(_kept(label, tf.reduce_sum(blocks, axis=(1, 3))), label)
    around = _spread(tf.cast(kept, tf.float32))
    return tf.repeat(tf.repeat(around, stride, axis=0), stride, axis=1)[: shape[0], : shape[1]]


def _labels(dark: Any) -> Any:
    """int32, as `dark`: 0 where it is not dark, else a number that is common to all cells that hang together.

    Each cell starts with a number of its own. In each round every number gives way to the largest that any of its cells
    has beside it, so that whole spots join at once and a few rounds do.
    """
    shape, num = tf.shape(dark), tf.size(dark) + 1
    inside = tf.cast(dark, tf.float32)
    start = tf.reshape(tf.range(1, num), shape) * tf.cast(dark, tf.int32)

    def join(label: Any, _: Any) -> tuple[tf.Tensor, tf.Tensor]:
        beside = tf.cast(_spread(tf.cast(label, tf.float32)) * inside, tf.int32)
        largest = tf.math.unsorted_segment_max(tf.reshape(beside, (-1,)), tf.reshape(label, (-1,)), num)
        new = tf.gather(tf.tensor_scatter_nd_update(largest, [[0]], [0]), label)
        return new, tf.reduce_any(tf.not_equal(new, label))

    return tf.while_loop(lambda _, changed: changed, join, (start, tf.constant(True)))[0]


def _kept(label: Any, mass: Any) -> Any:
    """bool, for each number in `label`: whether these cells belong to the sign."""
    flat, num = tf.reshape(label, (-1,)), tf.size(label) + 1
    y, x = (tf.reshape(axis, (-1,)) for axis in tf.meshgrid(*(tf.range(size) for size in _sizes(label)), indexing="ij"))
    height, width = _sizes(label)
    at_border = tf.cast((y == 0) | (x == 0) | (y == height - 1) | (x == width - 1), tf.int32)
    of_label = tf.math.unsorted_segment_sum(tf.reshape(mass, (-1,)), flat, num)
    of_label *= tf.cast(tf.range(num) > 0, tf.float32)
    outside = tf.math.unsorted_segment_max(at_border, flat, num) > 0
    main = tf.argmax(of_label * tf.where(outside, _AT_BORDER, 1.0), output_type=tf.int32)
    is_main = tf.equal(flat, main)
    near = tf.constant(True)
    for axis in (y, x):
        low = tf.reduce_min(tf.where(is_main, axis, tf.int32.max))
        high = tf.reduce_max(tf.where(is_main, axis, -1))
        reach = tf.cast(_NEAR * tf.cast(high - low + 1, tf.float32), tf.int32) + 1
        near &= (axis >= low - reach) & (axis <= high + reach)
    is_near = tf.math.unsorted_segment_max(tf.cast(near, tf.int32), flat, num) > 0
    other = is_near & ~outside & (of_label >= _SHARE * of_label[main])
    return (tf.equal(tf.range(num), main) | other) & (tf.range(num) > 0)


def _sizes(label: Any) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(label)
    return shape[0], shape[1]


def _spread(values: Any) -> Any:
    """Each cell's largest neighbour, itself included."""
    return tf.nn.max_pool2d(values[None, ..., None], 3, 1, "SAME")[0, ..., 0]


_GROUND_GRID = 48
"""Places along each side at which the ground is looked at."""
_ROUNDS = 8
_LEAST_SCALE = 3.0
"""Grey levels of 255: differences that any camera makes."""
FAINTEST = 12.0
"""Grey levels of 255 by which ink must differ from its ground."""
_BLACK = 48.0
"""Grey levels added to the light, so that a black ground does not count as no light at all."""
WIDEST = 25
"""Pixels: wider dark places are shadows."""
_TO_DEVIATION = 1.4826
"""From the median of absolute values to the standard deviation of normal noise."""
_NOISE = 4.0
"""Ink must differ from its ground by so many standard deviations of the noise (smoothed over 3 × 3 pixels)."""


def ink(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The share of ink in each pixel.

    Args:
        rgb: float32 (height, width, 3) in [0, 255].

    Returns:
        ink float32 (height, width) in [0, 1], and whether any is visible, a scalar bool.
    """
    paper = ground(rgb)
    difference = rgb - paper
    weight = tf.reduce_sum(difference**2, axis=-1, keepdims=True)
    # What is ink differs in one direction; noise differs in all, and its sum vanishes.
    axis = tf.math.l2_normalize(tf.reduce_sum(difference * weight, axis=(0, 1)))
    light = tf.reduce_mean(tf.clip_by_value(paper, 0.0, 255.0), axis=-1) + _BLACK
    # Where less light falls, ink and paper differ by less.
    amount = _without_shadows(tf.linalg.matvec(difference, axis) * tf.reduce_mean(light) / light)
    smooth = _smooth(amount)
    noise = _TO_DEVIATION * median(tf.abs(smooth))
    top = tf.reduce_max(smooth)
    dark = smooth > tf.maximum(0.4 * top, tf.minimum(_NOISE * noise, 0.6 * top))
    level = tf.reduce_sum(tf.where(dark, amount, 0.0)) / tf.maximum(tf.reduce_sum(tf.cast(dark, tf.float32)), 1.0)
    floor = tf.minimum(2 * _TO_DEVIATION * median(tf.abs(amount)), 0.4 * level)
    visible = top > tf.maximum(FAINTEST, _NOISE * noise)
    return tf.clip_by_value((amount - floor) / tf.maximum(level - floor, 1e-3), 0.0, 1.0), visible


def _smooth(amount: Any) -> Any:
    """The mean over 3 × 3 pixels."""
    return tf.squeeze(tf.nn.avg_pool2d(amount[None, ..., None], 3, 1, "SAME"), (0, 3))


def _without_shadows(amount: Any) -> Any:
    """Takes away what is wider than a stroke can be (the white top-hat of mathematical morphology)."""
    opened = _smooth(amount)[None, ..., None]
    for sign in (-1.0, 1.0):
        for window in ((WIDEST, 1), (1, WIDEST)):
            opened = sign * tf.nn.max_pool2d(sign * opened, window, 1, "SAME")
    return amount - tf.squeeze(opened, (0, 3))


def ground(rgb: Any) -> Any:
    """The paper without its ink: a surface of second degree for each colour.

    Fitted by iteratively reweighted least squares with the weights 1 / (1 + (r / s)²)² (Geman and McClure), from the
    picture's border inwards; r is a pixel's distance from the surface, s its median.

    Args:
        rgb: float32 (height, width, 3).

    Returns:
        float32 (height, width, 3).
    """
    size = tf.minimum(tf.shape(rgb)[:2], _GROUND_GRID)
    sample = tf.reshape(tf.image.resize(rgb, size, method="nearest"), (-1, 3))
    terms, border = _terms(size)
    weight = tf.where(border, 1.0, 0.05)
    surface = tf.zeros((6, 3))
    for _ in range(_ROUNDS):
        weighted = terms * weight[:, None]
        normal = tf.matmul(weighted, terms, transpose_a=True) + 1e-3 * tf.eye(6)
        surface = tf.linalg.solve(normal, tf.matmul(weighted, sample, transpose_a=True))
        distance = tf.norm(sample - tf.matmul(terms, surface), axis=-1)
        scale = tf.maximum(1.5 * median(distance), _LEAST_SCALE)
        weight = 1.0 / tf.square(1.0 + tf.square(distance / scale))
    return tf.reshape(tf.matmul(_terms(tf.shape(rgb)[:2])[0], surface), tf.shape(rgb))


def _terms(size: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """1, x, y, x², xy, y² of each pixel, x and y from -1 to 1: (pixels, 6); and whether it lies near the border."""
    places = [
        2 * (tf.range(size[axis], dtype=tf.float32) + 0.5) / tf.cast(size[axis], tf.float32) - 1 for axis in (0, 1)
    ]
    y, x = (tf.reshape(each, (-1,)) for each in tf.meshgrid(*places, indexing="ij"))
    border = tf.maximum(tf.abs(x), tf.abs(y)) > 0.85
    return tf.stack([tf.ones_like(x), x, y, x * x, x * y, y * y], axis=1), border


def median(values: Any) -> Any:
    """The upper median of all values of a tensor."""
    flat = tf.sort(tf.reshape(values, (-1,)))
    return flat[tf.size(flat) // 2]


SIDE, BOX, CENTRE = 28, 20, 14
FRAME_MEAN = 32.0
"""The mean brightness of the outermost pixels up to which an image counts as being in MNIST's convention already. Over
all 70 000 of MNIST it is at most 8.7, though in one of a hundred a stroke reaches them."""
LARGEST_CROP = 40
"""Pixels along the longer side of a picture that may be a sign cut out of its surroundings."""
FLAT, FLAT_SHARE = 0.1, 0.1
"""Levels of ink that count as ground in a crop, and the share of its pixels that have them at least."""
NARROW = 2
"""Times its shorter side that the longer one of a crop has, where it may hold a stroke and no ground."""
_EDGE = 0.2
"""The share of ink at which a stroke begins."""
_THIN, _USUAL = 2.2, 2.8
"""Pixels in the box: strokes that are thinner than the first are widened to the second, as MNIST's pens write."""


def mnist_digit(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Brings one picture to MNIST's convention.

    A grey picture of 28 × 28 pixels whose outermost pixels are dark (`FRAME_MEAN`), and whose ink does not reach from
    border to border, is in it already, and comes out as it went in.

    Args:
        rgb: float32 (height, width, 3) in [0, 255].

    Returns:
        float32 (28, 28, 1) in [0, 255], and whether anything is visible, a scalar bool.
    """
    shape = tf.shape(rgb)
    fits = tf.equal(shape[0], SIDE) & tf.equal(shape[1], SIDE)

    def other() -> tuple[tf.Tensor, tf.Tensor]:
        amount, is_crop = _crop_ink(rgb)
        return tf.cond(is_crop, lambda: (_digit(amount), tf.constant(True)), lambda: _brought(rgb))

    grey = tf.reduce_max(rgb, axis=-1) - tf.reduce_min(rgb, axis=-1)
    fits &= tf.equal(tf.reduce_max(grey), 0.0)
    return tf.cond(fits & is_conventional(rgb[..., 0]), lambda: _as_it_is(rgb), other)


def is_conventional(grey: Any) -> Any:
    """Whether pictures are in MNIST's convention, bool (…).

    Args:
        grey: float32 (…, 28, 28), in [0, 255].
    """
    inner = grey[..., 1:-1, :]
    edge = tf.concat([grey[..., 0, :], grey[..., -1, :], inner[..., 0], inner[..., -1]], axis=-1)
    return (tf.reduce_mean(edge, axis=-1) <= FRAME_MEAN) & ~_spans(grey / 255.0)


def _spans(amount: Any) -> Any:
    """Whether ink reaches two opposite borders, (…, height, width) -> (…); in none of MNIST's 70 000 images it does."""
    sides = amount[..., 0, :], amount[..., -1, :], amount[..., 0], amount[..., -1]
    top, bottom, left, right = (tf.reduce_max(side, axis=-1) for side in sides)
    return tf.maximum(tf.minimum(top, bottom), tf.minimum(left, right)) > FLAT


def _as_it_is(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    image = tf.reshape(rgb[..., :1], (SIDE, SIDE, 1))
    return image, tf.reduce_max(image) > 0


def _crop_ink(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The share of ink in each pixel of a sign that somebody has cut out, and whether the picture is such a crop.

    A crop is small, its sign reaches from border to border, and its ground is of one level, as in what was scanned and
    cleaned. Nothing around the sign shows what the ground is; but most of the corners are, and of the outline.

    Args:
        rgb: float32 (height, width, 3) in [0, 255].
    """
    shape = tf.shape(rgb)
    grey = tf.reduce_mean(rgb, axis=-1)
    low = tf.reduce_min(grey)
    level = (grey - low) / tf.maximum(tf.reduce_max(grey) - low, 2 * FAINTEST)
    ring = tf.concat([level[0], level[-1], level[1:-1, 0], level[1:-1, -1]], axis=0)
    corners = (level[0, 0] + level[0, -1] + level[-1, 0] + level[-1, -1]) / 4
    is_bright = 2 * corners + tf.reduce_mean(ring) > 1.5
    amount = tf.where(is_bright, 1.0 - level, level)
    flat = tf.reduce_mean(tf.cast(amount < FLAT, tf.float32)) >= FLAT_SHARE
    narrow = tf.reduce_max(shape[:2]) >= NARROW * tf.reduce_min(shape[:2])
    visible = tf.reduce_max(level) >= 1.0
    small = tf.reduce_max(shape) <= LARGEST_CROP
    return amount, small & visible & (flat | narrow) & _spans(amount)


def _brought(rgb: Any) -> tuple[tf.Tensor, tf.Tensor]:
    amount, visible = ink(rgb)
    return _digit(amount * sign_mask(amount)), visible


def _digit(amount: Any) -> Any:
    """Ink in a picture of any size -> float32 (28, 28, 1) in [0, 255]."""
    return _centred(_boxed(_widened(_cut_out(amount)))) * 255.0


def _cut_out(amount: Any) -> Any:
    """The rectangle that holds all ink; (1, 1) where there is none."""
    for axis in (0, 1):
        found = tf.where(tf.reduce_max(amount, axis=1 - axis) > _EDGE)[:, 0]
        found = tf.cond(tf.size(found) > 0, lambda found=found: found, lambda: tf.zeros((1,), tf.int64))
        amount = tf.gather(amount, tf.range(found[0], found[-1] + 1), axis=axis)
    return amount


def _widened(cut: Any) -> Any:
    """Widens the strokes of a thin pen, which a box of 20 pixels would leave faint.

    The mean width of a stroke is twice its area by the length of its edge.
    """
    dark = tf.cast(cut > 0.5, tf.float32)
    ringed = tf.pad(dark, ((1, 1), (1, 1)))
    beside = [ringed[:-2, 1:-1], ringed[2:, 1:-1], ringed[1:-1, :-2], ringed[1:-1, 2:]]
    edge = tf.reduce_sum(dark * (1.0 - tf.reduce_min(beside, axis=0)))
    unit = tf.cast(tf.reduce_max(tf.shape(cut)), tf.float32) / BOX
    width = 2.0 * tf.reduce_sum(dark) / tf.maximum(edge, 1.0) / unit
    steps = tf.cast(tf.where(width < _THIN, tf.round((_USUAL - width) * unit / 2.0), 0.0), tf.int32)
    cut = tf.pad(cut, tf.fill((2, 2), steps))

    def spread(step: Any, wide: Any) -> tuple[Any, Any]:
        return step + 1, tf.nn.max_pool2d(wide, 3, 1, "SAME")

    _, wide = tf.while_loop(lambda step, _: step < steps, spread, (tf.constant(0), cut[None, ..., None]))
    return wide[0, ..., 0]


def _boxed(cut: Any) -> Any:
    """Scaled so that the longer side has 20 pixels and the strongest ink is 1."""
    size = tf.cast(tf.shape(cut), tf.float32)
    wanted = tf.maximum(tf.cast(tf.round(size * BOX / tf.reduce_max(size)), tf.int32), 1)
    boxed = tf.image.resize(cut[..., None], wanted, antialias=True)[..., 0]
    return boxed / tf.maximum(tf.reduce_max(boxed), 1e-6)


def _centred(boxed: Any) -> Any:
    """float32 (28, 28, 1): the centre of mass on pixel 14, as near as whole pixels and the frame allow."""
    total = tf.maximum(tf.reduce_sum(boxed), 1e-6)
    before = []
    for axis in (0, 1):
        size = tf.shape(boxed)[axis]
        place = tf.range(tf.cast(size, tf.float32))
        middle = tf.reduce_sum(tf.reduce_sum(boxed, axis=1 - axis) * place) / total
        before.append(tf.clip_by_value(CENTRE - tf.cast(tf.round(middle), tf.int32), 0, SIDE - size))
    first = tf.stack(before)
    padded = tf.pad(boxed, tf.stack([first, SIDE - tf.shape(boxed) - first], axis=1))
    return tf.reshape(padded, (SIDE, SIDE, 1))
