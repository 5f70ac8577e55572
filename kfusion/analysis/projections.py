"""Embeddings (n, num_features) to points in the plane, float32 (n, 2)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from kfusion.analysis.checks import require
from kfusion.rules import UserError

PERPLEXITY = 30.0
MIN_ROWS = 5


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
