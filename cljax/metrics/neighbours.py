"""The nearest neighbours: classification by them, and how unevenly they are shared out."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from cljax import losses, pairwise
from cljax.core import check


def knn_accuracy(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    reference: Float[ArrayLike, "N D"],
    reference_labels: Integer[ArrayLike, " N"],
    *,
    k: int,
    similarity: Literal["cosine", "dot", "sqeuclidean"] = "cosine",
    where: Bool[ArrayLike, " B"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """The share of examples whose label is the most frequent one among their k nearest reference examples.

    A tie in the vote goes to the class whose neighbours have the larger sum of similarities, then to the lower label; of equally similar neighbours
    those with the lower index are taken. Nothing of size B x N is held, and it works under jit with traced labels.

    Args:
      embeddings: `[B, D]`.
      labels: `[B]` integers.
      reference: `[N, D]` embeddings whose labels are known.
      reference_labels: `[N]` integers.
      k: the number of neighbours, at most N.
      similarity: what "nearest" means, as in `pairwise.top_k`.
      where: `[B]` booleans, the examples that count.
      block_size: as in `pairwise.top_k`.

    Returns:
      A float32 scalar from 0 to 1; NaN where a similarity among those compared is NaN, 0 where no example counts.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4, with equal weights.

    >>> reference = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> print(knn_accuracy(jnp.array([[1.0, 0.2], [0.1, 1.0]]), jnp.array([5, 7]), reference, jnp.array([5, 5, 7]), k=1))
    1.0
    """
    sizes = check.arrays(
        embeddings=(embeddings, "B D"),
        labels=(labels, "B", "int"),
        reference=(reference, "N D"),
        reference_labels=(reference_labels, "N", "int"),
        where=(where, "B?", "bool"),
    )
    check.integer("k", k, at_least=1, at_most=sizes["N"])
    scores, indices = pairwise.top_k(jnp.asarray(embeddings), jnp.asarray(reference), k, similarity=similarity, block_size=block_size)
    predicted = _vote(jnp.asarray(reference_labels)[indices], scores)
    correct = jnp.where(jnp.isnan(scores).any(axis=1), jnp.nan, predicted == jnp.asarray(labels))
    return losses.mean(correct, where)


def hubness(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"] | None = None,
    *,
    k: int = 10,
    similarity: Literal["cosine", "dot", "sqeuclidean"] = "cosine",
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""Whether a few keys are among the nearest of nearly all queries: the skewness of $N_k$, how often a key is among the k nearest of a query.

    $$\frac{\operatorname{mean} (N_k - \mu)^3}{\sigma^3}$$
    About 0 where all keys are found alike, above 1 where there are hubs. Of equally similar keys those with the lower index are the neighbours, so a
    scorer that says the same of all makes hubs of the first k.

    Args:
      queries: `[B, D]` embeddings.
      keys: `[N, D]` embeddings; None for the queries themselves, of which none is its own neighbour.
      k: the number of neighbours, at most N (N - 1 without keys).
      similarity: what "nearest" means, as in `pairwise.top_k`.
      block_size: as in `pairwise.top_k`.

    Returns:
      A float32 scalar; 0 where all keys are found equally often, NaN where an embedding is NaN.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Radovanović et al., "Hubs in Space: Popular Nearest Neighbors in High-Dimensional Data", JMLR 2010, section 3.

    >>> print(f"{hubness(jnp.array([[0.0], [1.0], [1.1], [5.0]]), k=1, similarity='sqeuclidean'):.4f}")
    0.0000
    """
    sizes = check.arrays(queries=(queries, "B D"), keys=(keys, "N D?"))
    total = sizes.get("N", sizes["B"])
    check.integer("k", k, at_least=1, at_most=total - (keys is None))
    queries, others = jnp.asarray(queries), {}
    if keys is None:
        others = dict(rows=pairwise.index(total), columns=pairwise.index(total), where=lambda row, column: row != column)
    found = queries if keys is None else jnp.asarray(keys)
    scores, indices = pairwise.top_k(queries, found, k, similarity=similarity, block_size=block_size, **others)
    times = jnp.zeros(total, scores.dtype).at[indices].add(1)
    times = times - jnp.mean(times)
    variance = jnp.mean(jnp.square(times))
    skewness = jnp.mean(times**3) / jnp.where(variance == 0, 1, variance) ** 1.5
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, skewness)


def _vote(neighbours, scores):
    """The winning label `[B]` of labels and similarities `[B, k]`; it needs no table of classes."""
    same = neighbours[:, :, None] == neighbours[:, None, :]
    votes = jnp.sum(same, axis=-1)
    # Sums over the neighbours of one class are made of the same terms in the same order, so they are equal to the bit.
    weight = jnp.sum(jnp.where(same, scores[:, None, :], 0), axis=-1)
    best = votes == jnp.max(votes, axis=1, keepdims=True)
    weight = jnp.where(best, weight, -jnp.inf)
    best &= weight == jnp.max(weight, axis=1, keepdims=True)
    return jnp.min(jnp.where(best, neighbours, jnp.iinfo(neighbours.dtype).max), axis=1)
