"""One step of an optimiser: the one place of the rule for gradients on several devices."""

from typing import Any

import optax
from jax import lax
from jaxtyping import PyTree

from cljax.core import check


def descend(optimiser: Any, grads: PyTree, params: PyTree, opt_state: PyTree, axis_name: str | None = None) -> tuple[PyTree, PyTree]:
    r"""Averages the gradients over the devices and takes one step of the optimiser, $\theta \leftarrow \theta + u(\operatorname{pmean} g)$.

    Right in every mode where the differentiated objective is made of `losses.mean(..., axis_name)`: under `jax.pmap`, `jax.vmap(axis_name=)` and
    `jax.shard_map(check_vma=False)` each device holds its share of the gradient; under `check_vma=True` the shares are summed already and the mean
    changes nothing.

    Args:
      optimiser: an `optax.GradientTransformation`.
      grads: the gradients, a pytree like `params`.
      params: the parameters.
      opt_state: the optimiser's state, from `optimiser.init(params)`.
      axis_name: the mapped axis of the devices, `"data"` in a step of `train.fit`; None where there is none.

    Returns:
      `(params, opt_state)` after the step; the parameters keep their dtypes.

    Raises:
      TypeError: `optimiser` has no `update`.
      ValueError: `axis_name` is not mapped here.
    """
    if not callable(getattr(optimiser, "update", None)):
        raise TypeError(f"optimiser must be an optax.GradientTransformation, got {type(optimiser).__name__}")
    check.axis("axis_name", axis_name)
    if axis_name is not None:
        grads = lax.pmean(grads, axis_name)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
