"""A random permutation that is evaluated where it is asked for, without sorting or storing it."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import check
from cljax.core.compat import vary, varying_axes

_ROUNDS = 32


def permutation(key, size, positions):
    """Entries of a keyed pseudo-random permutation of `range(size)` at the given positions, as `permuted`.

    Costs O(len(positions)), whatever the size, and works under jit and vmap: epoch e of a data set is `permutation(fold_in(key, e), size,
    positions)`, from any position.

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
    return permuted(jax.random.bits(key, (2,), jnp.uint32), size, positions)


def permuted(words, size, positions):
    """Entries of pseudo-random permutations of `range(size)`, of which each entry may have its own, also of a traced size.

    The swap-or-not shuffle (Hoang, Morris & Rogaway, "An Enciphering Scheme Based on a Card Shuffle", CRYPTO 2012): in each round an entry and its
    mirror image about a random centre change places or not. Elementwise maths, without a loop whose length depends on numbers.

    Args:
      words: uint32 `[..., 2]`, which permutation it is.
      size: integers from 1 to 2^31 - 1 that broadcast to `positions`.
      positions: integers `[...]` from 0 to size - 1.

    Returns:
      int32 of the shape that all broadcast to.
    """
    size = jnp.asarray(size).astype(jnp.uint32)
    shape = jnp.broadcast_shapes(words.shape[:-1], size.shape, jnp.shape(positions))

    def swap(number, place):
        number = number.astype(jnp.uint32)
        mirror = (mixed(words[..., 0] + 2 * number) % size + size - place) % size
        swaps = mixed(jnp.maximum(place, mirror) ^ mixed(words[..., 1] + 2 * number + 1)) & 1
        return jnp.where(swaps == 1, mirror, place)

    start = vary(jnp.broadcast_to(jnp.asarray(positions).astype(jnp.uint32), shape), varying_axes(words, size, positions))
    unroll = jax.default_backend() != "cpu"  # there one kernel instead of one a round; on a CPU only more to compile
    return lax.fori_loop(0, _ROUNDS, swap, start, unroll=unroll).astype(jnp.int32)


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
