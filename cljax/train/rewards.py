"""A reward model: what scores generations as people do who said which of two is the better one."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, PyTree

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.train.draws import draws
from cljax.train.fit import fit as train_fit
from cljax.train.minimise import minimise
from cljax.train.schedules import rise_and_fall


def reward_model(
    key: KeyLike,
    score: Callable,
    params: PyTree,
    comparisons: Mapping[str, ArrayLike],
    *,
    steps: int,
    batch: int = 128,
    learning_rate: float | int = 1e-6,
    warm_up: int = 0,
    fit: Callable = train_fit,
    name: str = "reward model",
) -> tuple[PyTree, dict[str, Array | np.ndarray]]:
    r"""Trains by Adam on comparisons: the mean over a batch of $-\log \sigma(r_w - r_l)$ falls, with the scores r of the better and the worse one.

    It is one shared stage of `fit`, as `language_model` is: trained once for all arms and scripts that ask for the same, where `fit` has a folder.

    Args:
      key: a PRNG key, of the batches.
      score: a top-level function, with values bound by `functools.partial`: `score(params, rows)` gives scores `[B, 2]` of the two generations of
        each row, the better one first.
      params: parameters to begin with, such as a pretrained decoder's with a head.
      comparisons: a dict of arrays with leading axis N, as `draws` takes it; `rows` are such a dict, with their row numbers as `index`.
      steps: the number of steps.
      batch: rows a step, drawn in epochs; all of them where there are fewer.
      learning_rate: that of Adam, after the warm-up.
      warm_up: steps in which the rate rises to it in a line, see `rise_and_fall`.
      fit: `train.fit`, or what a study hands to `run`.
      name: the stage's name.

    Returns:
      `(params, history)`; history holds `loss` and `accuracy`, how many pairs are in order, `[steps]` each.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; scores of another shape; what `fit` raises.

    Reference: Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback", NeurIPS 2022, equation 1.

    >>> from cljax import train
    >>> def score(w, rows):
    ...     return rows["seen"] @ w
    >>> pairs = {"seen": jnp.eye(2)[None] + jnp.linspace(0, 1, 30)[:, None, None]}
    >>> how = dict(steps=40, batch=10, learning_rate=0.1, fit=partial(train.fit, progress=False))
    >>> w, history = reward_model(jax.random.key(0), score, jnp.zeros(2), pairs, **how)
    >>> bool(w[0] - w[1] > 2), float(history["accuracy"][-1])
    (True, 1.0)
    """
    check.key("key", key)
    if not callable(score):
        raise TypeError(f"score must be a function, got {type(score).__name__}")
    for option, value, least in (("steps", steps, 0), ("batch", batch, 1), ("warm_up", warm_up, 0)):
        check.integer(option, value, at_least=least)
    check.number("learning_rate", learning_rate, at_least=0)
    if not isinstance(comparisons, Mapping):
        raise TypeError(f"comparisons must be a dict of arrays, got {type(comparisons).__name__}")
    size = min(((*np.shape(rows), 0)[0] for rows in comparisons.values()), default=1)
    objective, optimiser = partial(_objective, score), partial(_optimiser, float(learning_rate), warm_up)
    how = dict(optimiser=optimiser, steps=steps, name=name, shared=True, fit=fit)
    variables, history = minimise(key, objective, {"params": params}, draws(comparisons, max(1, min(int(batch), size))), **how)
    return variables["params"], history


def _optimiser(rate, warm_up):
    return optax.adam(rise_and_fall(rate, warm_up=warm_up))


def _objective(score, variables, rows, key):
    scores = score(variables["params"], rows)
    check.arrays(**{"what score returns": (scores, "B 2")})
    gap = (scores[:, 0] - scores[:, 1]).astype(jnp.promote_types(scores.dtype, jnp.float32))
    mean = partial(lax.pmean, axis_name="data")
    return mean(-jnp.mean(jax.nn.log_sigmoid(gap))), {"accuracy": mean(jnp.mean(gap > 0, dtype=jnp.float32))}
