"""What a training returns, as metrics of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Num

from cljax.core import check


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


def thinned(history: Mapping[str, Num[Any, " steps"]], names: Sequence[str], *, points: int = 10) -> dict[str, Num[Any, " points"]]:
    """Metrics of every step as short curves, of the means over equal parts of the training: for `over_steps`.

    Args:
      history: of `train.fit`, a number a step for each metric.
      names: which metrics.
      points: how many parts; of fewer steps each is one. Where it doesn't divide the steps, the few that are left at the end are in none.

    Returns:
      `{name: [points]}`.

    Raises:
      TypeError, ValueError: an argument of another kind or range; a metric that isn't there, has no step, or more than a number a step.

    >>> {name: curve.tolist() for name, curve in thinned({"loss": jnp.array([4.0, 2.0, 2.0, 0.0, 9.0])}, ["loss"], points=2).items()}
    {'loss': [3.0, 1.0]}
    """
    check.integer("points", points, at_least=1)
    found = {}
    for name in names:
        check.choice("names", name, tuple(history))
        if history[name].ndim != 1 or not len(history[name]):
            raise ValueError(f"history must hold a number a step, of one step at least, got {name!r} of shape {list(history[name].shape)}")
        size = max(1, len(history[name]) // points)
        found[name] = history[name][: points * size].reshape(-1, size).mean(axis=1)
    return found
