"""A random permutation that is evaluated where it is asked for, without sorting or storing it."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import check

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
    check.integer("size", size, at_least=1, at_most=2**31 - 1)
    check.arrays(positions=(positions, "...", "int"))
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    keys = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def once(value):
        def round(number, halves):
            left, right = halves
            left = (left + _mix(right ^ keys[number, 0]) % a) % a
            return left, (right + _mix(left ^ keys[number, 1]) % b) % b

        left, right = lax.fori_loop(0, _ROUNDS, round, (value % a, value // a))
        return right * a + left

    def walk(value):
        return jnp.where(value < size, value, once(value))

    start = once(jnp.asarray(positions).astype(jnp.uint32))
    return lax.while_loop(lambda value: jnp.any(value >= size), walk, start).astype(jnp.int32)


def _mix(x):
    """A 32-bit finaliser (MurmurHash3): every input bit changes every output bit with probability near a half."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
