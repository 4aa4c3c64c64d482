"""Cutting arrays into blocks of one size. The last block starts early enough to be whole; its first entries were then seen before."""

import jax
import jax.numpy as jnp
from jax import lax


def numbers(length, block):
    """The blocks' numbers, 0, 1, ..., to scan over."""
    return jnp.arange(-(-length // block), dtype=jnp.int32)


def span(number, block, length):
    """Where block `number` starts, and which of its entries no earlier block holds."""
    start = jnp.minimum(number * block, length - block)
    return start, start + jnp.arange(block, dtype=jnp.int32) >= number * block


def cut(tree, start, size):
    """The block of every leaf."""
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size), tree)


def held(tree, start):
    """The block that was cut at `start`, in memory of its own: XLA:CPU would slice `tree` anew for every pair of which a part of it is one side."""
    if jax.default_backend() != "cpu":
        return tree
    return lax.cond(start >= 0, lambda tree: tree, lambda tree: jax.tree.map(jnp.zeros_like, tree), tree)


def row(tree, start, size):
    """The block as rows of a matrix of pairs, `[b, 1, ...]`."""
    return jax.tree.map(lambda leaf: leaf[:, None], cut(tree, start, size))


def column(tree, start, size):
    """The block as columns of a matrix of pairs, `[1, n, ...]`."""
    return jax.tree.map(lambda leaf: leaf[None], cut(tree, start, size))


def put(tree, start, block):
    """`tree` with a block of every leaf replaced."""
    return jax.tree.map(lambda leaf, part: lax.dynamic_update_slice_in_dim(leaf, part, start, 0), tree, block)


def add(total, start, part, axis=0):
    """`total` with `part` added to one block along `axis`."""
    seen = lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
    return lax.dynamic_update_slice_in_dim(total, seen + part, start, axis)
