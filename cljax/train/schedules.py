"""Learning rates that change with the step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from cljax.core import check


def rise_and_fall(rate: float | int | Float[jax.Array, ""], *, warm_up: int, steps: int | None = None) -> Callable:
    r"""A schedule for optax: up to a rate in the steps of the warm-up, and from there down to 0 at the end, both in a line.

    $$r_t = r \cdot \begin{cases} (t + 1) / w & t < w \\ (T - t) / (T - w) & t \ge w \end{cases}$$

    Every step moves something: some released code begins with a step of rate 0, and reaches the highest rate a step later.

    Args:
      rate: the highest rate, r; it may be traced, as that of a config is in a step.
      warm_up: the steps of the rise, w; 0: it begins with the rate.
      steps: of both, T; where the warm-up is longer, it goes on to its end. None: it doesn't fall.

    Returns:
      `schedule(t)`, the rate of step t, counted from 0; behind the last step 0.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    >>> schedule = rise_and_fall(1.0, warm_up=2, steps=6)
    >>> [float(schedule(t)) for t in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check.number("rate", rate, at_least=0)
    check.integer("warm_up", warm_up, at_least=0)
    if steps is not None:
        check.integer("steps", steps, at_least=0)

    def schedule(t):
        risen = jnp.minimum(1, (t + 1) / max(1, warm_up))
        if steps is None:
            return rate * risen
        fall = max(1, steps - warm_up)
        return rate * jnp.where(t < warm_up, risen, 1 - jnp.clip(t - warm_up, 0, fall) / fall)

    return schedule
