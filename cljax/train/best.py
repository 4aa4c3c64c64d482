"""Keeping the best parameters of a run, in its state."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cljax.core import check


class Best(NamedTuple):
    """The best so far.

    Attributes:
      params: the parameters.
      value: their metric; NaN as long as there is none.
    """

    params: Any
    value: Float[Array, ""]


def best_slot(params: PyTree) -> Best:
    """The place for the best parameters in the first state of a run, `state["best"] = best_slot(state["params"])`: see `keep_best`."""
    return Best(params, jnp.float32(jnp.nan))


def keep_best(hook: Callable, metric: str, *, of: str = "params", slot: str = "best", mode: str = "max") -> Callable:
    """A hook for the `after=` of `train.fit` that calls another one and keeps the parameters for which its metric is best.

    What it keeps lies in the state, so a run that was stopped and goes on ends with the same bits; and it may be traced, as `hook` may. Of equals the
    first is kept; NaN is never better.

    Args:
      hook: `hook(key, state) -> state, metrics`, which evaluates.
      metric: the name of the metric, a scalar.
      of: which entry of the state is kept, as it was given to the hook: `"params"`, or those of an EMA.
      slot: the entry of the state that holds the best, a `Best`; `best_slot` makes the first one.
      mode: "max" or "min".

    Returns:
      A hook. After the run `state["best"].params` are the best parameters and `state["best"].value` is their metric.

    Raises:
      TypeError: `hook` is no function, or a name no string.
      ValueError: another mode; when it is called: a state without the two entries, or a metric that isn't there or no scalar.

    >>> def evaluate(key, state):
    ...     return state, {"accuracy": -jnp.square(state["params"] - 2.0)}
    >>> hook, state = keep_best(evaluate, "accuracy"), {"params": 0.0, "best": best_slot(0.0)}
    >>> for params in (1.0, 3.5, jnp.nan, 2.25, 3.0):
    ...     state, metrics = hook(jax.random.key(0), state | {"params": params})
    >>> print(state["best"].params, state["best"].value)
    2.25 -0.0625
    """
    if not callable(hook):
        raise TypeError(f"hook must be a function, got {type(hook).__name__}")
    for name, value in (("metric", metric), ("of", of), ("slot", slot)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    check.choice("mode", mode, ("max", "min"))
    return functools.partial(_call, hook, metric, of, slot, mode)


def _call(hook, metric, of, slot, mode, key, state):
    if not isinstance(state, Mapping) or of not in state or not isinstance(state.get(slot), Best):
        raise ValueError(f"state must be a dict with {of!r} and {slot!r}: begin with state[{slot!r}] = train.best_slot(state[{of!r}])")
    params, best = state[of], state[slot]
    result = hook(key, state)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise ValueError(f"hook must return (state, metrics), got {type(result).__name__}")
    state, metrics = result
    if metric not in metrics:
        raise ValueError(f"metric must be one of the hook's, {', '.join(map(repr, metrics))}; got {metric!r}{check.nearest(metric, metrics)}")
    value = jnp.asarray(metrics[metric], jnp.float32)
    if value.ndim:
        raise ValueError(f"metric must be a scalar, got {metric!r} of shape {list(value.shape)}")
    better = value > best.value if mode == "max" else value < best.value
    better |= jnp.isnan(best.value) & ~jnp.isnan(value)
    kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), Best(params, value), best)
    return {**state, slot: kept}, metrics
