"""A random permutation that is evaluated where it is asked for, without sorting or storing it."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import check
from cljax.core.compat import vary, varying_axes

_ROUNDS = 12  # of both halves: with 6 the permutations of five entries fail a chi-square test, with 8 they pass


def permutation(key, size, positions):
    """Entries of a keyed pseudo-random permutation of `range(size)` at the given positions.

    A Feistel network over a grid of `a * b >= size` cells with `a, b` near the square root (Black & Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002), walked until the value lies inside `range(size)`. Costs O(len(positions)), whatever the size, and works under jit and vmap: epoch e
    of a data set is `permutation(fold_in(key, e), size, positions)`, from any position.

    Args:
      key: a PRNG key; the same key gives the same permutation.
      size: the number of entries, a Python integer from 1 to 2^31 - 1.
      positions: integers in `[0, size)`, any shape.

    Returns:
      int32 of the shape of `positions`; over all positions each number of `range(size)` appears once.

    Raises:
      TypeError: `size` is not an integer, or `positions` are not.
      ValueError: `size` is below 1 or over 2^31 - 1.
    """
    check.key("key", key)
    check.integer("size", size, at_least=1, at_most=2**31 - 1)
    check.arrays(positions=(positions, "...", "int"))
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    keys = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def once(value):
        def round(number, halves):
            left, right = halves
            left = (left + mixed(right ^ keys[number, 0]) % a) % a
            return left, (right + mixed(left ^ keys[number, 1]) % b) % b

        left, right = lax.fori_loop(0, _ROUNDS, round, (value % a, value // a))
        return right * a + left

    def walk(value):
        return jnp.where(value < size, value, once(value))

    positions = jnp.asarray(positions).astype(jnp.uint32)
    start = once(vary(positions, varying_axes(positions, keys)))
    return lax.while_loop(lambda value: jnp.any(value >= size), walk, start).astype(jnp.int32)


def shuffled(key, size, batch, step):
    r"""The indices of one batch from an endless stream of shuffled epochs.

    The stream is $\pi_0, \pi_1, \ldots$ with $\pi_e$ = `permutation(fold_in(key, e), size, range(size))`. Batch t takes the positions $tB, \ldots,
    tB + B - 1$ of the stream, exactly also where they leave 32 bits.

    Args:
      key: a PRNG key, the same at every step.
      size: the number of entries, a Python integer from 1 to 2^31 - 1.
      batch: B, a Python integer from 1 to 2^30; it may exceed `size`.
      step: t, a non-negative integer; may be traced.

    Returns:
      int32 `[batch]`.
    """
    epoch, offset = _divmod(step, batch, size)
    positions = offset + jnp.arange(batch, dtype=jnp.uint32)
    touched = (size - math.gcd(size, batch) + batch - 1) // size + 1  # epochs that one batch may reach into: one where `batch` divides `size`
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, epoch + jnp.arange(touched, dtype=jnp.uint32))
    rows = jax.vmap(lambda key: permutation(key, size, positions % size))(keys)
    return rows[positions // size, jnp.arange(batch)]


def _divmod(t, batch, size):
    """`divmod(t * batch, size)` as uint32, exact where the product leaves 32 bits: by digits of `t` so short that one times `size` stays inside."""
    t = jnp.asarray(t).astype(jnp.uint32)
    quotient = rest = jnp.uint32(0)
    width = 32 - size.bit_length()
    for low in range(0, 32, width):
        digit = (t >> low) & (2**width - 1)
        more, left = divmod(batch << low, size)
        rest = rest + digit * jnp.uint32(left)
        quotient = quotient + digit * jnp.uint32(more % 2**32) + rest // size
        rest = rest % size
    return quotient, rest


def mixed(x):
    """A 32-bit finaliser (MurmurHash3): every input bit changes every output bit with probability near a half."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
