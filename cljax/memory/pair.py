"""What all memories have in common."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import safe_normalize


class Memory(NamedTuple):
    """A memory: two pure functions over a state that the caller holds. No memory passes a gradient to what it is updated with.

    Attributes:
      init: makes the first state.
      update: `update(state, ...) -> state`.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]


def unit_gaussian(key, rows, dim):
    """`[rows, dim]` points spread evenly over the unit sphere."""
    return safe_normalize(jax.random.normal(key, (rows, dim)))


def gather(rows, axis_name):
    """The rows of all devices, `[devices * B, ...]`, the same on every device; `rows` itself without an axis.

    Each device puts its rows in their place among zeros and the places are summed. `lax.all_gather` would move half as much, but under
    `shard_map(check_vma=True)` its result counts as different on each device, and a state made from it could not leave as replicated.
    """
    if axis_name is None:
        return rows
    places = jnp.zeros((lax.axis_size(axis_name), *rows.shape), rows.dtype)
    places = lax.dynamic_update_index_in_dim(places, rows, lax.axis_index(axis_name), axis=0)
    return lax.psum(places, axis_name).reshape(-1, *rows.shape[1:])


def gathered_slots(index, size, axis_name):
    """Which slots the rows of all devices write, given the index `[B]` of this device's.

    Returns:
      index: `[devices * B]`, `size` where it lies outside [0, size).
      slots: likewise, and `size` too for all rows but the last of those with one index: what `.at[slots].set(rows, mode="drop")` takes.
    """
    index = gather(jnp.asarray(index).astype(jnp.promote_types(jnp.result_type(index), jnp.int32)), axis_name)
    index = jnp.where((index >= 0) & (index < size), index, size)  # a negative index would count from the end
    order = jnp.arange(len(index), dtype=jnp.int32)
    last = jnp.zeros(size + 1, jnp.int32).at[index].max(order)[index]
    return index, jnp.where(order == last, index, size)
