"""`python -m kfusion.embed` on a small run: the files, their rows, and what is said when something is wrong."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from kfusion.evaluation.embeddings import contents, embed, sprite
from kfusion.inference import load_network
from kfusion.model.build import embedding_layers
from kfusion.prepared_data import load_own
from kfusion.run_dir import open_run
from kfusion.spec import Spec
from tests.processes import fails, in_process

LAYERS = embedding_layers(Spec().names)
FILES = ["image.npy", "audio.npy", "fused.npy", "rows.npy", "labels.npy", "projections.npz", "embeddings.json"]


def test_the_command_prints_the_table_and_the_verdict(embedded):
    folder, said = embedded, embedded.with_suffix(".txt").read_text()
    facts = json.loads((folder / "embeddings/embeddings.json").read_text())
    assert "how well 100 test pairs separate" in said
    assert " ".join(facts["verdict"].split()) in " ".join(said.split())
    assert max(map(len, said.splitlines()[:-1])) <= 80
    assert f"{facts['embeddings']['audio']['probes']['knn']:.4f}" in said


def test_rows_labels_and_embeddings_are_those_of_the_split(embedded):
    run = open_run(embedded)
    rows, label = np.load(run.folder / "embeddings" / "rows.npy"), np.load(run.folder / "embeddings" / "labels.npy")
    split, (_, parts) = run.split(), load_own(run)
    assert np.array_equal(rows[:, 1], split["test_image"][rows[:, 0]])
    assert np.array_equal(rows[:, 2], split["test_audio"][rows[:, 0]])
    assert np.array_equal(label, parts.test.label[rows[:, 0]])
    # The kept embeddings, put through the rest of the network, give its answers.
    network = load_network(run)
    inputs = {**parts.test.read(rows[:, 0]), "present": np.ones((len(rows), 2), bool)}
    fused = np.load(run.folder / "embeddings" / "fused.npy")
    assert np.allclose(network.get_layer("probabilities")(fused), network(inputs), atol=1e-5)
    assert {name: np.load(run.folder / "embeddings" / f"{name}.npy").shape[1] for name in LAYERS} == {
        name: network.get_layer(layer).output.shape[-1] for name, layer in LAYERS.items()
    }


def test_pairs_with_the_same_sound_hold_the_same_content(trained_run):
    source, parts = load_own(open_run(trained_run))
    train, heard = parts.train, np.array([0, 0, *range(2, len(parts.train))])
    rows, positions = ({**each, "audio": each["audio"][heard]} for each in (train.rows, train.positions))
    repeated = replace(train, rows=rows, positions=positions)
    found = contents(source, repeated)
    image, audio = repeated.read(np.arange(len(train))).values()
    assert {name: len(np.unique(each)) for name, each in found.items()} == {
        "image": len(np.unique(image, axis=0)),
        "audio": len(np.unique(audio, axis=0)),
        "fused": len(np.unique(np.hstack([image.reshape(len(image), -1), audio]), axis=0)),
    }
    assert found["audio"][0] == found["audio"][1]
    assert found["fused"][0] != found["fused"][1]


@pytest.mark.slow
def test_two_runs_agree_in_figures_and_sprites_too(embedded, tmp_path):
    first = embedded / "embeddings"
    shutil.copytree(embedded, tmp_path / "run")
    second = embed(tmp_path / "run")
    for name in (*FILES, "projector/image_tensors.tsv", "projector/sprite.png", "figures/fused_tsne.svg"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.slow
def test_a_sample_is_even_over_the_classes_and_part_of_the_test_and_two_runs_agree(embedded, tmp_path, undrawn):
    shutil.copytree(embedded, tmp_path / "run")
    place = embed(tmp_path / "run", samples=30, seed=5)
    assert np.bincount(np.load(place / "labels.npy")).tolist() == [3] * 10
    rows = np.load(place / "rows.npy")
    assert np.array_equal(rows[:, 0], np.unique(rows[:, 0]))
    assert json.loads((place / "embeddings.json").read_text())["num_test_rows"] == 100
    names = (*FILES, "projector/image_tensors.tsv", "projector/sprite.png")
    first = {name: (place / name).read_bytes() for name in names}
    assert embed(tmp_path / "run", samples=30, seed=5) == place
    assert {name: (place / name).read_bytes() for name in names} == first


def test_the_projectors_files_can_be_read(embedded):
    folder = embedded / "embeddings" / "projector"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [entry.tensor_name for entry in config.embeddings] == list(LAYERS)
    head, *lines = (folder / "metadata.tsv").read_text().splitlines()
    assert head.split("\t")[0] == "class"
    assert [int(line.split("\t")[0]) for line in lines] == np.load(folder.parent / "labels.npy").tolist()
    for entry in config.embeddings:
        values = np.loadtxt(folder / entry.tensor_path, delimiter="\t")
        assert values.shape == tuple(entry.tensor_shape)
        assert np.allclose(values, np.load(folder.parent / f"{entry.tensor_name}.npy"), atol=1e-4)
        assert (folder / entry.metadata_path).is_file()
    picture = tf.io.decode_png((folder / config.embeddings[0].sprite.image_path).read_bytes()).numpy()
    assert picture.shape == (280, 280, 3)
    _, parts = load_own(open_run(embedded))
    assert np.array_equal(picture[28:56, :28, 0], parts.test.read(np.array([10]))["image"][0, ..., 0])


def test_tensorboards_own_projector_serves_them(embedded):
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client

    folder = embedded / "embeddings" / "projector"
    plugin = ProjectorPlugin(TBContext(logdir=str(folder)))
    client = Client(plugin.get_plugin_apps()["/tensor"])
    answer = client.get("/tensor?run=.&name=audio")
    assert answer.status_code == 200
    assert np.frombuffer(answer.data, np.float32).size == np.load(folder.parent / "audio.npy").size


def test_a_sprite_never_outgrows_the_projector():
    picture, size = sprite(np.ones((17, 2048, 1024, 3), np.float16))
    assert size == (819, 1638)
    assert max(picture.shape) <= 8192


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "metrics.json").unlink(), "must be a finished run"),
        (lambda folder: (folder / "data.json").write_text('{"format": 7}'), "must be a run folder of format 1"),
        (lambda folder: (folder / "best.keras").write_bytes(b"PK"), "a run's network must be loadable"),
        (lambda folder: (folder / "split.npz").write_bytes(b"PK"), "must hold the rows that training wrote"),
        (lambda folder: shutil.rmtree(folder), "must be a run folder"),
    ],
    ids=["unfinished", "version", "network", "rows", "missing"],
)
def test_a_broken_run_is_one_line(trained_run, tmp_path, spoil, said):
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    spoil(folder)
    with pytest.raises(ValueError, match=said) as error:
        embed(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "embeddings").exists()


def test_a_broken_run_ends_the_command_with_status_2(tmp_path):
    done = in_process("kfusion.embed", tmp_path)
    fails(done, f"{tmp_path}: must be a run folder made by 'python -m kfusion.train'. Found: no config.json\n")
    assert done.stdout == ""


@pytest.mark.parametrize(("samples", "seed", "name"), [(-1, 0, "samples"), (10, -1, "seed")])
def test_numbers_out_of_range_are_named(trained_run, samples, seed, name):
    with pytest.raises(ValueError, match=rf"^'{name}' must be in \[0, 2\^31\)\. Received: -1$"):
        embed(trained_run, samples, seed)


def test_too_few_samples_are_refused(trained_run):
    with pytest.raises(ValueError, match=r"embeddings need 11 test pairs or more\. Found: 10$"):
        embed(trained_run, samples=10)
