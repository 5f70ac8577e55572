"""TensorFlow's numbers and names of the data types that requests can carry, and numpy's types for them."""

from typing import Any

import numpy as np

FLOAT, STRING = 1, 7
NUMPY: dict[int, Any] = {
    **{1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 10: np.bool_},
    **{STRING: np.object_, 22: np.uint32, 23: np.uint64},
}
NUMBERS = {np.dtype(kind): number for number, kind in NUMPY.items()}
NAMES = {
    **{0: "DT_INVALID", 1: "DT_FLOAT", 2: "DT_DOUBLE", 3: "DT_INT32", 4: "DT_UINT8", 5: "DT_INT16"},
    **{6: "DT_INT8", 7: "DT_STRING", 8: "DT_COMPLEX64", 9: "DT_INT64", 10: "DT_BOOL", 14: "DT_BFLOAT16", 19: "DT_HALF"},
    **{20: "DT_RESOURCE", 21: "DT_VARIANT", 22: "DT_UINT32", 23: "DT_UINT64"},
}


def type_name(number: int) -> str:
    """Such as DT_FLOAT."""
    return NAMES.get(number, f"DT_{number}")


def shape_text(shape: tuple[int, ...] | None) -> str:
    """A shape as an error names it: (batch, 28, 28, 1)."""
    if shape is None:
        return "any"
    sizes = ["batch" if size < 0 and axis == 0 else "any" if size < 0 else str(size) for axis, size in enumerate(shape)]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
