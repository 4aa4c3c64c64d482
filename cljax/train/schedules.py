"""Learning rates that change with the step."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import Float

from cljax.core import check


def rise_and_fall(rate: float | int | Float[jax.Array, ""], *, warm_up: int, steps: int) -> Callable:
    """A schedule for optax: from 0 to a rate in the steps of the warm-up, and from there to 0 at the end, both in a line.

    Args:
      rate: the highest rate; it may be traced, as that of a config is in a step.
      warm_up: steps of the rise; 0: it begins with the rate.
      steps: of both; where the warm-up is longer, it goes on to its end.

    Returns:
      `schedule(t)`, the rate of step t, counted from 0; behind the last step 0.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    >>> schedule = rise_and_fall(1.0, warm_up=2, steps=6)
    >>> [float(schedule(t)) for t in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check.number("rate", rate, at_least=0)
    check.integer("warm_up", warm_up, at_least=0)
    check.integer("steps", steps, at_least=0)
    fall = optax.linear_schedule(rate, 0.0, max(1, steps - warm_up))
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warm_up), fall], [warm_up]) if warm_up else fall
