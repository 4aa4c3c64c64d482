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
from cljax.pairwise.ring import around

_ROWS, _KEYS = 512, 20480  # of a block of scores: 40 MiB
_WIDE = 2**23  # numbers of a block of keys, at most: 32 MiB
_GROUP = 32  # neighbouring keys that share a maximum
_DENSE_UP_TO = 2**20  # pairs
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
    collective: Literal["gather", "ring"] = "gather",
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
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    ring = axis_name if collective == "ring" and devices > 1 else None
    queries, keys, rows, columns, _ = gathered(queries, keys, rows, columns, None, axis_name, collective)
    total = len(keys) * (devices if ring else 1)
    check.integer("k", k, at_least=1, at_most=total)
    if total > _MOST:
        raise ValueError(f"keys must have at most {_MOST} rows, as indices are int32, got {total}: retrieval.search merges several collections")
    most = min(k, len(keys))
    plan = _planned(*queries.shape, len(keys), most, block_size, implementation, approximate)
    fixed_queries, *shard, rows = lax.stop_gradient((queries, keys, columns, rows))
    centre = sim.centre(similarity, shard[0], ring)

    def nothing(k):
        found = jnp.full((len(queries), k), -jnp.inf, sim.accumulator(queries, keys)), jnp.full((len(queries), k), -1, jnp.int32)
        return vary(found, varying_axes(queries, keys, rows, columns))

    def visit(best, _, shard, source):
        scores, indices = _search(nothing(most), fixed_queries, shard[0], rows, shard[1], centre, similarity, where, plan)
        return _merged(best, (scores, jnp.where(indices < 0, -1, indices + source * len(keys))), k), ()

    if ring is None:
        scores, indices = _search(nothing(k), fixed_queries, shard[0], rows, shard[1], centre, similarity, where, plan)
    else:
        (scores, indices), _ = around(ring, visit, nothing(k), (), shard, lambda one, other: one)
    return _differentiable(similarity, queries, keys, scores, indices, ring), indices


def join(best, queries, keys, *, new=0, similarity="dot", rows=None, columns=None, where=None):
    """What was found before, joined by those of `keys` that beat it: `top_k` of one collection after the other, without derivatives.

    Args:
      best: scores in falling order and indices, `[B, k]` each.
      new: how many of the first keys do not count.
      queries, keys, similarity, rows, columns, where: as in `top_k`.

    Returns:
      Scores and indices as in `best`; of equal scores those of `best` come first.
    """
    plan = _planned(*queries.shape, len(keys), best[0].shape[1], None, "auto", False)
    return _search(best, queries, keys, rows, columns, sim.centre(similarity, keys), similarity, where, plan, new)


class _Plan(NamedTuple):
    """How the scores are cut into blocks, and how the best of a block are found."""

    rows: int
    size: int  # keys of a block
    choose: Callable  # (best, scores of a block, index of its first key) -> best


def _planned(queries, width, keys, k, block_size, implementation, approximate):
    choose_all = _choose_approximately if approximate else _choose
    if implementation == "dense" or (implementation == "auto" and queries * keys <= _DENSE_UP_TO):
        return _Plan(queries, keys, choose_all)
    rows, most = _even(queries, _ROWS), min(block_size or max(1, min(_KEYS, _WIDE // max(1, width))), keys)
    groups = -(-_even(keys, most // _GROUP * _GROUP) // _GROUP) if most >= _GROUP else 0  # of a block, when all are of nearly one size
    if approximate or k > groups:
        return _Plan(rows, _even(keys, most), choose_all)
    return _Plan(rows, groups * _GROUP, _choose_by_groups)


def _even(length, at_most):
    """The size of the blocks when `length` is cut into as few as can be, of nearly one size."""
    return -(-length // max(1, -(-length // at_most)))


# The search: over blocks of queries, and for each of them over blocks of keys.


def _search(best, queries, keys, rows, columns, centre, similarity, where, plan, new=0):
    """`best`, scores and indices `[B, k]`, joined by the keys from number `new` on that beat it."""

    def over_queries(found, i):
        at, _ = blocks.span(i, plan.rows, len(queries))
        some = blocks.cut(queries, at, plan.rows)
        left = sim.load(similarity, "left", some, sim.units(similarity, some, centre), centre)
        row = blocks.row(rows, at, plan.rows)

        def score(keys, column):
            right = sim.load(similarity, "right", keys, sim.units(similarity, keys, centre), centre)
            scores = sim.finish(similarity, sim.product(left, right), None, None)
            return scores if where is None else jnp.where(where(row, column), scores, -jnp.inf)

        return blocks.put(found, at, _join(blocks.cut(best, at, plan.rows), score, keys, columns, new, plan)), None

    found, _ = lax.scan(over_queries, best, blocks.numbers(len(queries), plan.rows) if len(queries) else jnp.arange(0))
    return found


def _join(best, score, keys, columns, new, plan):
    """`best` of some queries joined by the keys that beat it."""

    def over_keys(best, j):
        at, _ = blocks.span(j, plan.size, len(keys))
        scores = score(blocks.cut(keys, at, plan.size), blocks.column(columns, at, plan.size))
        return plan.choose(best, scores, at, jnp.maximum(j * plan.size, new)), None

    return lax.scan(over_keys, best, blocks.numbers(len(keys), plan.size))[0]


# The choice within a block: of scores [b, n], the first column being of key `first`, and the first that no earlier block has of key `new`.


def _choose(best, scores, first, new):
    """From all scores."""
    return _better(best, scores, first + jnp.arange(scores.shape[1], dtype=jnp.int32)[None], new)


def _choose_approximately(best, scores, first, new):
    """From those that the hardware's own approximate choice finds."""
    k = best[0].shape[1]
    if k >= scores.shape[1]:
        return _choose(best, scores, first, new)
    clean = _clean(scores, first + jnp.arange(scores.shape[1], dtype=jnp.int32), new)
    chosen = jnp.sort(lax.approx_max_k(jnp.where(jnp.isnan(clean), jnp.inf, clean), k)[1], axis=1)
    return _better(best, jnp.take_along_axis(scores, chosen, axis=1), first + chosen, new)


def _choose_by_groups(best, scores, first, new):
    """From the groups of neighbouring keys whose maximum beats the k-th best so far.

    The best k stand in the k groups with the largest maxima, and after the first blocks few groups beat it. How many are looked at is one of five
    numbers, as shapes are fixed.
    """
    rows, k = best[0].shape
    scores = scores.reshape(rows, -1, _GROUP)
    indices = first + jnp.arange(scores[0].size, dtype=jnp.int32).reshape(-1, _GROUP)
    maxima = _maximum(_clean(scores, indices, new))

    def join(number):
        def joined(best):
            if number == 0:
                return best
            chosen = jnp.sort(lax.top_k(maxima, number)[1], axis=1)  # in the order of the keys, so that on ties the lowest index is the first
            candidates = jnp.take_along_axis(scores, chosen[..., None], axis=1)
            return _better(best, candidates.reshape(rows, -1), indices[chosen].reshape(rows, -1), new)

        return joined

    numbers = np.array([0, *sorted({-(-k // share) for share in (12, 6, 3, 1)})])
    needed = jnp.max(jnp.sum(~(maxima <= best[0][:, -1:]), axis=1))  # said so, a NaN beats whatever was found
    return lax.switch(jnp.sum(needed > numbers[:-1]), [join(number) for number in numbers.tolist()], best)


def _better(best, scores, indices, new):
    """The best of those found before and of candidates in the order of their indices; on ties the first, which has the lowest index."""
    k = best[0].shape[1]
    values, chosen = lax.top_k(jnp.concatenate([best[0], _clean(scores, indices, new)], axis=1), k)
    old = jnp.take_along_axis(best[1], jnp.minimum(chosen, k - 1), axis=1)
    added = jnp.take_along_axis(jnp.broadcast_to(indices, scores.shape), jnp.maximum(chosen - k, 0), axis=1)
    return values, jnp.where(chosen < k, old, added)


def _clean(scores, indices, new):
    """The scores without those that were seen before, with one NaN and one zero: top_k sorts by the bits, in which a NaN with a sign (inf - inf on a
    CPU) is the least of all, and -0 is below 0. Done wherever scores are read, as a second copy of them takes longer to write.
    """
    scores = jnp.where(indices >= new, scores, -jnp.inf)
    return jnp.where(jnp.isnan(scores), jnp.nan, jnp.where(scores == 0, 0, scores))


def _maximum(x):
    """The maximum along the last axis, NaN where there is one, of integers in the order of the floats: XLA's maximum of floats on CPU drops NaN."""
    highest = jnp.max(_ordered(lax.bitcast_convert_type(x, _integer(x))), axis=-1)
    return lax.bitcast_convert_type(_ordered(highest), x.dtype)


def _ordered(bits):
    """The bits of floats as integers in their order, with NaN as the largest; and back."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _integer(x):
    return jnp.int64 if x.dtype == jnp.float64 else jnp.int32


def _merged(one, other, k):
    """The best k of two lists in any order of keys: the highest score first, on ties the lowest index."""
    scores, indices = (jnp.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    ranks = ~_ordered(lax.bitcast_convert_type(scores, _integer(scores)))
    _, indices, scores = lax.sort((ranks, indices, scores), dimension=1, num_keys=2)
    return scores[:, :k], indices[:, :k]


def _differentiable(similarity, queries, keys, scores, indices, ring):
    """The scores that were found, with the derivatives of the pairs that they belong to; those of keys elsewhere are brought to them."""

    @jax.custom_vjp
    def attach(queries, keys, scores, indices):
        return scores

    def backward(saved, cotangent):
        queries, keys, indices = saved

        def visit(of_queries, of_keys, keys, source):
            at = indices - source * len(keys)
            chosen = jnp.clip(at, 0, len(keys) - 1)
            _, pull = jax.vjp(lambda queries, keys: sim.aligned(similarity, queries[:, None], keys[chosen]), queries, keys)
            parts = pull(jnp.where((at >= 0) & (at < len(keys)), cotangent, 0))
            return tuple(total + part for total, part in zip((of_queries, of_keys), parts, strict=True))

        start = jnp.zeros_like(queries), jnp.zeros_like(keys)
        found = visit(*start, keys, 0) if ring is None else around(ring, visit, *start, keys, jnp.add)
        return *found, jnp.zeros_like(cotangent), None

    attach.defvjp(lambda queries, keys, scores, indices: (scores, (queries, keys, indices)), backward)
    return attach(queries, keys, scores, indices)
