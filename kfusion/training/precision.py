"""Which arithmetic a run computes in: bfloat16 where the hardware has it, else float32."""

from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from kfusion.environment import has_accelerator
from kfusion.validation import UserError

Arithmetic = Literal["float32", "bfloat16"]
CPU_FLAGS = ("avx512_bf16", "amx_bf16")
GRAPH_OPTION = "auto_mixed_precision_onednn_bfloat16"


def hardware_has_bfloat16() -> bool:
    """Whether the accelerator, or else the processor, multiplies bfloat16 numbers natively."""
    if has_accelerator():
        devices = tf.config.list_physical_devices("GPU")
        details = (tf.config.experimental.get_device_details(device) for device in devices)
        return all(detail.get("compute_capability", (0, 0))[0] >= 8 for detail in details)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(flag in flags for flag in CPU_FLAGS)


def resolve(precision: Literal["auto", "float32", "bfloat16"]) -> Arithmetic:
    """What 'auto' means on this machine.

    Raises:
        UserError: bfloat16 is asked for and the hardware does not have it.
    """
    if precision == "bfloat16" and not hardware_has_bfloat16():
        raise UserError("'precision' must be 'float32' or 'auto' on hardware without bfloat16. Received: 'bfloat16'")
    if precision == "auto":
        return "bfloat16" if hardware_has_bfloat16() else "float32"
    return precision


def apply(arithmetic: Arithmetic) -> str:
    """Makes models built from now on compute so; the weights stay float32. Returns how it is done, for the record.

    On a processor TensorFlow's graph optimizer rewrites the operations that gain from it (oneDNN); on an accelerator
    it is Keras' `mixed_bfloat16` policy.
    """
    on_accelerator = has_accelerator()
    keras.config.set_dtype_policy("mixed_bfloat16" if arithmetic == "bfloat16" and on_accelerator else "float32")
    rewrite = arithmetic == "bfloat16" and not on_accelerator
    tf.config.optimizer.set_experimental_options({GRAPH_OPTION: rewrite})
    if arithmetic == "float32":
        return "float32"
    return "bfloat16 by oneDNN graph rewrite, float32 weights" if rewrite else "mixed_bfloat16, float32 weights"
