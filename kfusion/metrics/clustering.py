"""How well an embedding separates the classes: clusters made without the labels, and probes trained with them.

`embedding` is float (n, num_features), `label` int (n,) in [0, num_classes). Distances are Euclidean in the embedding
itself, never in a projection of it; `pca`, `tsne` and `umap` make points in the plane, float32 (n, 2), for drawing.
Whatever comes back as a dict can be written as JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from kfusion.metrics.classification import require
from kfusion.validation import UserError

PERPLEXITY = 30.0
MIN_ROWS = 5
NUM_STARTS = 10
"""Starts of each KMeans, the best of which counts."""
NUM_NEIGHBOURS = 5
NUM_RESAMPLES = 1000
SCORES = ("ari", "nmi", "purity", "silhouette")


def pca(embedding: NDArray, seed: int) -> tuple[NDArray[np.float32], list[float]]:
    """The two directions of the largest variance.

    Returns:
        points (n, 2), and the share of the variance that each direction holds, in [0, 1].
    """
    _require_rows(embedding)
    fitted = PCA(2, random_state=seed)
    points = fitted.fit_transform(embedding.astype(np.float64))
    # Embeddings that are all the same have no variance to share.
    return points.astype(np.float32), np.nan_to_num(fitted.explained_variance_ratio_).tolist()


def tsne(embedding: NDArray, seed: int) -> NDArray[np.float32]:
    """t-SNE with scikit-learn's defaults: neighbours stay neighbours; distances between groups mean little.

    One thread: on cores that other programs use too, OpenMP's threads wait for each other in a loop and take a hundred
    times as long. Several embeddings may be drawn at once, each in a thread of the caller's.

    Reference:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    """
    _require_rows(embedding)
    perplexity = min(PERPLEXITY, (len(embedding) - 1) / 3)
    with threadpool_limits(1, "openmp"):
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(embedding)


def umap(embedding: NDArray, seed: int) -> NDArray[np.float32]:
    """UMAP with its own defaults.

    Raises:
        UserError: the extra is not installed.

    Reference:
        McInnes, Healy, Melville, "UMAP: Uniform Manifold Approximation and Projection", 2018.
    """
    require_umap()
    from umap import UMAP

    _require_rows(embedding)
    neighbours = min(15, len(embedding) - 1)
    points = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(embedding)
    return np.asarray(points, np.float32)


def require_umap() -> None:
    """Raises the UserError that says how UMAP is installed, unless it is."""
    from importlib.util import find_spec

    if find_spec("umap") is None:
        raise UserError(
            "UMAP needs the extra: pip install 'kfusion[umap]' (from a checkout: pip install '.[umap]'). "
            "Found: no package umap-learn"
        )


def _require_rows(embedding: NDArray) -> None:
    require(
        embedding.ndim == 2 and len(embedding) >= MIN_ROWS, "embedding", f"{MIN_ROWS} rows or more", embedding.shape
    )


def purity(label: ArrayLike, cluster: ArrayLike) -> float:
    """Share of the rows that are of their cluster's most frequent class, in (0, 1].

    purity = (1/n) Σ_c max_k n_ck. Reference: Manning, Raghavan, Schütze, "Introduction to Information Retrieval", 2008,
    section 16.3.
    """
    counts = contingency_matrix(label, cluster)
    return float(counts.max(axis=0).sum() / counts.sum())


def cluster_scores(embedding: NDArray, label: NDArray, cluster: NDArray) -> dict[str, float]:
    """How clusters agree with the classes, and how far they lie apart.

    Returns:
        `{"ari", "nmi", "purity", "silhouette"}`: the adjusted Rand index (0: chance, 1: the classes), the normalised
        mutual information (arithmetic mean), the purity, and the mean silhouette of the clusters, in [−1, 1].

    Reference:
        Hubert and Arabie 1985; Strehl and Ghosh 2002; Rousseeuw 1987.
    """
    return {
        "ari": float(adjusted_rand_score(label, cluster)),
        "nmi": float(normalized_mutual_info_score(label, cluster)),
        "purity": purity(label, cluster),
        "silhouette": silhouette(embedding, cluster),
    }


def silhouette(embedding: NDArray, group: NDArray) -> float:
    """The mean silhouette of some groups; 0 where there is but one group, or each row is its own."""
    num_groups = len(np.unique(group))
    return float(silhouette_score(embedding, group)) if 1 < num_groups < len(group) else 0.0


def clusters(embedding: NDArray, num_clusters: int, seed: int) -> NDArray[np.int64]:
    """KMeans' clusters, int64 (n,).

    Raises:
        ValueError: there are fewer rows than clusters.
    """
    require(len(embedding) >= num_clusters, "embedding", f"{num_clusters} rows or more", len(embedding))
    with threadpool_limits(1, "openmp"):
        return KMeans(num_clusters, n_init=NUM_STARTS, random_state=seed).fit_predict(embedding).astype(np.int64)


def matched(cluster: NDArray, label: NDArray, num_classes: int) -> NDArray[np.int64]:
    """The clusters, numbered by the classes that they fit best, one class each, so that colours can be compared."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (cluster, label), 1)
    named = np.empty(num_classes, np.int64)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    named[rows] = columns
    return named[cluster]


def probes(
    fit: NDArray, fit_label: NDArray, fit_content: NDArray, test: NDArray, test_label: NDArray
) -> dict[str, Any]:
    """Accuracy on the test rows of two simple classifiers of the embedding, fitted on other rows.

    A linear probe (logistic regression on standardised features) tells what a layer behind the embedding could read
    off it; k nearest neighbours, whether neighbours are of one class. Rows of the same content, such as a clip that is
    in many pairs, count once in the fit: they would be all of each other's neighbours.

    Args:
        fit: rows of the training part, (m, num_features); the scaling is theirs too.
        fit_label: int (m,).
        fit_content: int (m,), which of these are embeddings of the same.
        test: rows of the test part, (n, num_features), met by nothing before they are scored.
        test_label: int (n,).

    Returns:
        `{"linear", "knn", "num_fit"}`.
    """
    _, first = np.unique(fit_content, return_index=True)
    fit, fit_label = fit[np.sort(first)], fit_label[np.sort(first)]
    neighbours = min(NUM_NEIGHBOURS, len(fit))
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    nearest = KNeighborsClassifier(neighbours, algorithm="brute")
    scores = {}
    with threadpool_limits(1, "openmp"):
        for name, model in (("linear", linear), ("knn", nearest)):
            scores[name] = float(model.fit(fit, fit_label).score(test, test_label))
    return {**scores, "num_fit": len(fit)}


def ari_of(counts: NDArray) -> float:
    """The adjusted Rand index from how many rows each class has in each cluster.

    ARI = (S − E) / ((A + B) / 2 − E), with S the pairs of rows that are together in both, A in the classes, B in the
    clusters, and E = A B / (all pairs) what chance would give.

    Args:
        counts: (num_classes, num_clusters), of one or more rows.
    """

    def together(sizes: NDArray) -> float:
        return float(np.sum(sizes * (sizes - 1.0)) / 2)

    both, classes, clusters = together(counts), together(counts.sum(axis=1)), together(counts.sum(axis=0))
    expected = classes * clusters / max(together(counts.sum()), 1)
    highest = (classes + clusters) / 2
    return 1.0 if highest == expected else (both - expected) / (highest - expected)


def ari_difference(label: NDArray, first: NDArray, second: NDArray, group: NDArray, seed: int) -> dict[str, Any]:
    """How much better one way to cluster some rows agrees with their classes than another, and how sure that is.

    Args:
        label: int (n,).
        first: int (num_seeds, n), clusters of the rows, one clustering a seed.
        second: clusters of the same rows, likewise.
        group: int (n,), rows that stand or fall together, such as the pairs with the same sound.
        seed: decides the resamples.

    Returns:
        `{"difference", "interval"}`: the first's adjusted Rand index, mean over its seeds, minus the second's; and its
        95 % interval over `NUM_RESAMPLES` bootstrap resamples of the groups (percentiles, paired).
    """
    _, member = np.unique(group, return_inverse=True)
    num_groups = int(member.max()) + 1

    def difference(weight: NDArray) -> float:
        one, other = (np.mean([ari_of(_counts(label, each, weight)) for each in ways]) for ways in (first, second))
        return float(one - other)

    drawn = np.random.default_rng(seed).multinomial(num_groups, np.full(num_groups, 1 / num_groups), NUM_RESAMPLES)
    low, high = np.quantile([difference(times[member]) for times in drawn], [0.025, 0.975])
    return {"difference": difference(np.ones(len(label))), "interval": [float(low), float(high)]}


def _counts(label: NDArray, cluster: NDArray, weight: NDArray) -> NDArray:
    """How often each class is in each cluster, each row counted as often as its weight says."""
    width, height = int(cluster.max()) + 1, int(label.max()) + 1
    return np.bincount(width * label + cluster, weight, width * height).reshape(height, width)
