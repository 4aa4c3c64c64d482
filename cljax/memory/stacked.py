"""Several memories of one kind side by side, such as one for each network."""

from typing import Any

import jax
from jax import lax

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.memory.pair import Memory


def stacked(memory: Memory, count: int) -> Memory:
    """Several memories as one, whose state has a first axis more: a teacher's and a student's, one for each modality.

    They are updated one after the other, so that what a memory does seldom, such as grouping its rows, costs nothing in the other steps, as it would
    under `jax.vmap`. A function of one state is `jax.lax.map(function, state)` of all.

    Args:
      memory: one, whose `init` takes a key alone.
      count: how many.

    Returns:
      `Memory(init, update)`: `init(key)`, each with a key of its own; `update(state, *arrays, **shared)` with arrays that have an entry for each
      memory on their first axis, and values that all are given.

    Raises:
      TypeError, ValueError: `memory` is none, or `count` no integer above 0.

    >>> from cljax.memory.queues import queue
    >>> import jax.numpy as jnp
    >>> init, update = stacked(queue(4, 2), 3)
    >>> state = update(init(jax.random.key(0)), jnp.arange(6.0).reshape(3, 1, 2))
    >>> state.keys.shape, state.keys[:, 0].tolist()
    ((3, 4, 2), [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    """
    if not isinstance(memory, Memory):
        raise TypeError(f"memory must be a Memory, got {type(memory).__name__}")
    check.integer("count", count, at_least=1)

    def init(key: KeyLike) -> Any:
        check.key("key", key)
        return jax.vmap(memory.init)(jax.random.split(key, count))

    def update(state: Any, *arrays: Any, **shared: Any) -> Any:
        return lax.map(lambda given: memory.update(*given, **shared), (state, *arrays))

    return Memory(init, update)
