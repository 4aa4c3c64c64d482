"""A classifier that is trained with labels: on top of an encoder that has learnt without, or from scratch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Int, PyTree

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.train.best import best_slot, keep_best
from cljax.train.descend import descend
from cljax.train.draws import draws
from cljax.train.fit import fit as train_fit


def classifier(
    key: KeyLike,
    forward: Callable[[PyTree, Any, Any, Any], Any],
    params: PyTree,
    inputs: PyTree,
    labels: Int[ArrayLike, " N"],
    *,
    steps: int,
    batch: int = 32,
    learning_rate: float | int = 1e-3,
    held_out: float | int = 0.0,
    fit: Callable = train_fit,
    name: str = "classifier",
) -> tuple[PyTree, dict[str, Array | np.ndarray]]:
    r"""Trains by Adam with labels: the mean over a batch of $-\log p(y \mid x)$ falls.

    Fine-tuning is to begin with an encoder's parameters; what `forward` takes through `jax.lax.stop_gradient` stays as it is.

    Args:
      key: a PRNG key.
      forward: a top-level function, with values bound by `functools.partial`: `forward(params, inputs, index, key)` gives logits `[B, K]`. The
        examples' places `index` and the step's `key` are for dropout (`core.apply_with_dropout`) and views; both are None where it is evaluated.
      params: parameters to begin with.
      inputs: an array or a tree of arrays with leading axis N.
      labels: integers `[N]` from 0 to K - 1.
      steps: the number of steps.
      batch: rows a step, drawn in epochs; all of them where there are fewer.
      learning_rate: that of Adam.
      held_out: the share of the rows, the first ones, that are not trained on: after each epoch the loss on them is taken, and the parameters for
        which it is least are what is returned. 0: the last ones.
      fit: `train.fit`, or what a study hands to `run`.
      name: the stage's name.

    Returns:
      `(params, history)`; history holds `loss`, `[steps]`, and with rows held out `held-out loss`, one an epoch and after the last step.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no rows left to train on; what `fit` raises.

    >>> from cljax import encoders, train
    >>> model, x = encoders.MLP((), 2), jnp.linspace(-1, 1, 40)[:, None]
    >>> def forward(model, params, x, index, key):
    ...     return model.apply(params, x)
    >>> how = dict(steps=50, batch=20, learning_rate=0.1, fit=partial(train.fit, progress=False))
    >>> params, _ = classifier(jax.random.key(0), partial(forward, model), model.init(jax.random.key(1), x), x, jnp.arange(40) // 20, **how)
    >>> jnp.argmax(model.apply(params, jnp.array([[-0.5], [0.5]])), axis=1).tolist()
    [0, 1]
    """
    check.key("key", key)
    if not callable(forward):
        raise TypeError(f"forward must be a function, got {type(forward).__name__}")
    size = check.arrays(labels=(labels, "N", "int"))["N"]
    leaves = jax.tree.leaves(inputs)
    if not leaves or any(np.shape(leaf)[:1] != (size,) for leaf in leaves):
        raise ValueError(f"inputs must have one row for each of the {size} labels, got shapes {[list(np.shape(leaf)) for leaf in leaves]}")
    check.integer("steps", steps, at_least=0)
    check.integer("batch", batch, at_least=1)
    check.number("learning_rate", learning_rate, at_least=0)
    check.number("held_out", held_out, at_least=0, at_most=1)
    kept, whole = int(held_out * size), {"inputs": inputs, "labels": labels}
    if held_out and not 0 < kept < size:
        raise ValueError(f"held_out must leave rows on both sides, got {held_out} of {size}")
    whole = jax.tree.map(jnp.asarray, whole)
    tested, known = jax.tree.map(lambda rows: rows[:kept], whole), jax.tree.map(lambda rows: rows[kept:], whole)
    state = {"params": params, "opt": optax.adam(learning_rate).init(params)}
    after = ()
    if kept:
        state["best"] = best_slot(params)
        hook = keep_best(partial(_validate, forward, tested), "held-out loss", mode="min")
        after = ((max(1, (size - kept) // batch), hook),)
    batches = draws(known, min(int(batch), size - kept))
    state, history = fit(key, state, partial(_step, forward, float(learning_rate)), batches, steps=steps, after=after, name=name)
    return state["best"].params if kept else state["params"], history


def _losses(params, forward, batch, key):
    logits = forward(params, batch["inputs"], None if key is None else batch["index"], key)
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), batch["labels"])


def _objective(params, forward, batch, key):
    values = _losses(params, forward, batch, key)
    return lax.psum(jnp.sum(values), "data") / lax.psum(jnp.float32(len(values)), "data")


def _step(forward, learning_rate, state, batch, key):
    value, grads = jax.value_and_grad(_objective)(state["params"], forward, batch, key)
    params, opt = descend(optax.adam(learning_rate), grads, state["params"], state["opt"], axis_name="data")
    return state | {"params": params, "opt": opt}, {"loss": value}


def _validate(forward, batch, key, state):
    return state, {"held-out loss": jnp.mean(_losses(state["params"], forward, batch, None))}
