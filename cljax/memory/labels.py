"""The labels of a pool that are bought over time: which examples have one, and which are left."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int32, Integer

from cljax.core import check
from cljax.memory.pair import Memory, gather, gathered_slots


class LabelsState(NamedTuple):
    """The state of `labels`.

    Attributes:
      index: int32 `[budget]`, the examples with a label in the order in which they got it; -1 where there is none yet.
      labels: int32 `[budget]`, their labels.
      has: `[size]` booleans, whether an example has a label.
      order: int32 `[size]`, all examples, those without a label first.
      count: int32, how many have one.
    """

    index: Int32[Array, " budget"]
    labels: Int32[Array, " budget"]
    has: Bool[Array, " size"]
    order: Int32[Array, " size"]
    count: Int32[Array, ""]


def labels(size: int, budget: int) -> Memory:
    """The labels that are known of a pool, in arrays of one shape whatever their number: one compiled program serves all rounds of active learning.

    `samplers.pool_batch` draws batches from both parts: `state.index[: state.count]` has labels, `state.order[: size - state.count]` has none.

    Args:
      size: the number of examples in the pool.
      budget: the largest number of labels.

    Returns:
      `Memory(init, update)`: `init() -> LabelsState`, without any;
      `update(state, index, labels, axis_name=None) -> LabelsState` with integers `[B]` for both. A row whose index lies outside [0, size), such as a
      padding of -1, is left out, and so is what the budget has no room for. An example keeps the first label that it got; of rows with the same index
      the last one counts. With `axis_name` the rows of all devices are taken, in the order of the devices, and the state is the same on every device.

    Raises:
      TypeError, ValueError: a size is not an integer above 0; a budget larger than the pool; arrays of other shapes or kinds; `axis_name` is not
      mapped.

    >>> init, update = labels(5, 3)
    >>> state = update(init(), jnp.array([3, 1]), jnp.array([7, 8]))
    >>> state.index.tolist(), state.labels.tolist(), state.order.tolist(), int(state.count)
    ([3, 1, -1], [7, 8, 0], [0, 2, 4, 1, 3], 2)
    """
    check.integer("size", size, at_least=1)
    check.integer("budget", budget, at_least=1, at_most=size)

    def init() -> LabelsState:
        zeros = jnp.zeros(budget, jnp.int32)
        return LabelsState(zeros - 1, zeros, jnp.zeros(size, bool), jnp.arange(size, dtype=jnp.int32), jnp.int32(0))

    def update(state: LabelsState, index: Integer[ArrayLike, " B"], labels: Integer[ArrayLike, " B"], axis_name: str | None = None) -> LabelsState:
        vectors = {name: (getattr(state, name), f"{budget}", "int") for name in ("index", "labels")}
        check.arrays(**{f"state.{name}": value for name, value in (vectors | {"has": (state.has, f"{size}", "bool")}).items()})
        check.arrays(index=(index, "B", "int"), labels=(labels, "B", "int"))
        check.axis("axis_name", axis_name)
        _, slots = gathered_slots(index, size, axis_name)
        labels = gather(jnp.asarray(labels).astype(jnp.int32), axis_name)
        new = ~state.has.at[slots].get(mode="fill", fill_value=True)
        places = state.count + jnp.cumsum(new) - 1
        new &= places < budget
        places, slots = jnp.where(new, places, budget), jnp.where(new, slots, size)
        has = state.has.at[slots].set(True, mode="drop")
        written = (rows.at[places].set(values, mode="drop") for rows, values in ((state.index, slots.astype(jnp.int32)), (state.labels, labels)))
        return LabelsState(*written, has, jnp.argsort(has).astype(jnp.int32), jnp.sum(has, dtype=jnp.int32))

    return Memory(init, update)
