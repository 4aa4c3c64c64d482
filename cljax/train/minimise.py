"""Training by the gradient of an objective: the step, the optimiser's state and the running averages that most training is made of."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from cljax.core.check import KeyLike
from cljax.train.descend import descend
from cljax.train.fit import fit as train_fit


def minimise(
    key: KeyLike,
    objective: Callable[[Mapping, Any, Any], Any],
    variables: Mapping[str, PyTree],
    data: Any,
    *,
    optimiser: Callable[[], Any],
    steps: int,
    after: Sequence[tuple[int, Callable]] = (),
    name: str = "fit",
    shared: bool = False,
    fit: Callable = train_fit,
) -> tuple[dict[str, PyTree], dict[str, Array | np.ndarray]]:
    r"""Trains by the gradient of an objective, $\theta \leftarrow \theta + u(\nabla_\theta L)$: a stage of `fit` whose step needs no writing.

    Of the variables those under "params" are trained; all others, such as a batch norm's running averages, change as the objective says.

    Args:
      key: a PRNG key.
      objective: a top-level function, with values bound by `functools.partial`: `objective(variables, batch, key)` gives `loss, metrics`, or `loss,
        metrics, variables` where other variables change, as `encoders.apply_in_training` gives them (of their "params" nothing is taken). The axis
        "data" is bound: make the loss by `losses.mean(..., axis_name="data")`.
      variables: to begin with, as a Linen module's `init` gives them: `{"params": ..., "batch_stats": ...}`.
      data: what `fit` takes: `draws(arrays, draw)`, or an iterator of batches.
      optimiser: a top-level function, with values bound by `functools.partial`, that is called without arguments and gives an
        `optax.GradientTransformation`. Bound floats are traced: arms with other rates share a program.
      steps: the number of steps.
      after, name, shared: as in `fit`; a hook's state is `{"variables": ..., "opt": ...}`.
      fit: `train.fit`, or what a study hands to `run`.

    Returns:
      `(variables, history)`: the variables after all steps, and besides what the objective and the hooks measure `loss`, `[steps]`.

    Raises:
      TypeError: `objective` or `optimiser` is no function, or variables that are no dict.
      ValueError: variables without "params"; an objective that gives something else; what `fit` raises.

    >>> import jax.numpy as jnp, optax
    >>> from cljax import losses, train
    >>> def squares(variables, batch, key):
    ...     return losses.mean((batch["x"] * variables["params"]["w"] - batch["y"]) ** 2, axis_name="data"), {}
    >>> x = jnp.linspace(-1, 1, 20)
    >>> how = dict(optimiser=partial(optax.sgd, 0.5), steps=60, fit=partial(train.fit, progress=False))
    >>> found, history = minimise(jax.random.key(0), squares, {"params": {"w": jnp.zeros(())}}, train.draws({"x": x, "y": 3 * x}, 10), **how)
    >>> print(f"{found['params']['w']:.3f}", history["loss"].shape)
    3.000 (60,)
    """
    for argument, value in (("objective", objective), ("optimiser", optimiser)):
        if not callable(value):
            raise TypeError(f"{argument} must be a function, got {type(value).__name__}")
    if not isinstance(variables, Mapping):
        raise TypeError(f"variables must be a dict, got {type(variables).__name__}")
    if "params" not in variables:
        raise ValueError(f"variables must hold 'params', which are trained, got {', '.join(map(repr, variables)) or 'none'}")
    state = {"variables": dict(variables), "opt": optimiser().init(variables["params"])}
    state, history = fit(key, state, partial(_step, objective, optimiser), data, steps=steps, after=after, name=name, shared=shared)
    return state["variables"], history


def _step(objective, optimiser, state, batch, key):
    params = state["variables"]["params"]
    (loss, (metrics, variables)), grads = jax.value_and_grad(_loss, has_aux=True)(params, objective, state["variables"], batch, key)
    params, opt = descend(optimiser(), grads, params, state["opt"], axis_name="data")
    return {"variables": {**variables, "params": params}, "opt": opt}, {"loss": loss, **metrics}


def _loss(params, objective, variables, batch, key):
    found = objective({**variables, "params": params}, batch, key)
    if not (isinstance(found, tuple) and len(found) in (2, 3)):
        raise ValueError(f"objective must give (loss, metrics) or (loss, metrics, variables), got {type(found).__name__}")
    loss, metrics, changed = (*found, {})[:3]
    return loss, (metrics, {**variables, **changed})
