"""k-means, in compiled code."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int32

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.core.compat import vary, varying_axes


class KMeans(NamedTuple):
    """What `kmeans` finds.

    Attributes:
      centres: float32 `[k, D]`, the means of the clusters.
      labels: int32 `[N]`, the cluster of each point, that of the nearest centre; -1 for a point that doesn't count.
      inertia: float32 scalar, the sum of squared distances to the centres.
      sizes: int32 `[k]`, the points of each cluster; 0 only where there are fewer different points than clusters.
    """

    centres: Float[Array, "k D"]
    labels: Int32[Array, " N"]
    inertia: Float[Array, ""]
    sizes: Int32[Array, " k"]


def kmeans(
    key: KeyLike,
    points: Float[ArrayLike, "N D"],
    k: int,
    *,
    restarts: int = 1,
    iterations: int = 100,
    centres: Float[ArrayLike, "k D"] | None = None,
    where: Bool[ArrayLike, " N"] | None = None,
) -> KMeans:
    r"""Groups points around k centres, $\min_c \sum_i \min_j \lVert x_i - c_j \rVert^2$ (Lloyd's algorithm from k-means++ seeds).

    Of several restarts the one with the least sum wins. A cluster that loses all its points goes on at the point that is farthest from its centre,
    the second one at the next, and so on. It works under jit and vmap, with traced points and `where`; nothing has a gradient.

    Args:
      key: a PRNG key.
      points: `[N, D]`; computed in float32 at least. For cosine distances give unit vectors.
      k: the number of clusters, at most N.
      restarts: how often it starts anew; one after the other, so that memory doesn't grow.
      iterations: the most of a start; it ends earlier where no point changes its cluster.
      centres: `[k, D]`, from which the first start goes on, instead of random seeds: those of a similar set, found before.
      where: `[N]` booleans, the points that count.

    Returns:
      `KMeans`; NaN in centres and inertia where a point that counts is NaN.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.

    >>> points = jnp.array([[0.0], [1.0], [10.0], [12.0]])
    >>> found = kmeans(jax.random.key(0), points, 2, restarts=2)
    >>> sorted(found.centres[:, 0].tolist()), float(found.inertia), bool(found.labels[0] == found.labels[1])
    ([0.5, 11.0], 2.5, True)
    """
    check.key("key", key)
    total = check.arrays(points=(points, "N D"), where=(where, "N?", "bool"))["N"]
    check.integer("k", k, at_least=1, at_most=max(total, 1))
    check.integer("restarts", restarts, at_least=1)
    check.integer("iterations", iterations, at_least=1)
    check.arrays(points=(points, "N D"), centres=(centres, f"{k} D?"))
    points = jnp.asarray(points, jnp.promote_types(jnp.result_type(points), jnp.float32))
    counts = jnp.ones(total, bool) if where is None else jnp.asarray(where)
    return _kmeans(*lax.stop_gradient((key, points, counts, centres)), k, restarts, iterations)


@partial(jax.jit, static_argnames=("k", "restarts", "iterations"))
def _kmeans(key, points, counts, centres, k, restarts, iterations):
    points = jnp.where(counts[:, None], points, 0)
    middle = jnp.sum(points, axis=0) / jnp.maximum(jnp.sum(counts), 1)  # distances by products are exact near the origin alone
    centred = jnp.where(counts[:, None], points - middle, 0)

    def start(turn):
        seeds = _seeds(jax.random.fold_in(key, turn), centred, counts, k)
        if centres is not None:
            seeds = jnp.where(turn == 0, centres - middle, seeds)
        return _lloyd(centred, counts, seeds, iterations)

    found = lax.map(start, jnp.arange(restarts))
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(found.inertia)], found)
    return best._replace(centres=best.centres + middle)


def _seeds(key, points, counts, k):
    """k-means++: each seed is a point drawn in proportion to its squared distance to the nearest one before."""

    def draw(number, nearest):
        smallest = jnp.finfo(points.dtype).tiny  # where all points are seeds already, any is
        logits = jnp.where(counts, jnp.log(jnp.maximum(nearest, smallest)), -jnp.inf)
        return points[jax.random.categorical(jax.random.fold_in(key, number), logits)]

    def add(number, state):
        seeds, nearest = state
        seed = draw(number, nearest)
        return seeds.at[number].set(seed), jnp.minimum(nearest, jnp.sum((points - seed) ** 2, axis=1))

    first = draw(0, jnp.ones(len(points), points.dtype))
    start = jnp.zeros((k, points.shape[1]), points.dtype).at[0].set(first), jnp.sum((points - first) ** 2, axis=1)
    return lax.fori_loop(1, k, add, vary(start, varying_axes(key, points, counts)))[0]


def _lloyd(points, counts, centres, iterations):
    k = len(centres)

    def nearest(centres):
        products = jnp.matmul(points, centres.T, precision=lax.Precision.HIGHEST)
        distances = jnp.sum(points * points, axis=1)[:, None] - 2 * products + jnp.sum(centres * centres, axis=1)
        return jnp.where(counts, jnp.argmin(distances, axis=1).astype(jnp.int32), -1)

    def to_own(centres, labels):
        return jnp.where(counts, jnp.sum((points - centres[labels]) ** 2, axis=1), 0)

    def sizes(labels):
        return jax.ops.segment_sum(counts.astype(jnp.int32), labels, k)  # -1 is in no segment

    def improve(state):
        turn, centres, labels, _ = state
        found = nearest(centres)
        number = sizes(found)
        means = jax.ops.segment_sum(points, found, k) / jnp.maximum(number, 1)[:, None]
        far = lax.top_k(jnp.where(counts, to_own(centres, found), -1), k)[1]
        empty = number == 0
        centres = jnp.where(empty[:, None], points[far[jnp.cumsum(empty) - 1]], means)
        return turn + 1, centres, found, jnp.any(found != labels)

    def more(state):
        turn, _, _, changed = state
        return changed & (turn < iterations)

    start = jnp.int32(0), centres, jnp.full(len(points), -2, jnp.int32), jnp.bool_(True)
    _, centres, _, _ = lax.while_loop(more, improve, vary(start, varying_axes(points, counts, centres)))
    labels = nearest(centres)
    return KMeans(centres, labels, jnp.sum(to_own(centres, labels)), sizes(labels))
