"""Few-shot classification: many small tasks, each with a classifier of its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer

from cljax import losses, pairwise
from cljax.core import check


def nearest_centroid(support: Float[ArrayLike, "W S D"], queries: Float[ArrayLike, "Q D"]) -> Int[Array, " Q"]:
    """The way whose mean support embedding is nearest to each query, by Euclidean distance; the first where they tie.

    Args:
      support: `[W, S, D]`, the labelled embeddings of each way.
      queries: `[Q, D]` embeddings.

    Returns:
      int32 `[Q]`, a way from 0 to W - 1 each.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Snell et al., "Prototypical Networks for Few-shot Learning", NIPS 2017, equations 1 and 2.

    >>> nearest_centroid(jnp.array([[[0.0], [2.0]], [[5.0], [7.0]]]), jnp.array([[3.0], [4.0]])).tolist()
    [0, 1]
    """
    check.arrays(support=(support, "W S D"), queries=(queries, "Q D"))
    support = jnp.asarray(support)
    centroids = jnp.mean(support.astype(jnp.promote_types(support.dtype, jnp.float32)), axis=1)
    return pairwise.top_k(jnp.asarray(queries), centroids, 1, similarity="sqeuclidean")[1][:, 0]


def few_shot_accuracy(
    embeddings: Float[ArrayLike, "N D"],
    support: Integer[ArrayLike, "E W S"],
    queries: Integer[ArrayLike, "E Q"],
    ways: Integer[ArrayLike, " Q"],
    *,
    classify: Callable = nearest_centroid,
) -> Float[Array, " E"]:
    r"""The accuracy of each of many few-shot tasks, as `samplers.few_shot_episodes` draws them; all run in one compiled program.

    Over E tasks the mean has the 95 % interval $\pm 1.96 \, \text{std} / \sqrt{E}$. The same episodes serve all embeddings that are to be compared.

    Args:
      embeddings: `[N, D]`, of all examples.
      support: `[E, W, S]`, indices of the labelled examples of each way.
      queries: `[E, Q]`, indices of the examples to be classified.
      ways: `[Q]`, the way to which each query belongs.
      classify: `classify(support [W, S, D], queries [Q, D]) -> [Q]`, the way that each query is given; it must trace.

    Returns:
      float32 `[E]`, from 0 to 1; NaN where an embedding of the task is NaN.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype, `classify` is no function or gives another shape.

    Reference:
      Vinyals et al., "Matching Networks for One Shot Learning", NIPS 2016, section 4.1.

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0], [2.9]])
    >>> few_shot_accuracy(x, jnp.array([[[0], [2]]]), jnp.array([[1, 4, 3]]), jnp.array([0, 0, 1])).tolist()
    [0.6666666865348816]
    """
    specs = dict(embeddings=(embeddings, "N D"), support=(support, "E W S", "int"), queries=(queries, "E Q", "int"), ways=(ways, "Q", "int"))
    size = check.arrays(**specs)["Q"]
    if not callable(classify):
        raise TypeError(f"classify must be a function of (support, queries), got {type(classify).__name__}")
    embeddings, ways = jnp.asarray(embeddings), jnp.asarray(ways)

    def accuracy(episode):
        known, asked = embeddings[episode[0]], embeddings[episode[1]]
        chosen = classify(known, asked)
        check.arrays(**{"what classify returns": (chosen, f"{size}", "int")})
        finite = ~(jnp.isnan(asked).any() | jnp.isnan(known).any())
        return jnp.where(finite, losses.mean((chosen == ways).astype(jnp.float32)), jnp.nan)

    return jax.lax.map(accuracy, (jnp.asarray(support), jnp.asarray(queries)), batch_size=64)
