"""What a model makes of a text that is there already."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from cljax.core import check
from cljax.decoding.generate import single


def continuation_logits(
    apply: Callable,
    params: Any,
    prompt: Int[ArrayLike, "B L"],
    tokens: Int[ArrayLike, "B *samples T"],
    *,
    mask: Bool[ArrayLike, "B L"] | None = None,
    token_mask: Bool[ArrayLike, "B *samples T"] | None = None,
    prefix: Float[ArrayLike, "B P D"] | None = None,
) -> Float[Array, "B *samples T V"]:
    r"""The logits from which a model would have drawn each token of given continuations of prompts, in one pass and differentiably.

    `losses.sequence_logprob(logits, tokens, token_mask)` is the log-probability of each continuation, of what `generate` returns the sum of its
    `log_probs`.

    Args:
      apply: `apply(params, ids, mask)` gives `(hidden, logits)`, as a `Decoder`'s.
      params: its first argument.
      prompt: `[B, L]` ids.
      tokens: `[B, T]`, or `[B, S, T]`: S continuations of each prompt.
      mask: `[B, L]`, which of the prompt's tokens are real; padding on either side changes nothing.
      token_mask: which of `tokens` are real, of their shape; the others stand behind those of a row.
      prefix: `[B, P, D]`, given to `apply` as `prefix=`.

    Returns:
      float32 of the shape of `tokens` and V: those at t predict token t. NaN where a prompt has no token.

    Raises:
      TypeError, ValueError: an argument of another kind or shape, or what `apply` raises.

    >>> table = jnp.log(jnp.array([[0.25, 0.75, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]))  # what follows each token
    >>> logits = continuation_logits(lambda params, ids, mask: (None, params[ids]), table, jnp.array([[0, 1, 2]]), jnp.array([[0, 1]]))
    >>> jnp.exp(logits).round(2).tolist()
    [[[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]]]
    """
    if not callable(apply):
        raise TypeError(f"apply must be a function, got {type(apply).__name__}")
    what = dict(prompt=(prompt, "B L", "int"), mask=(mask, "B L?", "bool"), tokens=(tokens, "... T", "int"), token_mask=(token_mask, "...?", "bool"))
    sizes = check.arrays(**what, prefix=(prefix, "B P D?"))
    shape, (rows, length, new) = jnp.shape(tokens), (sizes[name] for name in "BLT")
    if len(shape) not in (2, 3) or shape[0] != rows:
        raise ValueError(f"tokens must have shape [{rows}, T] or [{rows}, S, T] as prompt has {rows} rows, got {list(shape)}")
    if token_mask is not None and jnp.shape(token_mask) != shape:
        raise ValueError(f"token_mask must have the shape of tokens, {list(shape)}, got {list(jnp.shape(token_mask))}")
    if not length or not new:
        raise ValueError(f"prompt and tokens must hold a token each, got shapes {list(jnp.shape(prompt))} and {list(shape)}")
    samples = shape[1] if len(shape) == 3 else 1
    mask = jnp.ones(jnp.shape(prompt), bool) if mask is None else jnp.asarray(mask)
    token_mask = jnp.ones(shape, bool) if token_mask is None else jnp.asarray(token_mask)
    ids, real = (
        jnp.concatenate([jnp.repeat(jnp.asarray(before), samples, axis=0), jnp.reshape(after, (-1, new))], axis=1)
        for before, after in ((prompt, tokens), (mask, token_mask))
    )
    front = {} if prefix is None else {"prefix": jnp.repeat(jnp.asarray(prefix), samples, axis=0)}
    logits = apply(params, ids, real, **front)[1]
    last = jnp.max(jnp.where(real[:, :length], jnp.arange(length), -1), axis=1)
    first = jnp.take_along_axis(logits, jnp.where(last < 0, logits.shape[1], last)[:, None, None], axis=1, mode="fill", fill_value=jnp.nan)
    found = jnp.concatenate([first, logits[:, length:-1]], axis=1)
    return single(found).reshape(*shape, -1)
