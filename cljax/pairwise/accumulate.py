"""One reduction, from its first block to its result, and the derivative of the result with respect to a block.

A reduction over part of the pairs is an array for `Sum`, (maximum, sum of exponentials above it) for `LogSumExp`, (maximum, index) for `Max`.
"""

import functools

import jax.numpy as jnp
from jax import lax

from cljax.pairwise.dense import maximum
from cljax.pairwise.terms import LogSumExp, Max, Sum

_RANGE = 60.0  # float32 keeps exp(-60) times an exponential that counts beside it (exp(-17)) above its smallest number
_LOWEST = -80.0  # of an exponent: what is kept never adds 0
_FEW = 2**16  # pairs: of more, not all are asked where the values lie


def start(kind, size, dtype):
    """The reduction of no pairs."""
    if kind is Sum:
        return jnp.zeros(size, dtype)
    return jnp.full(size, -jnp.inf, dtype), jnp.zeros(size, jnp.int32 if kind is Max else dtype)


def reduced(kind, value, where, axis, first, exp=jnp.exp):
    """The reduction of one block; `first` is the index of the block's first entry along `axis`."""
    if kind is Sum:
        return jnp.sum(value if where is None else jnp.where(where, value, 0), axis=axis)
    value = masked(value, where)
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
    return exp(masked(value, where) - jnp.where(result == -jnp.inf, 0, result))


def log_sum_exps(make, axes, exp=jnp.exp):
    """`reduced` of one value to log-sum-exps along each of `axes`: one exponential serves them all unless the block's values are far apart.

    `make()` gives the value and its mask; it is called anew for what is seldom done, so that XLA writes no value to memory for its sake.
    """
    value, where = make()
    step = max(1, len(value) // 8) if value.size > _FEW else 1
    highest = jnp.max(masked(value, where)[::step])  # a few rows tell where the values lie
    shift = finite(highest)
    exponentials = exp(value - shift) if where is None else jnp.where(where, exp(jnp.maximum(value - shift, _LOWEST)), 0)
    sums = [jnp.sum(exponentials, axis=axis) for axis in axes]
    enough = [jnp.min(total if where is None else jnp.where(total == 0, 1, total)) > jnp.exp(-_RANGE) for total in sums]
    bounded = [jnp.isfinite(highest)] if step == 1 else [jnp.max(total) < jnp.exp(_RANGE) for total in sums]

    def together(sums):
        return [(jnp.where(total == 0, -jnp.inf, shift), total) for total in sums]

    def apart(_):
        return [reduced(LogSumExp, *make(), axis, 0, exp) for axis in axes]

    return lax.cond(functools.reduce(jnp.logical_and, enough + bounded), together, apart, sums)


def near(*results):
    """Whether `both_shares` may be used."""
    highest = jnp.maximum(*(jnp.max(result) for result in results))
    return highest - jnp.minimum(*(jnp.min(jnp.where(result == -jnp.inf, jnp.inf, result)) for result in results)) < _RANGE


def both_shares(value, where, *lines):
    """The sum of `share` times cotangent over the log-sum-exps of one value along both axes, each of `lines` a result and its cotangent."""
    highest = jnp.maximum(*(jnp.max(result) for result, _ in lines))
    one, other = (jnp.where(result == -jnp.inf, 0, cotangent * jnp.exp(highest - result)) for result, cotangent in lines)
    return jnp.exp(masked(value, where) - highest) * (one + other)


def masked(value, where):
    """`value` with -inf where the mask, if there is one, is False."""
    return value if where is None else jnp.where(where, value, -jnp.inf)


def finite(x):
    """`x` with 0 in place of infinities, to be subtracted where infinity from infinity would give NaN."""
    return jnp.where(jnp.isfinite(x), x, 0)


def _rescaled(highest, total, top):
    return jnp.where(highest == top, total, total * jnp.exp(highest - top))
