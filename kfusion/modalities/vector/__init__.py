"""Vectors: a row of numbers, such as the columns of a table or ready-made features; some of them may be missing.

A missing number is NaN. The network puts the mean of the training part in its place, which is 0 after standardisation.
A vector that has no number at all is an absent modality.
"""

from typing import TYPE_CHECKING, Any

from kfusion.modalities.base import Modality
from kfusion.spec import ModalitySpec

if TYPE_CHECKING:
    from kfusion.config import ModelConfig


class Vector(Modality):
    """Rows of numbers."""

    kind = "vector"
    noun = "vector"
    file_noun = "vector"
    array_file = "vector.npy"
    allows_missing = True

    def encode(
        self, values: Any, name: str, spec: ModalitySpec, config: "ModelConfig", mean: Any = None, variance: Any = None
    ) -> Any:
        """Means for missing numbers, then dense layers; see `encoders.encode_dense`."""
        from kfusion.modalities.encoders import MeanForMissing, encode_dense

        filled = MeanForMissing(mean, name=f"{name}_filled")(values)
        return encode_dense(filled, name, config, mean, variance)
