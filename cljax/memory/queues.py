"""A first-in, first-out queue of keys: many negatives from past batches."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.memory.pair import Memory, gather, unit_gaussian


class QueueState(NamedTuple):
    """The state of a `queue`.

    Attributes:
      keys: float32 `[capacity, D]`.
      pointer: int32, the slot that is written next: the oldest one.
    """

    keys: Float[Array, "capacity D"]
    pointer: Int[Array, ""]


def queue(capacity: int, dim: int) -> Memory:
    """A ring of the newest `capacity` keys.

    A batch overwrites the oldest rows, in its order; the rows are stored as they are given. `capacity` need not be a multiple of the batch, and of a
    batch larger than the queue its last `capacity` rows are kept: what stays is what stays of the same rows put in one by one.

    Args:
      capacity: the number of rows.
      dim: the width D of a row.

    Returns:
      `Memory(init, update)`:
      `init(key) -> QueueState` with unit Gaussian rows (Gaussian, scaled to unit length), all of which `capacity` new rows have replaced;
      `update(state, keys, axis_name=None) -> QueueState` with keys `[B, D]`, which get no gradient. With `axis_name` the rows of all devices are put
      in, in the order of the devices, and the state is the same on every device.

    Raises:
      TypeError, ValueError: a size is not an integer above 0; `keys` or the state have other shapes; `axis_name` is not mapped.

    Reference:
      He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> init, update = queue(4, 2)
    >>> state = init(jax.random.key(0))
    >>> for batch in jnp.arange(1.0, 13.0).reshape(3, 2, 2):
    ...     state = update(state, batch)
    >>> state.keys.tolist(), int(state.pointer)
    ([[9.0, 10.0], [11.0, 12.0], [5.0, 6.0], [7.0, 8.0]], 2)
    """
    check.integer("capacity", capacity, at_least=1)
    check.integer("dim", dim, at_least=1)

    def init(key: KeyLike) -> QueueState:
        check.key("key", key)
        return QueueState(unit_gaussian(key, capacity, dim), jnp.zeros((), jnp.int32))

    def update(state: QueueState, keys: Float[ArrayLike, "B D"], axis_name: str | None = None) -> QueueState:
        check.arrays(**{"state.keys": (state.keys, f"{capacity} {dim}"), "state.pointer": (state.pointer, "", "int"), "keys": (keys, f"B {dim}")})
        check.axis("axis_name", axis_name)
        keys = gather(lax.stop_gradient(jnp.asarray(keys)).astype(state.keys.dtype), axis_name)
        total = len(keys)
        kept = min(total, capacity)  # so that no slot is written twice
        slots = (state.pointer + jnp.arange(total - kept, total)) % capacity
        return QueueState(state.keys.at[slots].set(keys[total - kept :]), (state.pointer + total) % capacity)

    return Memory(init, update)
