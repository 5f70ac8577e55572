"""The four convolutions of the benchmark's network, and how much work they are."""

CONVOLUTIONS = ((28, 5, 1, 32), (28, 5, 32, 32), (14, 3, 32, 64), (14, 3, 64, 64))
"""Image side, kernel side, input channels, filters."""
PASSES = (2, 3, 3, 3)
"""Forward, the kernels' gradient, and the input's gradient; the first one's input is the image, which needs none."""


def operations_per_sample() -> int:
    """Multiplications and additions for one sample, forward and backward."""
    sizes = [2 * side**2 * kernel**2 * channels * filters for side, kernel, channels, filters in CONVOLUTIONS]
    return sum(size * count for size, count in zip(sizes, PASSES, strict=True))
