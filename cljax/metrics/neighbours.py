"""Classification by the nearest neighbours."""

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
