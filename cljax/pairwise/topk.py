"""The k nearest keys of every query, without holding the scores."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from cljax.core import check, vary, varying_axes
from cljax.pairwise import blocks
from cljax.pairwise import similarity as sim
from cljax.pairwise.arguments import checked, gathered

_ROWS, _KEYS = 512, 8192  # of a block of scores: 16 MiB
_DENSE_UP_TO = 2**22  # pairs


def top_k(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"],
    k: int,
    *,
    similarity: Literal["dot", "cosine", "sqeuclidean"] = "dot",
    rows: PyTree = None,
    columns: PyTree = None,
    where: Callable | None = None,
    block_size: int | None = None,
    implementation: Literal["auto", "dense", "blockwise"] = "auto",
    approximate: bool = False,
    axis_name: str | None = None,
    collective: Literal["gather"] = "gather",
) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    r"""The k keys with the largest similarity to each query, in falling order; ties go to the lowest index, NaN counts as the largest.

    >>> import jax
    >>> from cljax import pairwise
    >>> x = jax.random.normal(jax.random.key(0), (100, 8))
    >>> place = pairwise.index(100)
    >>> scores, neighbours = pairwise.top_k(x, x, 5, similarity="cosine", rows=place, columns=place, where=lambda row, column: row != column)
    >>> neighbours.shape
    (100, 5)

    The scores are differentiable (computed again from the chosen keys); the choice has no gradient. Memory: a block of scores, never `[B, N]`.

    Args:
      queries: floats `[B, D]`.
      keys: floats `[N, D]`.
      k: how many, from 1 to N.
      similarity: as in `reduce`.
      rows: a tree of arrays with leading axis B, for `where`.
      columns: a tree of arrays with leading axis N, for `where`.
      where: None (all), or a function `where(row, column) -> [b, n]` booleans that says which keys a query may have; it gets leaves `[b, 1, ...]`
        and `[1, n, ...]`.
      block_size: keys of a block, or None to choose.
      implementation: `"dense"` holds the scores, `"blockwise"` visits the keys in blocks, `"auto"` chooses by their number.
      approximate: choose within each block by the hardware's own approximate top-k (`jax.lax.approx_max_k`, recall 0.95), which is faster on TPU.
      axis_name: a mapped axis over which queries and keys are split, as in `reduce`; the indices are global.
      collective: as in `reduce`.

    Returns:
      `(scores [B, k], indices [B, k])`, float32 (float64 for float64 inputs) and int32. Where a query has fewer than k keys the scores are -inf and
      the indices -1.

    Raises:
      TypeError: an argument of the wrong kind or dtype.
      ValueError: ranks or sizes that disagree, `k` outside [1, N], an unknown name, an axis that is not mapped.
    """
    options = dict(similarity=similarity, block_size=block_size, implementation=implementation, axis_name=axis_name, collective=collective)
    queries, keys, rows, columns = checked(queries, keys, rows, columns, **options)
    if where is not None and not callable(where):
        raise TypeError(f"where must be None or a function of (row, column), got {type(where).__name__}")
    queries, keys, rows, columns, _ = gathered(queries, keys, rows, columns, None, axis_name)
    check.integer("k", k, at_least=1, at_most=len(keys))
    centre = sim.centre(similarity, keys)
    if implementation == "dense" or (implementation == "auto" and len(queries) * len(keys) <= _DENSE_UP_TO):
        sizes = len(queries), len(keys)
    else:
        sizes = min(_ROWS, len(queries)), min(block_size or _KEYS, len(keys))
    fixed = lax.stop_gradient((queries, keys, rows, columns, centre))
    scores, indices = _search(*fixed, k, similarity, where, sizes, approximate)
    return _differentiable(similarity, queries, keys, scores, indices), indices


def _search(queries, keys, rows, columns, centre, k, similarity, where, sizes, approximate):
    lengths = len(queries), len(keys)
    axes = varying_axes(queries, keys, rows, columns)

    def over_queries(found, i):
        row_at, _ = blocks.span(i, sizes[0], lengths[0])
        left = sim.left(similarity, blocks.cut(queries, row_at, sizes[0]), centre)
        row = blocks.row(rows, row_at, sizes[0])

        def over_keys(best, j):
            column_at, kept = blocks.span(j, sizes[1], lengths[1])
            scores = sim.finish(similarity, sim.product(left, sim.right(similarity, blocks.cut(keys, column_at, sizes[1]), centre)))
            if where is not None:
                kept = kept & where(row, blocks.column(columns, column_at, sizes[1]))
            scores = jnp.where(kept, scores, -jnp.inf)
            local = None
            if approximate and sizes[1] > k:
                scores, local = lax.approx_max_k(scores, k)
            scores, chosen = lax.top_k(jnp.concatenate([best[0], scores], axis=1), k)  # the best first: on ties the lower index stays
            new = jnp.maximum(chosen - k, 0)
            new = new if local is None else jnp.take_along_axis(local, new, axis=1)
            old = jnp.take_along_axis(best[1], jnp.minimum(chosen, k - 1), axis=1)
            return (scores, jnp.where(chosen < k, old, column_at + new)), None

        nothing = jnp.full((sizes[0], k), -jnp.inf, sim.accumulator(queries, keys)), jnp.full((sizes[0], k), -1, jnp.int32)
        best, _ = lax.scan(over_keys, vary(nothing, axes), blocks.numbers(lengths[1], sizes[1]))
        return blocks.put(found, row_at, best), None

    start = jnp.zeros((lengths[0], k), sim.accumulator(queries, keys)), jnp.zeros((lengths[0], k), jnp.int32)
    (scores, indices), _ = lax.scan(over_queries, vary(start, axes), blocks.numbers(lengths[0], sizes[0]))
    return scores, jnp.where(scores == -jnp.inf, -1, indices)


def _differentiable(similarity, queries, keys, scores, indices):
    """The scores that were found, with the derivatives of the pairs that they belong to."""

    @jax.custom_vjp
    def attach(queries, keys, scores, indices):
        return scores

    def backward(saved, cotangent):
        queries, keys, indices = saved
        _, pull = jax.vjp(lambda queries, keys: sim.aligned(similarity, queries[:, None], keys[jnp.maximum(indices, 0)]), queries, keys)
        return *pull(jnp.where(indices >= 0, cotangent, 0)), jnp.zeros_like(cotangent), None

    attach.defvjp(lambda queries, keys, scores, indices: (scores, (queries, keys, indices)), backward)
    return attach(queries, keys, scores, indices)
