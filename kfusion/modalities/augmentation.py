"""All random changes of a batch, as one callable: the same layers in the tf.data pipeline and on an accelerator."""

from collections.abc import Callable, Mapping
from typing import Any

from kfusion.config import AugmentConfig
from kfusion.modalities import each_of
from kfusion.spec import Spec


class Augmentation:
    """(batch, keys) -> batch, every sample changed as its key says.

    Args:
        config: which changes, and how far.
        spec: the modalities.
        mean: of each value over the training part, (num_values,), for each standardised modality.
        front_end: what made the features, as a run notes it; None where nobody knows.

    Attributes:
        layers: for each modality its layers, in their order; none for a modality that stays as it is.
    """

    def __init__(
        self, config: AugmentConfig, spec: Spec, mean: Mapping[str, Any], front_end: str | None = None
    ) -> None:
        self.layers: dict[str, list[Callable[..., Any]]] = {
            name: kind.augmentations(config, name, shape, mean.get(name), front_end)
            for name, kind, shape in each_of(spec)
        }

    def __call__(self, batch: dict[str, Any], keys: Any, training: bool | None = True) -> dict[str, Any]:
        """Changes the modalities of a batch, (batch, *shape) each; keys int64 (batch,).

        `training` None: as the model that the layers are part of is called.
        """
        changed = dict(batch)
        for name, layers in self.layers.items():
            for layer in layers:
                changed[name] = layer(changed[name], keys, training=training)
        return changed
