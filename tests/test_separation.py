"""How well an embedding separates the classes: each number against scikit-learn's own or a case done by hand."""

import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn import metrics

from kfusion.metrics import clustering as projections
from kfusion.metrics import clustering as separation
from kfusion.plots.evaluation import cluster_figure
from kfusion.plots.tables import Words, verdict
from kfusion.spec import Spec
from tests.test_figures import overlaps, texts


def blobs(num_rows=90, num_classes=3, distance=8.0, seed=0):
    """Rows around corners of a cube, each class at its own."""
    rng = np.random.default_rng(seed)
    label = np.arange(num_rows) % num_classes
    return (rng.normal(size=(num_rows, 6)) + distance * np.eye(6)[label]).astype(np.float32), label


def test_purity_counts_each_clusters_most_frequent_class():
    # Manning, Raghavan and Schütze's figure 16.4: (5 + 4 + 3) / 17.
    cluster = np.repeat([0, 1, 2], [6, 6, 5])
    label = np.array([0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 2, 0, 0, 2, 2, 2])
    assert separation.purity(label, cluster) == pytest.approx(12 / 17)


def test_adjusted_rand_index_of_a_case_counted_by_hand():
    # Pairs that are together: 6 in the classes, 7 in the clusters, 4 in both, of 15; by chance 6 · 7 / 15 are.
    label, cluster = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])
    scores = separation.cluster_scores(np.arange(12.0).reshape(6, 2), label, cluster)
    assert scores["ari"] == pytest.approx((4 - 2.8) / ((6 + 7) / 2 - 2.8))


def test_mutual_information_and_silhouette_are_those_of_their_equations():
    embedding, label = blobs(distance=2.0)
    cluster = separation.clusters(embedding, 3, seed=0)
    scores = separation.cluster_scores(embedding, label, cluster)
    joint = np.array([[np.mean((label == a) & (cluster == b)) for b in range(3)] for a in range(3)])
    one, other = joint.sum(axis=1), joint.sum(axis=0)
    filled = joint > 0
    mutual = np.sum(joint[filled] * np.log((joint / np.outer(one, other))[filled]))
    entropies = [-np.sum(shares * np.log(shares)) for shares in (one, other)]
    assert scores["nmi"] == pytest.approx(mutual / np.mean(entropies))
    apart = np.linalg.norm(embedding[:, None] - embedding[None], axis=-1)
    widths = []
    for row, own in enumerate(cluster):
        near = apart[row, cluster == own].sum() / (np.sum(cluster == own) - 1)
        far = min(apart[row, cluster == each].mean() for each in range(3) if each != own)
        widths.append((far - near) / max(near, far))
    assert 0.1 < scores["silhouette"] == pytest.approx(np.mean(widths), rel=1e-4)


def test_clusters_that_lie_apart_are_the_classes_and_get_their_numbers():
    embedding, label = blobs()
    cluster = separation.clusters(embedding, 3, seed=1)
    assert separation.cluster_scores(embedding, label, cluster)["ari"] == 1
    assert np.array_equal(separation.matched(cluster, label, 3), label)
    assert np.array_equal(separation.matched((label + 1) % 3, label, 3), label)


def test_one_cluster_has_no_silhouette():
    assert separation.silhouette(np.ones((4, 2)), np.zeros(4, int)) == 0


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(ValueError, match=r"^'embedding' must be 5 rows or more\. Received: 3$"):
        separation.clusters(np.eye(3), 5, seed=0)


def test_probes_learn_from_the_fitted_rows_only():
    fit, fit_label = blobs(seed=1)
    test, label = blobs(seed=2)
    one_each = np.arange(len(fit))
    scores = separation.probes(fit, fit_label, one_each, test, label)
    assert (scores["linear"], scores["knn"]) == (1, 1)
    # Fitted on labels that are all shifted by one, both are wrong throughout: they never saw the test's labels.
    assert separation.probes(fit, (fit_label + 1) % 3, one_each, test, label)["linear"] == 0


def test_probes_count_repeated_rows_once():
    fit, fit_label = blobs(num_rows=30)
    # The same rows again, but for what arithmetic leaves in the last digits.
    again = np.concatenate([fit, fit + 1e-5, fit - 1e-5, fit + 5e-5])
    scores = separation.probes(again, np.tile(fit_label, 4), np.tile(np.arange(30), 4), fit, fit_label)
    assert scores["num_fit"] == 30
    assert scores == separation.probes(fit, fit_label, np.arange(30), fit, fit_label)


def test_the_adjusted_rand_index_of_counts_is_scikit_learns():
    rng = np.random.default_rng(0)
    label, cluster = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    cluster[:30] = label[:30] % 3
    counts = metrics.cluster.contingency_matrix(label, cluster)
    assert 0.05 < separation.ari_of(counts) == pytest.approx(metrics.adjusted_rand_score(label, cluster))
    assert separation.ari_of(np.array([[7.0]])) == 1


def test_the_difference_of_two_ways_to_cluster_has_an_interval_around_it():
    label = np.arange(200) % 4
    wrong = np.where(np.arange(200) < 100, label, (label + np.arange(200) // 4) % 4)
    first, second = np.stack([label, label]), np.stack([label, wrong])
    found = separation.ari_difference(label, first, second, np.arange(200), seed=0)
    assert found["difference"] == pytest.approx((1 - metrics.adjusted_rand_score(label, wrong)) / 2)
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high < 1
    # Forty rows to a group leave five groups to draw from: less is known.
    fewer = separation.ari_difference(label, first, second, np.arange(200) // 40, seed=0)["interval"]
    assert fewer[1] - fewer[0] > 2 * (high - low)


def test_pca_finds_the_direction_of_the_largest_variance():
    rng = np.random.default_rng(0)
    embedding = np.outer(rng.normal(size=50) * 9, [0.6, 0.8, 0]) + rng.normal(size=(50, 3)) * 0.1
    points, shares = projections.pca(embedding, seed=0)
    along = (embedding - embedding.mean(axis=0)) @ [0.6, 0.8, 0]
    assert abs(np.corrcoef(points[:, 0], along)[0, 1]) > 0.9999
    assert shares[0] > 0.99


def test_tsne_keeps_neighbours_together_and_is_the_same_again():
    embedding, label = blobs(num_rows=60)
    points = projections.tsne(embedding, seed=3)
    nearest = np.argsort(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=1)[:, 1]
    assert (label[nearest] == label).all()
    assert np.array_equal(points, projections.tsne(embedding, seed=3))


def test_without_its_extra_umap_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match=r"^UMAP needs the extra: pip install 'kfusion\[umap\]'.*Found: no package"):
        projections.umap(np.eye(6), seed=0)


@pytest.mark.slow
def test_umap_keeps_neighbours_together_and_is_the_same_again():
    pytest.importorskip("umap", reason="the extra 'umap' is not installed")
    embedding, label = blobs(num_rows=60)
    points = projections.umap(embedding, seed=3)
    nearest = np.argsort(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=1)[:, 1]
    assert (label[nearest] == label).all()
    assert np.array_equal(points, projections.umap(embedding, seed=3))


@pytest.mark.parametrize("num_classes", [3, 26])
def test_the_figures_names_do_not_overlap(num_classes):
    rng = np.random.default_rng(0)
    label = np.arange(400) % num_classes
    points = rng.normal(size=(num_classes, 2))[label] + 0.2 * rng.normal(size=(400, 2))
    names = [f"class {at}" for at in range(num_classes)]
    figure = cluster_figure(points, label, label, names, "image embedding", "t-SNE")
    FigureCanvasAgg(figure).draw()
    assert overlaps(figure) == []
    written = [text.get_text() for text in texts(figure)]
    assert {"clusters (KMeans)", "classes", "t-SNE 1", "t-SNE 2", *names} <= set(written)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([0.01, 0.2], "Images separate better than sounds, as the paper says"),
        ([-0.2, -0.01], "Sounds separate better than images, against what the paper says"),
        ([-0.1, 0.1], "Images and sounds cannot be told apart"),
    ],
)
def test_the_verdict_follows_the_interval(interval, said):
    spread = {"kmeans": {"ari": {"mean": 0.9, "std": 0.01}}}
    facts = {
        "image_against_audio": {"difference": sum(interval) / 2, "interval": interval},
        "embeddings": {"image": spread, "audio": spread},
    }
    assert verdict(facts, Words.of(Spec())).startswith(said)
