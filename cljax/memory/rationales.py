"""A rationale for each example: the states of Markov chains over texts, which go on where an example is met again."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int32, Integer

from cljax.core import check
from cljax.memory.pair import Memory, gather, gathered_slots


class RationalesState(NamedTuple):
    """The state of `rationales`.

    Attributes:
      tokens: int32 `[size, T]`.
      correct: `[size]` booleans, whether they lead to the right answer.
    """

    tokens: Int32[Array, "size T"]
    correct: Bool[Array, " size"]


def rationales(size: int, length: int, *, filler: int = 0) -> Memory:
    """One rationale an example, written over by index.

    Args:
      size: the number of examples.
      length: T, the tokens of a rationale with its padding.
      filler: the token of rationales that are not written yet.

    Returns:
      `Memory(init, update)`: `init() -> RationalesState`, empty: only `filler`, nothing right; `update(state, index, tokens, correct, axis_name=None)
      -> RationalesState` with index `[B]` and tokens `[B, T]` integers and correct `[B]` booleans. Of rows with the same index the last one counts. A
      row whose index lies outside [0, size), such as a padding of -1, is left out. With `axis_name` the rows of all devices are written, in the order
      of the devices, and the state is the same on every device.

    Raises:
      TypeError, ValueError: a size is not an integer above 0; arrays of other shapes or kinds; `axis_name` is not mapped.

    Reference: Phan et al., "Training Chain-of-Thought via Latent-Variable Inference" (TRICE), NeurIPS 2023.

    >>> init, update = rationales(3, 2)
    >>> state = update(init(), jnp.array([2, 0]), jnp.array([[5, 6], [7, 8]]), jnp.array([True, False]))
    >>> state.tokens.tolist(), state.correct.tolist()
    ([[7, 8], [0, 0], [5, 6]], [False, False, True])
    """
    check.integer("size", size, at_least=1)
    check.integer("length", length, at_least=1)
    check.integer("filler", filler)

    def init() -> RationalesState:
        return RationalesState(jnp.full((size, length), filler, jnp.int32), jnp.zeros(size, bool))

    def update(
        state: RationalesState,
        index: Integer[ArrayLike, " B"],
        tokens: Integer[ArrayLike, "B T"],
        correct: Bool[ArrayLike, " B"],
        axis_name: str | None = None,
    ) -> RationalesState:
        check.arrays(**{"state.tokens": (state.tokens, f"{size} {length}", "int"), "state.correct": (state.correct, f"{size}", "bool")})
        check.arrays(index=(index, "B", "int"), tokens=(tokens, f"B {length}", "int"), correct=(correct, "B", "bool"))
        check.axis("axis_name", axis_name)
        _, slots = gathered_slots(index, size, axis_name)
        tokens = gather(jnp.asarray(tokens).astype(jnp.int32), axis_name)
        correct = gather(jnp.asarray(correct).astype(jnp.int32), axis_name) > 0
        return RationalesState(state.tokens.at[slots].set(tokens, mode="drop"), state.correct.at[slots].set(correct, mode="drop"))

    return Memory(init, update)
