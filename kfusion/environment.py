"""The machine that a run computes on: versions, hardware and memory, and the arithmetic that suits it."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from kfusion.validation import UserError

PACKAGES = ("kfusion", "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "matplotlib")


def has_accelerator() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def resident_bytes() -> int:
    """Memory that this process occupies; where the system does not tell, the most that it ever has."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def environment(arithmetic: str) -> dict[str, Any]:
    """Versions, hardware and precision, ready for JSON.

    Args:
        arithmetic: how the run computes, from `apply_precision`.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "num_processors": os.cpu_count(),
        "accelerators": [
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in tf.config.list_physical_devices("GPU")
        ],
        "precision": arithmetic,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name, as Linux knows it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


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


def resolve_precision(precision: Literal["auto", "float32", "bfloat16"]) -> Arithmetic:
    """What 'auto' means on this machine.

    Raises:
        UserError: bfloat16 is asked for and the hardware does not have it.
    """
    if precision == "bfloat16" and not hardware_has_bfloat16():
        raise UserError("'precision' must be 'float32' or 'auto' on hardware without bfloat16. Received: 'bfloat16'")
    if precision == "auto":
        return "bfloat16" if hardware_has_bfloat16() else "float32"
    return precision


def apply_precision(arithmetic: Arithmetic) -> str:
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
