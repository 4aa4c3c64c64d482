"""A bank with one slot for each example of the data set."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check, safe_normalize
from cljax.core.check import KeyLike
from cljax.memory.pair import Memory, gather, gathered_slots, unit_gaussian


class BankState(NamedTuple):
    """The state of a `bank`.

    Attributes:
      keys: float32 `[size, D]`, unit rows unless the bank keeps features as they are.
    """

    keys: Float[Array, "size D"]


def bank(size: int, dim: int, momentum: Num[ArrayLike, ""], *, normalise: bool = True) -> Memory:
    r"""Moving averages of the features of each example, on the unit sphere.

    $v_i \leftarrow \mathrm{n}(m\, v_i + (1 - m)\, \mathrm{n}(f_i))$ for the examples $i$ of a batch, $\mathrm{n}(x) = x / \lVert x \rVert$: features
    may have any length, as the losses compare by cosine. With `normalise=False` n is left out and the rows are zero at first: the averages of the
    features themselves, such as anchors whose slots are written once their labels are known.

    Args:
      size: the number of examples.
      dim: the width D of a row.
      momentum: m, from 0 (a slot holds the last features) to 1 (nothing changes); may be traced.
      normalise: whether features and rows are scaled to unit length.

    Returns:
      `Memory(init, update)`:
      `init(key) -> BankState` with unit Gaussian rows, or zeros;
      `update(state, index, features, axis_name=None) -> BankState` with index `[B]` integers and features `[B, D]`, which get no gradient. Of rows
      with the same index the last one counts, alone. A row whose index lies outside [0, size), such as a padding of -1, is left out. With `axis_name`
      the rows of all devices are written, in the order of the devices, and the state is the same on every device.

    Raises:
      TypeError, ValueError: a size is not an integer above 0; `momentum` lies outside [0, 1]; arrays of other shapes or kinds; `axis_name` is not
      mapped.

    Reference:
      Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018; Wang & Liu, "Understanding the Behaviour of
      Contrastive Loss", CVPR 2021, section 5.1. Not normalised: Lyu et al., "Learn from the Learnt", ECCV 2024.

    >>> import jax, jax.numpy as jnp
    >>> init, update = bank(3, 2, momentum=0.5)
    >>> state = init(jax.random.key(0))._replace(keys=jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    >>> new = update(state, jnp.array([0]), jnp.array([[0.0, 2.0]])).keys
    >>> print(", ".join(f"{x:.3f}" for x in new[0]))
    0.707, 0.707
    """
    check.integer("size", size, at_least=1)
    check.integer("dim", dim, at_least=1)
    check.number("momentum", momentum, at_least=0, at_most=1)

    def init(key: KeyLike) -> BankState:
        check.key("key", key)
        return BankState(unit_gaussian(key, size, dim) if normalise else jnp.zeros((size, dim)))

    def update(state: BankState, index: Integer[ArrayLike, " B"], features: Float[ArrayLike, "B D"], axis_name: str | None = None) -> BankState:
        check.arrays(**{"state.keys": (state.keys, f"{size} {dim}"), "features": (features, f"B {dim}"), "index": (index, "B", "int")})
        check.axis("axis_name", axis_name)
        keys, scaled = state.keys, safe_normalize if normalise else jnp.asarray
        features = gather(scaled(lax.stop_gradient(features)).astype(keys.dtype), axis_name)
        index, slots = gathered_slots(index, size, axis_name)
        blended = scaled(momentum * keys[index] + (1 - momentum) * features)
        return BankState(keys.at[slots].set(blended.astype(keys.dtype), mode="drop"))

    return Memory(init, update)
