"""What a training returns, as metrics of a study."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp


def over_steps(history: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Of each metric its last value under its name, and its curve as "... over steps": for `run` to return.

    Args:
      history: of `train.fit`, `{name: [calls]}`.
      before: `{name: value}`, which metrics, with what they were before the first step: it begins their curves. None: all of history, without.

    Returns:
      `{name: value}` and `{f"{name} over steps": curve}`.

    Raises:
      ValueError: history lacks a metric that `before` has. (Where no step was taken, it lacks them all, and what was before is what is.)

    >>> over_steps({"accuracy": jnp.array([0.5, 0.75]), "loss": jnp.array([2.0, 1.0])}, before={"accuracy": jnp.array(0.25)})
    {'accuracy': Array(0.75, dtype=float32), 'accuracy over steps': Array([0.25, 0.5 , 0.75], dtype=float32)}
    """
    if before is None:
        curves = dict(history)
    else:
        if history and (missing := sorted(before.keys() - history.keys())):
            raise ValueError(f"history must have {', '.join(map(repr, missing))} of before, it has {', '.join(map(repr, history)) or 'nothing'}")
        curves = {name: jnp.concatenate([jnp.asarray(value)[None], *([history[name]] if history else [])]) for name, value in before.items()}
    return {name: curve[-1] for name, curve in curves.items()} | {f"{name} over steps": curve for name, curve in curves.items()}
