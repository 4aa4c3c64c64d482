"""One reduction, from its first block to its result, and the derivative of the result with respect to a block.

A reduction over part of the pairs is an array for `Sum`, (maximum, sum of exponentials above it) for `LogSumExp`, (maximum, index) for `Max`.
"""

import jax.numpy as jnp
from jax import lax

from cljax.pairwise.dense import maximum
from cljax.pairwise.terms import LogSumExp, Max, Sum

_RANGE = 60.0  # float32 keeps exp(-60) times an exponential that counts beside it (exp(-17)) above its smallest number


def start(kind, size, dtype):
    """The reduction of no pairs."""
    if kind is Sum:
        return jnp.zeros(size, dtype)
    return jnp.full(size, -jnp.inf, dtype), jnp.zeros(size, jnp.int32 if kind is Max else dtype)


def reduced(kind, value, where, axis, first, exp=jnp.exp):
    """The reduction of one block; `first` is the index of the block's first entry along `axis`."""
    if kind is Sum:
        return jnp.sum(value if where is None else jnp.where(where, value, 0), axis=axis)
    value = value if where is None else jnp.where(where, value, -jnp.inf)
    if kind is Max:
        highest, index = maximum(value, axis)
        return highest, jnp.where(highest == -jnp.inf, 0, index + first)
    highest = jnp.max(value, axis=axis)
    return highest, jnp.sum(exp(value - jnp.expand_dims(finite(highest), axis)), axis=axis)


def join(kind, one, other):
    """The reduction of the pairs of both."""
    if kind is Sum:
        return one + other
    (highest, second), (other_highest, other_second) = one, other
    if kind is Max:
        better = (other_highest > highest) | (jnp.isnan(other_highest) & ~jnp.isnan(highest))
        level = (other_highest == highest) | (jnp.isnan(other_highest) & jnp.isnan(highest))
        index = jnp.where(level, jnp.minimum(second, other_second), jnp.where(better, other_second, second))
        return jnp.where(better, other_highest, highest), index
    top = jnp.maximum(highest, other_highest)
    return top, _rescaled(highest, second, top) + _rescaled(other_highest, other_second, top)


def joined(kind, parts):
    """The reduction of all parts along a leading axis; not of a `Max`."""
    if kind is Sum:
        return jnp.sum(parts, axis=0)
    highest, total = parts
    top = jnp.max(highest, axis=0)
    return top, jnp.sum(_rescaled(highest, total, top), axis=0)


def finish(kind, part):
    """The result."""
    if kind is Sum or kind is Max:
        return part
    highest, total = part
    return jnp.where(total == 0, -jnp.inf, jnp.log(total) + finite(highest))


def share(kind, value, where, result, axis, first, exp=jnp.exp):
    """The derivative of a result, `[b, 1]` or `[1, n]`, with respect to the entries of a block."""
    if kind is Sum:
        return jnp.ones((), value.dtype) if where is None else where.astype(value.dtype)
    if kind is Max:
        chosen = first + lax.broadcasted_iota(jnp.int32, value.shape, axis) == result[1]
        return jnp.where(chosen if where is None else where & chosen, 1, 0).astype(value.dtype)
    return exp((value if where is None else jnp.where(where, value, -jnp.inf)) - jnp.where(result == -jnp.inf, 0, result))


def both_log_sum_exps(value, where, exp=jnp.exp):
    """`reduced` of one value to log-sum-exps along axis 0 and axis 1: one exponential serves both unless the block's values are far apart."""
    value = value if where is None else jnp.where(where, value, -jnp.inf)
    highest = jnp.max(value)
    exponentials = exp(value - finite(highest))
    sums = [jnp.sum(exponentials, axis=axis) for axis in (0, 1)]
    near = jnp.isfinite(highest) & (jnp.minimum(jnp.min(sums[0]), jnp.min(sums[1])) > jnp.exp(-_RANGE))

    def apart(value):
        return [reduced(LogSumExp, value, None, axis, 0, exp) for axis in (0, 1)]

    return lax.cond(near, lambda value: [(jnp.broadcast_to(highest, total.shape), total) for total in sums], apart, value)


def both_shares(value, where, results, cotangents, exp=jnp.exp):
    """The sum over both axes of `share` times cotangent for `both_log_sum_exps`; results and cotangents are `[1, n]` and `[b, 1]`."""
    value = value if where is None else jnp.where(where, value, -jnp.inf)
    highest = jnp.maximum(*(jnp.max(result) for result in results))
    lowest = jnp.minimum(*(jnp.min(jnp.where(result == -jnp.inf, jnp.inf, result)) for result in results))

    def together(value):
        weights = [
            jnp.where(result == -jnp.inf, 0, cotangent * jnp.exp(highest - result)) for result, cotangent in zip(results, cotangents, strict=True)
        ]
        return exp(value - highest) * (weights[0] + weights[1])

    def apart(value):
        parts = zip(results, cotangents, (0, 1), strict=True)
        return sum(share(LogSumExp, value, None, result, axis, 0, exp) * cotangent for result, cotangent, axis in parts)

    return lax.cond(highest - lowest < _RANGE, together, apart, value)


def finite(x):
    """`x` with 0 in place of infinities, to be subtracted where infinity from infinity would give NaN."""
    return jnp.where(jnp.isfinite(x), x, 0)


def _rescaled(highest, total, top):
    return jnp.where(highest == top, total, total * jnp.exp(highest - top))
