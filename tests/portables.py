"""Which runtimes for exported files this environment has; the tests of the others are skipped."""

import importlib.util

import pytest

from kfusion.exporting.portable import PACKAGES

MISSING = {
    extra: [name for name in names if importlib.util.find_spec(name.replace("-", "_")) is None]
    for extra, names in PACKAGES.items()
}
EXTRAS = [
    pytest.param(
        extra,
        marks=pytest.mark.skipif(bool(missing), reason=f"needs the extra {extra}: pip install {' '.join(missing)}"),
    )
    for extra, missing in MISSING.items()
]
needs_litert = pytest.mark.skipif(bool(MISSING["litert"]), reason="needs the extra litert")
