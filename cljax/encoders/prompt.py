"""Prompt tuning: vectors in front of every text, which are what a decoder learns."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from cljax.core import check
from cljax.encoders.decoder import Cache, Decoder


@functools.cache
def prompted(model: Decoder) -> Callable:
    r"""The `apply` of a decoder with a prompt of vectors in front of every text; trained alone, they tune a large model by few numbers.

    What is a first call for `decoding.generate` reads the prompt, later ones find it in the cache; equal models give one and the same function, so
    that nothing compiles twice.

    Args:
      model: a `Decoder`.

    Returns:
      `apply({"prompt": ..., "model": ...}, ids, mask=None, cache=None)`, with the prompt `[P, D]` floats and the decoder's variables; it returns what
      `model.apply` does, of the ids alone. A cache needs P places more.

    Raises:
      TypeError: the model is no `Decoder`.
      ValueError: a prompt of another shape; what `Decoder` raises.

    Reference: Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021.

    >>> import jax
    >>> model, ids = Decoder(10, 8, layers=1, heads=2), jnp.array([[5, 7, 3]])
    >>> variables = jax.jit(model.init)(jax.random.key(0), ids)
    >>> words = {"prompt": variables["params"]["tokens"][jnp.array([4, 6])], "model": variables}  # such as those of two tokens
    >>> _, logits = prompted(model)(words, ids)
    >>> bool(jnp.allclose(logits, model.apply(variables, jnp.array([[4, 6, 5, 7, 3]]))[1][:, 2:], atol=1e-5))
    True
    """
    if not isinstance(model, Decoder):
        raise TypeError(f"model must be a Decoder, got {type(model).__name__}")
    return functools.partial(_apply, model)


def _apply(model, params, ids, mask=None, cache=None):
    check.arrays(prompt=(params["prompt"], f"P {model.features}"))
    if isinstance(cache, Cache):
        return model.apply(params["model"], ids, mask, cache)
    prompt = jnp.asarray(params["prompt"])
    prefix = jnp.broadcast_to(prompt, (len(ids), *prompt.shape))
    return model.apply(params["model"], ids, mask, cache if cache is None else cache + len(prompt), prefix)
