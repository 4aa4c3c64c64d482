"""Exponential moving averages of parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Int, Num, PyTree

from cljax.core import check
from cljax.memory.pair import Memory


class EMAState(NamedTuple):
    """The state of an `ema`.

    Attributes:
      params: the averages, a tree like that of the parameters.
      step: int32, the number of updates so far.
    """

    params: Any
    step: Int[Array, ""]


def ema(decay: Num[ArrayLike, ""] | Callable[[Int[Array, ""]], Any]) -> Memory:
    r"""The exponential moving average of a tree of parameters: a teacher, a momentum encoder.

    $\bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta$, in float32 at least, and stored in the dtype of the parameters. Leaves that are not
    floats (counters) are copied.

    Args:
      decay: d, from 0 (a copy) to 1 (frozen), or a function of `state.step`, which is 0 at the first update; may be traced.

    Returns:
      `Memory(init, update)`:
      `init(params) -> EMAState`, a copy of the parameters;
      `update(state, params) -> EMAState`; no gradient passes to the parameters.

    Raises:
      TypeError: `decay` is neither a number nor a function.
      ValueError: `decay` lies outside [0, 1]; the parameters have another structure or other shapes than the state's.

    Reference:
      He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, equation 2.

    >>> import jax.numpy as jnp
    >>> init, update = ema(0.9995)
    >>> state = init({"w": jnp.ones(())})
    >>> for _ in range(3):
    ...     state = update(state, {"w": jnp.full((), 3.0)})
    >>> print(f"{state.params['w']:.6f} after {state.step}")
    1.002999 after 3
    """
    if not callable(decay):
        check.number("decay", decay, at_least=0, at_most=1)

    def init(params: PyTree) -> EMAState:
        return EMAState(jax.tree.map(jnp.array, params), jnp.zeros((), jnp.int32))  # a copy: one buffer can't be donated twice

    def update(state: EMAState, params: PyTree) -> EMAState:
        _same_tree(state.params, params)
        weight = decay(state.step) if callable(decay) else decay
        if callable(decay):
            check.number("decay(step)", weight, at_least=0, at_most=1)
        averages = jax.tree.map(lambda average, value: _blend(weight, average, lax.stop_gradient(value)), state.params, params)
        return EMAState(averages, state.step + 1)

    return Memory(init, update)


def rising_decay(start: Num[ArrayLike, ""], steps: Num[ArrayLike, ""]) -> Callable[[Int[Array, ""]], Num[Array, ""]]:
    r"""A decay for `ema` that rises along a half cosine, $d_t = 1 - (1 - d_0) (1 + \cos(\pi t / T)) / 2$: the teacher stands still at the end.

    Args:
      start: $d_0$, from 0 to 1; may be traced.
      steps: T, above 0, after which it is 1; may be traced.

    Returns:
      A function of the step.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    Reference:
      Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, section 3.2.

    >>> print([f"{rising_decay(0.99, 100)(t):.4f}" for t in (0, 50, 100, 120)])
    ['0.9900', '0.9950', '1.0000', '1.0000']
    """
    check.number("start", start, at_least=0, at_most=1)
    check.positive("steps", steps)

    def decay(step):
        return 1 - (1 - start) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1))) / 2

    return decay


def _blend(decay, average, value):
    if not jnp.issubdtype(average.dtype, jnp.inexact):
        return jnp.asarray(value, average.dtype)
    wide = jnp.promote_types(average.dtype, jnp.float32)
    decay = jnp.asarray(decay, wide)  # 1 - decay is taken from the rounded decay: the weights sum to 1 exactly, and a constant stays what it is
    return (decay * average.astype(wide) + (1 - decay) * jnp.asarray(value, wide)).astype(average.dtype)


def _same_tree(averages, params):
    structures = jax.tree.structure(averages), jax.tree.structure(params)
    if structures[0] != structures[1]:
        raise ValueError(f"params must have the structure of state.params, {structures[0]}, got {structures[1]}")
    for (path, average), value in zip(jax.tree_util.tree_leaves_with_path(averages), jax.tree.leaves(params), strict=True):
        if jnp.shape(average) != jnp.shape(value):
            name = "params" + jax.tree_util.keystr(path)
            raise ValueError(f"{name} must have shape {list(jnp.shape(average))} as in state.params, got {list(jnp.shape(value))}")
