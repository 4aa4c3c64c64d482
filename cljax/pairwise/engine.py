"""Reductions over all pairs of queries and keys, without holding their score matrix."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from cljax.core import check
from cljax.pairwise import blockwise, dense
from cljax.pairwise.arguments import checked, gathered
from cljax.pairwise.similarity import centre
from cljax.pairwise.terms import LogSumExp, Max, TermFn

_DENSE_UP_TO, _DENSE_ON_CPU = 2**16, 2**20  # pairs: below, one block's bookkeeping costs more than it saves
_DENSE_FROM = 384  # the width from which the second holds also of terms in both directions, whose exponentials a block makes once
_KEPT_UP_TO = 2**24  # pairs whose scores (64 MiB) are held from the forward to the backward pass, which saves making them again
_KEPT_FROM = 640  # on a processor, the width from which that is quicker: narrower products are made again sooner than written and read


def index(batch: int, axis_name: str | None = None) -> Int[Array, " batch"]:
    """The global index of this device's rows: what a term compares to tell self from others.

    Args:
      batch: the number of rows on this device.
      axis_name: the mapped axis over which the rows are split, or None.

    Returns:
      int32 `[batch]`: `axis_index * batch + (0, 1, ...)`.

    Raises:
      TypeError: `batch` is not an integer.
      ValueError: `batch` is negative, or `axis_name` is not mapped.
    """
    check.integer("batch", batch, at_least=0)
    check.axis("axis_name", axis_name)
    local = jnp.arange(batch, dtype=jnp.int32)
    return local if axis_name is None else local + lax.axis_index(axis_name).astype(jnp.int32) * batch


def reduce(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"] | None,
    terms: TermFn,
    *,
    rows: PyTree = None,
    columns: PyTree = None,
    params: PyTree = None,
    similarity: Literal["dot", "cosine", "sqeuclidean"] = "dot",
    block_size: int | None = None,
    implementation: Literal["auto", "dense", "blockwise"] = "auto",
    axis_name: str | None = None,
    collective: Literal["gather", "ring"] = "gather",
) -> Any:
    r"""Log-sum-exps, sums and maxima along the rows and columns of a function of all similarities, without holding them.

    For every pair of a query i and a key j, `terms` is given the score $s_{ij}$ and what is known of row i and column j, and names what is to be
    reduced:

    >>> import jax, jax.numpy as jnp
    >>> from cljax import pairwise
    >>> def terms(scores, row, column, temperature):
    ...     logits = scores / temperature
    ...     own = row == column
    ...     return {"positive": pairwise.Sum(logits, where=own), "all": pairwise.LogSumExp(logits), "hardest": pairwise.Max(scores, where=~own)}
    >>> a, b = jax.random.normal(jax.random.key(0), (2, 8, 16))
    >>> found = pairwise.reduce(a, b, terms, rows=pairwise.index(8), columns=pairwise.index(8), params=0.1, similarity="cosine")
    >>> loss = found["all"] - found["positive"]           # InfoNCE, one value a query
    >>> loss.shape, found["hardest"][1].dtype
    ((8,), dtype('int32'))

    Exact, and differentiable by reverse mode (also twice) in `queries`, `keys`, the float leaves of `rows`, `columns` and `params`, and all that
    `terms` closes over; forward mode with `implementation="dense"`. Scores and sums are float32 (float64 for float64 inputs) for inputs of any float
    dtype.

    Args:
      queries: floats `[B, D]`.
      keys: floats `[N, D]`, or None where the queries are their own keys; `columns` is then `rows`.
      terms: a `TermFn`, elementwise maths on a block of scores `[b, n]`. Its values must be finite where they are masked too: `where` removes a
        value, not the NaN of a derivative.
      rows: a tree of arrays with leading axis B; `terms` gets the leaves as `[b, 1, ...]`.
      columns: a tree of arrays with leading axis N; `terms` gets the leaves as `[1, n, ...]`.
      params: a tree of arrays that `terms` gets whole. Learned values are better passed here than closed over: under `jax.shard_map` the derivative
        of a closed-over replicated value is summed over the mesh once a block instead of once.
      similarity: `"dot"`, `"cosine"` (a zero vector has cosine 0 and no gradient) or `"sqeuclidean"` (minus the squared distance).
      block_size: rows and columns of a block, or None to choose.
      implementation: `"dense"` holds the scores, `"blockwise"` visits them in blocks and computes them again for the gradient, `"auto"` chooses by
        their number, and takes blocks where their size is given.
      axis_name: a mapped axis (`jax.shard_map`, `jax.pmap`, `jax.vmap(axis_name=)`) over which queries and keys are split evenly. Each device passes
        its own queries, rows, keys and columns; row results are those of its queries over all keys, column results those of its keys over all
        queries.
      collective: how devices meet: `"gather"` holds the keys of all of them on each; `"ring"` has the keys travel from device to device while each
        works on those that it holds, never more than two devices' shares.

    Returns:
      The tree that `terms` returns, each reduction replaced by its result: `[B]` for `axis=1`, `[N]` for `axis=0`, a pair of values and indices for
      `Max`.

    Raises:
      TypeError: an argument of the wrong kind or dtype, or `terms` returns something else than reductions.
      ValueError: ranks or sizes that disagree, an unknown name, a block size below 1, an axis that is not mapped, inputs sharded over explicit mesh
        axes.
    """
    options = dict(similarity=similarity, block_size=block_size, implementation=implementation, axis_name=axis_name, collective=collective)
    queries, keys, rows, columns = checked(queries, keys, rows, columns, **options)
    if not callable(terms):
        raise TypeError(f"terms must be a function of (scores, row, column, params), got {type(terms).__name__}")
    params = jax.tree.map(jnp.asarray, params)
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    ring = axis_name if collective == "ring" and devices > 1 else None
    queries, keys, rows, columns, params = gathered(queries, keys, rows, columns, params, axis_name, collective)
    point = centre(similarity, queries if keys is None else keys, ring)
    lengths = len(queries), len(queries if keys is None else keys)
    pairs = lengths[0] * lengths[1]
    arguments = queries, keys, terms, rows, columns, params, similarity, point
    on_cpu, auto = jax.default_backend() == "cpu", implementation == "auto"
    few = auto and block_size is None and pairs <= (_DENSE_ON_CPU if on_cpu else _DENSE_UP_TO)
    if few and pairs > _DENSE_UP_TO and queries.shape[1] < _DENSE_FROM:
        few = not dense.both_ways(*arguments)
    if pairs == 0 or (ring is None and (implementation == "dense" or few)):
        found, structure, layout = dense.reduce(*arguments)
    else:
        size = max(lengths) if implementation == "dense" else block_size
        worth = not on_cpu or queries.shape[1] >= _KEPT_FROM
        keep = ring is None and auto and pairs <= _KEPT_UP_TO and worth
        found, structure, layout = blockwise.reduce(*arguments, block_size=size, keep=keep, ring=ring)
    if devices > 1 and ring is None:
        found = [
            _column_shard(kind, result, len(queries), axis_name) if axis == 0 else result for (kind, axis), result in zip(layout, found, strict=True)
        ]
    return jax.tree.unflatten(structure, found)


def _column_shard(kind, result, rows, axis_name):
    """This device's part of the columns, joined over the rows of all devices: `[N over all devices] -> [N]`."""

    def total(part):
        return lax.psum_scatter(part, axis_name, tiled=True)

    if kind is Max:
        value, row = result
        row = row + lax.axis_index(axis_name).astype(jnp.int32) * rows
        is_nan = jnp.isnan(value)  # said apart, as a maximum over devices may drop NaN
        fixed = lax.stop_gradient(jnp.where(is_nan, -jnp.inf, value))
        highest = jnp.where(lax.pmax(is_nan.astype(jnp.int32), axis_name) > 0, is_nan, fixed == lax.pmax(fixed, axis_name))
        wins = row == lax.pmin(jnp.where(highest, row, jnp.iinfo(jnp.int32).max), axis_name)
        return total(jnp.where(wins, value, 0)), total(jnp.where(wins, row, 0))
    if kind is LogSumExp:
        highest = lax.pmax(lax.stop_gradient(result), axis_name)
        highest = jnp.where(jnp.isfinite(highest), highest, 0)
        summed = total(jnp.exp(result - highest))
        own = lax.dynamic_slice_in_dim(highest, lax.axis_index(axis_name) * len(summed), len(summed))
        return dense.safe_log(summed) + own
    return total(result)
