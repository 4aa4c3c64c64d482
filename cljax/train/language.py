"""A language model: a decoder that learns to predict the next token, in a stage that several scripts share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int, PyTree

from cljax.core import apply_with_dropout, check
from cljax.core.check import KeyLike
from cljax.train.draws import draws
from cljax.train.fit import fit as train_fit
from cljax.train.minimise import minimise
from cljax.train.schedules import rise_and_fall


def language_model(
    key: KeyLike,
    model: Any,
    tokens: Int[ArrayLike, "..."],
    *,
    steps: int,
    mask: Bool[ArrayLike, "N L"] | None = None,
    params: PyTree = None,
    batch: int = 16,
    length: int = 48,
    learning_rate: float | int = 1e-3,
    warm_up: int = 50,
    decay: bool = False,
    weight_decay: float | int = 0.01,
    clip: float | int | None = None,
    penalty: Callable | None = None,
    fit: Callable = train_fit,
    name: str = "language model",
) -> tuple[PyTree, dict[str, Array | np.ndarray]]:
    r"""Trains a decoder by AdamW to predict each token from those before it: the mean over a batch of $-\log p(x_{t+1} \mid x_{\le t})$ falls.

    It is one shared stage of `fit`: arms and scripts that ask for the same model on the same tokens with the same key train it once and read it from
    then on, where `fit` has a folder.

    Args:
      key: a PRNG key, of the first parameters and of the batches.
      model: a Linen module such as `encoders.Decoder`: `apply(params, ids [B, L], mask [B, L])` gives `(hidden [B, L, D], logits [B, L, V])`. With a
        `dropout` above 0 it is called with `train=True`, each example with a key of its own.
      tokens: `[N]`, one long text, of which windows are drawn anywhere; or `[N, L]`, a text a row, drawn in epochs.
      steps: the number of steps.
      mask: `[N, L]`, which tokens of the rows are real. None: all.
      params: parameters to begin with. None: `model.init`.
      batch: windows or rows a step.
      length: the tokens that a window has the model read; of each the next one is predicted, so the window is one token longer. Rows have their own.
      learning_rate: the rate of AdamW, after the warm-up.
      warm_up: steps in which the rate rises to it in a line, at least 0; see `rise_and_fall`.
      decay: whether the rate then falls in a line, to 0 behind the last step.
      weight_decay: that of AdamW, of all parameters.
      clip: the largest norm of the gradient. None: any.
      penalty: what is added to the loss, a top-level function, with values bound by `functools.partial`: `penalty(hidden, mask=mask)` gives a scalar
        of the states and of which tokens are real. The axis "data" is bound: SimCTG is `partial(losses.simctg, axis_name="data")`.
      fit: `train.fit`, or what a study hands to `run`.
      name: the stage's name.

    Returns:
      `(params, history)`; history holds `loss`, in nats a token, and with a penalty `penalty`, `[steps]` each.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; tokens with no room for a window; what `fit` raises.

    Reference: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; the penalty: Su et al. (SimCTG), NeurIPS 2022, equation 3.

    >>> from cljax import encoders, train
    >>> model, text = encoders.Decoder(8, 16, layers=1, heads=2, positions="rotary"), jnp.tile(jnp.arange(8), 20)
    >>> how = dict(length=8, learning_rate=0.01, warm_up=5, fit=partial(train.fit, progress=False))
    >>> params, history = language_model(jax.random.key(0), model, text, steps=60, **how)
    >>> bool(history["loss"][-1] < 0.5 < 2 < history["loss"][0])
    True
    """
    check.key("key", key)
    for option, value, least in (("steps", steps, 0), ("batch", batch, 1), ("length", length, 1), ("warm_up", warm_up, 0)):
        check.integer(option, value, at_least=least)
    for option, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
        check.number(option, value, at_least=0)
    if clip is not None:
        check.positive("clip", clip)
    if penalty is not None and not callable(penalty):
        raise TypeError(f"penalty must be a function, got {type(penalty).__name__}")
    k_init, k_fit = jax.random.split(key)
    data = _batches(tokens, mask, batch, length)
    rates = float(learning_rate), float(weight_decay), warm_up, steps if decay else None, clip if clip is None else float(clip)
    if params is None:
        params = jax.jit(model.init)(k_init, jnp.zeros((1, 2), jnp.int32))
    how = dict(optimiser=partial(_optimiser, *rates), steps=steps, name=name, shared=True, fit=fit)
    variables, history = minimise(k_fit, partial(_objective, model, penalty), {"params": params}, data, **how)
    return variables["params"], history


def _batches(tokens, mask, batch, length):
    """What `fit` draws from: rows in epochs, or windows."""
    if np.ndim(tokens) == 2:
        sizes = check.arrays(tokens=(tokens, "N L", "int"), mask=(mask, "N L?", "bool"))
        if sizes["L"] < 2:
            raise ValueError(f"tokens must have rows of two tokens at least, one to read and one to predict, got {list(np.shape(tokens))}")
        return draws({"ids": tokens, "mask": jnp.ones(np.shape(tokens), bool) if mask is None else mask}, int(batch))
    sizes = check.arrays(tokens=(tokens, "N", "int"))
    if mask is not None:
        raise ValueError("mask is of the rows of tokens [N, L]: one long text [N] has none")
    if sizes["N"] <= length:
        raise ValueError(f"tokens must hold more than the {length} tokens of a window, got {sizes['N']}")
    return draws({"tokens": tokens}, partial(_windows, int(batch), int(length)))


def _windows(batch, length, key, arrays, t):
    tokens = arrays["tokens"]
    start = jax.random.randint(key, (batch, 1), 0, len(tokens) - length)
    ids = tokens[start + jnp.arange(length + 1)]
    return {"ids": ids, "mask": jnp.ones(ids.shape, bool), "index": jnp.arange(batch)}


def _optimiser(rate, weight_decay, warm_up, fall, clip):
    schedule = rise_and_fall(rate, warm_up=warm_up, steps=fall)
    clipping = [] if clip is None else [optax.clip_by_global_norm(clip)]
    return optax.chain(*clipping, optax.scale_by_adam(), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(schedule))


def _objective(model, penalty, variables, batch, key):
    ids, mask = batch["ids"], batch["mask"]
    hidden, logits = apply_with_dropout(model, variables["params"], ids[:, :-1], mask[:, :-1], key=key, index=batch["index"])
    counted = mask[:, :-1] & mask[:, 1:]
    surprisal = optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:])
    count = lax.psum(jnp.sum(counted, dtype=jnp.float32), "data")
    found = {"loss": lax.psum(jnp.sum(jnp.where(counted, surprisal, 0)), "data") / jnp.maximum(count, 1)}
    if penalty is not None:
        found["penalty"] = penalty(hidden, mask=mask[:, :-1])
    return sum(found.values()), found
