"""Reductions with the whole score matrix in memory: plain operations, which JAX differentiates (forward mode too)."""

import jax
import jax.numpy as jnp
from jax import lax

from cljax.pairwise.closures import twins
from cljax.pairwise.similarity import scores
from cljax.pairwise.terms import Max, Sum, reductions


def reduce(queries, keys, terms, rows, columns, params, similarity, centre):
    """All that `terms` asks for, as `pairwise.reduce`: a list of results, the structure of their tree, and the kind and axis of each."""
    matrix, (found, structure) = _found(queries, keys, terms, rows, columns, params, similarity, centre)
    return [_reduce(term, matrix) for term in found], structure, [(type(term), term.axis) for term in found]


def both_ways(*arguments):
    """Whether one value is reduced to log-sum-exps along both axes; nothing is computed."""
    known = []
    jax.eval_shape(lambda: known.append(bool(twins(_found(*arguments)[1][0]))))
    return known[0]


def _found(queries, keys, terms, rows, columns, params, similarity, centre):
    keys, columns = (queries, rows) if keys is None else (keys, columns)
    matrix = scores(similarity, queries, keys, centre)
    row = jax.tree.map(lambda leaf: leaf[:, None], rows)
    column = jax.tree.map(lambda leaf: leaf[None], columns)
    return matrix, reductions(terms(matrix, row, column, params), matrix.shape)


def _reduce(term, matrix):
    value, where = spread((term.value, term.where), matrix.shape, matrix.dtype)
    if isinstance(term, Sum):
        return jnp.sum(value if where is None else jnp.where(where, value, 0), axis=term.axis)
    value = value if where is None else jnp.where(where, value, -jnp.inf)
    return maximum(value, term.axis) if isinstance(term, Max) else logsumexp(value, term.axis)


def spread(pair, shape, dtype):
    """A term's value and mask (None for all) over the whole block."""
    value, where = pair
    return jnp.broadcast_to(jnp.asarray(value, dtype), shape), None if where is None else jnp.broadcast_to(where, shape)


def logsumexp(value, axis):
    """log(sum(exp(value))), -inf where all are -inf, with zero gradient there; NaN and inf surface."""
    highest = lax.stop_gradient(jnp.max(value, axis=axis, keepdims=True, initial=-jnp.inf))
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    return safe_log(jnp.sum(jnp.exp(value - highest), axis=axis)) + jnp.squeeze(highest, axis)


def safe_log(x):
    """The logarithm, -inf with zero gradient at 0."""
    return jnp.where(x == 0, -jnp.inf, jnp.log(jnp.where(x == 0, 1, x)))


def maximum(value, axis):
    """The largest value and its first index; NaN is the largest (`argmax` sees it where XLA's maximum on CPU does not); of nothing, -inf and -1."""
    if not value.shape[axis]:
        return jnp.max(value, axis=axis, initial=-jnp.inf), jnp.full(value.shape[1 - axis], -1, jnp.int32)
    index = jnp.argmax(lax.stop_gradient(value), axis=axis).astype(jnp.int32)
    return jnp.squeeze(jnp.take_along_axis(value, jnp.expand_dims(index, axis), axis), axis), index
