"""What changes where there is an accelerator. Needs one: `CUDA_VISIBLE_DEVICES=0 pytest -n 0 tests/test_gpu.py`.

The files of the other tests that train, resume and export run on it in the same way.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kfusion.config import AugmentConfig
from kfusion.prepared_data import Augmentation
from kfusion.random_streams import sample_keys, uniform
from kfusion.spec import Spec
from tests.processes import SMALL, environment, run_train, run_verb

pytestmark = pytest.mark.skipif(
    not tf.config.list_physical_devices("GPU"), reason="needs a GPU, and CUDA_VISIBLE_DEVICES=0"
)
TRAINING = ("--recipe", "robust", *SMALL, "--precision", "auto")


@pytest.fixture
def strict_placement():
    """An operation that the GPU does not have is an error, not the processor's."""
    before = tf.config.get_soft_device_placement()
    tf.config.set_soft_device_placement(False)
    yield
    tf.config.set_soft_device_placement(before)


@pytest.fixture(scope="module")
def gpu_run(tmp_path_factory) -> Path:
    """A small robust run, trained in bfloat16 on the GPU."""
    folder = tmp_path_factory.mktemp("gpu") / "run"
    done = run_train(*TRAINING, "--epochs", "12", "--out", str(folder), cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "TensorFlow's chatter reached the terminal"
    return folder


@pytest.mark.usefixtures("strict_placement")
def test_random_numbers_are_the_processors_bit_for_bit():
    keys = sample_keys(3, 1, np.arange(1000))
    drawn = {}
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device):
            drawn[device] = tf.function(lambda k: uniform(k, 2, 7))(tf.constant(keys))
    assert drawn["GPU:0"].device.endswith("GPU:0")
    assert 0.45 < float(np.mean(drawn["GPU:0"])) < 0.55
    np.testing.assert_array_equal(drawn["CPU:0"], drawn["GPU:0"])


@pytest.mark.usefixtures("strict_placement")
def test_all_augmentation_runs_on_the_gpu_and_gives_the_processors_batch():
    config = AugmentConfig(
        flip="horizontal", zoom=0.2, shear=0.2, image_damage=0.5, background=0.5, time_shift=2,
        time_stretch=0.1, time_warp=0.2, time_mask=8, frequency_mask=3,
    )  # fmt: skip
    augment = Augmentation(config, Spec(), {"audio": np.zeros(507)}, front_end="known")
    rng = np.random.default_rng(0)
    image, audio = rng.random((64, 28, 28, 1), np.float32), rng.standard_normal((64, 507), np.float32)
    keys, made = sample_keys(0, 3, np.arange(64)), {}
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device):
            batch = {"image": tf.constant(image), "audio": tf.constant(audio)}
            made[device] = augment(batch, tf.constant(keys))
    # A rounded coordinate moves noise by more than a rounded value; sounds here reach 8.
    for name, tolerance in (("image", 2e-3), ("audio", 1e-2)):
        assert made["GPU:0"][name].device.endswith("GPU:0")
        np.testing.assert_allclose(made["CPU:0"][name], made["GPU:0"][name], atol=tolerance)


def test_a_run_knows_its_gpu_and_learns_in_bfloat16(gpu_run):
    facts = json.loads((gpu_run / "environment.json").read_text())
    assert facts["accelerators"]
    capable = [tf.config.experimental.get_device_details(d) for d in tf.config.list_physical_devices("GPU")]
    modern = all(details.get("compute_capability", (0, 0))[0] >= 8 for details in capable)
    assert facts["precision"] == ("mixed_bfloat16, float32 weights" if modern else "float32")
    assert json.loads((gpu_run / "metrics.json").read_text())["views"]["fused"]["accuracy"] >= 0.9


def test_the_processor_answers_as_the_gpu_does(gpu_run, tmp_path):
    """No TensorFloat-32, no bfloat16 in the figures of a run: float32 on both."""
    program = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from kfusion.cli import quiet\n"
        "with quiet():\n"
        "    from kfusion.prepared_data import gather; from kfusion.inference import load_network, predict_views\n"
        "    from kfusion.run_dir import open_run\n"
        "    run = open_run(Path(sys.argv[1]))\n"
        "    np.savez(sys.argv[2], **predict_views(load_network(run), gather(run.config()).parts.test))\n"
    )
    answers = {}
    for name, visible in (("gpu", os.environ["CUDA_VISIBLE_DEVICES"]), ("cpu", "-1")):
        command = [sys.executable, "-c", program, str(gpu_run), str(tmp_path / f"{name}.npz")]
        subprocess.run(command, env=environment(CUDA_VISIBLE_DEVICES=visible), check=True)
        with np.load(tmp_path / f"{name}.npz") as stored:
            answers[name] = dict(stored)
    worst = {view: float(np.abs(answers["gpu"][view] - answers["cpu"][view]).max()) for view in answers["gpu"]}
    assert max(worst.values()) <= 2e-5, worst


@pytest.mark.xfail(reason="seen on an H200: after two epochs weights differ by up to 0.01; TensorFlow's op determinism")
def test_deterministic_training_repeats_bit_for_bit(tmp_path):
    states = []
    for name in ("one", "two"):
        flags = (*TRAINING, "--epochs", "2", "--deterministic", "--out", str(tmp_path / name))
        done = run_train(*flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / name / "checkpoint.npz") as stored:
            states.append({key: stored[key] for key in stored.files if key != "progress"})
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])


def test_export_is_proved_beside_the_process_that_holds_the_gpu(gpu_run, tmp_path):
    done = run_verb("kfusion.export", str(gpu_run), "--no-calibrate", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "saved_models" / "kfusion" / "1" / "saved_model.pb").exists()
