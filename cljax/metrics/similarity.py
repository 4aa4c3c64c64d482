"""How well similarities agree with what people say."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from cljax.core import check, safe_normalize


def sts_spearman(
    a: Float[ArrayLike, "B D"], b: Float[ArrayLike, "B D"], scores: Num[ArrayLike, " B"], *, similarity: str = "cosine"
) -> Float[Array, ""]:
    r"""Spearman's correlation of the similarities of pairs with their scores: Pearson's, of the ranks, $\rho = \text{corr}(R(s(a_i, b_i)), R(y_i))$.

    The measure of the STS benchmarks. Equal values share the mean of their ranks. It traces.

    Args:
      a, b: `[B, D]`, the embeddings of the two sides of each pair.
      scores: `[B]`, such as how alike people found them; higher is more alike.
      similarity: `"cosine"`, `"dot"` or `"sqeuclidean"` (minus the squared distance).

    Returns:
      From -1 to 1; 0 where all similarities, or all scores, are the same; NaN where one is NaN.

    Raises:
      TypeError, ValueError: arrays of another shape or dtype, another similarity.

    Reference:
      Reimers et al., "Task-Oriented Intrinsic Evaluation of Semantic Textual Similarity", COLING 2016, which argues for it and against Pearson's.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.eye(3), jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    >>> round(float(sts_spearman(a, b, jnp.array([5.0, 2.0, 3.0]))), 6)
    0.5
    """
    check.arrays(a=(a, "B D"), b=(b, "B D"), scores=(scores, "B", "number"))
    check.choice("similarity", similarity, ("cosine", "dot", "sqeuclidean"))
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    if similarity == "sqeuclidean":
        similarities = -jnp.sum((a - b) ** 2, axis=1)
    else:
        similarities = jnp.sum(safe_normalize(a) * safe_normalize(b) if similarity == "cosine" else a * b, axis=1)
    x, y = _centred_ranks(similarities), _centred_ranks(jnp.asarray(scores))
    lengths = jnp.sqrt(jnp.sum(x * x)) * jnp.sqrt(jnp.sum(y * y))
    return jnp.where(lengths == 0, 0, jnp.sum(x * y) / jnp.where(lengths == 0, 1, lengths))


def _centred_ranks(values):
    """Ranks, of equal values their mean, as deviations from the mean of all, in shares of the number of values."""
    ordered = jnp.sort(values)
    below, upto = (jnp.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    ranks = (below + upto - len(values)) / (2 * len(values))
    return jnp.where(jnp.any(jnp.isnan(values)), jnp.nan, ranks)
