"""The k nearest keys of every query, without holding the scores."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from cljax.core import check, vary, varying_axes
from cljax.pairwise import blocks
from cljax.pairwise import similarity as sim
from cljax.pairwise.arguments import checked, gathered

_ROWS, _KEYS = 512, 32768  # of a block of scores: 64 MiB
_SLICE = 1024  # keys of one product, whose scores stay in the cache while their maxima are taken
_GROUP = 32  # neighbouring keys that share a maximum
_DENSE_UP_TO = 2**22  # pairs
_MOST = np.iinfo(np.int32).max  # keys


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
    if len(keys) > _MOST:
        raise ValueError(f"keys must have at most {_MOST} rows, as indices are int32, got {len(keys)}: retrieval.search merges several collections")
    plan = _planned(len(queries), len(keys), k, block_size, implementation, approximate)
    fixed = lax.stop_gradient((queries, keys, rows, columns, sim.centre(similarity, keys)))
    scores, indices = _search(*fixed, k, similarity, where, plan)
    return _differentiable(similarity, queries, keys, scores, indices), indices


class _Plan(NamedTuple):
    """How the scores are cut: a block is `rows` queries by `slices` times `width` keys."""

    rows: int
    width: int
    slices: int
    choose: Callable  # (best, scores of a block, index of each slice's first key) -> best


def _planned(queries, keys, k, block_size, implementation, approximate):
    choose_all = _choose_approximately if approximate else _choose
    if implementation == "dense" or (implementation == "auto" and queries * keys <= _DENSE_UP_TO):
        return _Plan(queries, keys, 1, choose_all)
    rows, size = _even(queries, _ROWS), min(block_size or _KEYS, keys)
    width = min(_SLICE, size // _GROUP * _GROUP)
    if approximate or k > size // _GROUP // 2:  # beyond that hardly a group is left out
        return _Plan(rows, size, 1, choose_all)
    return _Plan(rows, width, _even(-(-keys // width), size // width), _choose_by_groups)


def _even(length, at_most):
    """The size of the blocks when `length` is cut into as few as can be, of nearly one size."""
    return -(-length // max(1, -(-length // at_most)))


# The search: over blocks of queries, and for each of them over blocks of keys.


def _search(queries, keys, rows, columns, centre, k, similarity, where, plan):
    """The best scores `[B, k]` and their indices; -inf and -1 where there are no more."""
    nothing = jnp.full((len(queries), k), -jnp.inf, sim.accumulator(queries, keys)), jnp.full((len(queries), k), -1, jnp.int32)
    nothing = vary(nothing, varying_axes(queries, keys, rows, columns))

    def over_queries(found, i):
        at, _ = blocks.span(i, plan.rows, len(queries))
        some = blocks.cut(queries, at, plan.rows)
        left = sim.load(similarity, "left", some, sim.units(similarity, some, centre), centre)
        row = blocks.row(rows, at, plan.rows)

        def score(keys, column):
            right = sim.load(similarity, "right", keys, sim.units(similarity, keys, centre), centre)
            scores = sim.finish(similarity, sim.product(left, right), None, None)
            return scores if where is None else jnp.where(where(row, column), scores, -jnp.inf)

        return blocks.put(found, at, _join(blocks.cut(nothing, at, plan.rows), score, keys, columns, 0, plan)), None

    found, _ = lax.scan(over_queries, nothing, blocks.numbers(len(queries), plan.rows) if len(queries) else jnp.arange(0))
    return found


def _join(best, score, keys, columns, first, plan):
    """`best` joined by the keys that beat it; `first`, the index of the first of `keys`, is above all indices in `best`."""
    count = -(-len(keys) // plan.width)  # of slices; the last block may ask for more

    def over_slices(_, t):
        at, new = blocks.span(jnp.minimum(t, count - 1), plan.width, len(keys))
        scores = score(blocks.cut(keys, at, plan.width), blocks.column(columns, at, plan.width))
        scores = jnp.where(new & (t < count), scores, -jnp.inf)
        # One NaN and one zero: top_k sorts by the bits, in which a NaN with a sign (inf - inf on a CPU) is the least of all, and -0 is below 0.
        return None, (jnp.where(jnp.isnan(scores), jnp.nan, jnp.where(scores == 0, 0, scores)), first + at)

    def over_blocks(best, j):
        _, (scores, starts) = lax.scan(over_slices, None, j * plan.slices + jnp.arange(plan.slices, dtype=jnp.int32))
        return plan.choose(best, scores, starts), None

    return lax.scan(over_blocks, best, blocks.numbers(count, plan.slices))[0]


# The choice within a block: of scores [slices, b, width], the first of slice n being of key starts[n].


def _choose(best, scores, starts):
    """From all scores. There is one slice."""
    return _better(best, scores[0], starts + jnp.arange(scores.shape[2], dtype=jnp.int32)[None])


def _choose_approximately(best, scores, starts):
    """From those that the hardware's own approximate choice finds. There is one slice."""
    k = best[0].shape[1]
    if k >= scores.shape[2]:
        return _choose(best, scores, starts)
    _, chosen = lax.approx_max_k(jnp.where(jnp.isnan(scores[0]), jnp.inf, scores[0]), k)
    chosen = jnp.sort(chosen, axis=1)
    return _better(best, jnp.take_along_axis(scores[0], chosen, axis=1), starts + chosen)


def _choose_by_groups(best, scores, starts):
    """From the groups of neighbouring keys whose maximum beats the k-th best so far.

    The best k stand in the k groups with the largest maxima, and after the first blocks few groups beat it. How many are looked at is one of five
    numbers, as shapes are fixed.
    """
    slices, rows, width = scores.shape
    k, groups = best[0].shape[1], width // _GROUP
    scores = scores.reshape(slices, rows, groups, _GROUP)
    maxima = jnp.moveaxis(_maximum(scores), 0, 1).reshape(rows, slices * groups)

    def join(number):
        def joined(best):
            if number == 0:
                return best
            chosen = jnp.sort(lax.top_k(maxima, number)[1], axis=1)  # in the order of the keys, so that on ties the lowest index is the first
            n, group = chosen // groups, chosen % groups
            candidates = scores[n, jnp.arange(rows)[:, None], group]
            indices = (starts[n] + group * _GROUP)[..., None] + jnp.arange(_GROUP, dtype=jnp.int32)
            return _better(best, candidates.reshape(rows, -1), indices.reshape(rows, -1))

        return joined

    numbers = np.array([0, *sorted({-(-k // share) for share in (12, 6, 3, 1)})])
    needed = jnp.max(jnp.sum(~(maxima <= best[0][:, -1:]), axis=1))  # said so, a NaN beats whatever was found
    return lax.switch(jnp.sum(needed > numbers[:-1]), [join(number) for number in numbers.tolist()], best)


def _better(best, scores, indices):
    """The best of those found before and of candidates in the order of their indices; on ties the first, which has the lowest index."""
    k = best[0].shape[1]
    values, chosen = lax.top_k(jnp.concatenate([best[0], scores], axis=1), k)
    old = jnp.take_along_axis(best[1], jnp.minimum(chosen, k - 1), axis=1)
    new = jnp.take_along_axis(jnp.broadcast_to(indices, scores.shape), jnp.maximum(chosen - k, 0), axis=1)
    return values, jnp.where(chosen < k, old, new)


def _maximum(x):
    """The maximum along the last axis, NaN where there is one, of integers in the order of the floats: XLA's maximum of floats on CPU drops NaN."""
    integer = jnp.int64 if x.dtype == jnp.float64 else jnp.int32

    def ordered(bits):
        return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)

    return lax.bitcast_convert_type(ordered(jnp.max(ordered(lax.bitcast_convert_type(x, integer)), axis=-1)), x.dtype)


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
