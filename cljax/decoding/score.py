"""What a model makes of a text that is there already."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from cljax.core import check, token_log_probs
from cljax.decoding.generate import at_last, single


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

    `continuation_log_probs` picks what they say of the tokens.

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
    prompt, mask, prefix, tokens, token_mask = _checked(apply, prompt, mask, prefix, tokens, token_mask)
    _, logits, real = _read(apply, params, prompt, mask, prefix, tokens, token_mask)
    length = prompt.shape[1]
    first = at_last(logits, real[:, :length])[:, None]
    return single(jnp.concatenate([first, logits[:, length:-1]], axis=1)).reshape(*tokens.shape, logits.shape[-1])


def continuation_log_probs(
    apply: Callable,
    params: Any,
    prompt: Int[ArrayLike, "B L"],
    tokens: Int[ArrayLike, "B *samples T"],
    *,
    mask: Bool[ArrayLike, "B L"] | None = None,
    token_mask: Bool[ArrayLike, "B *samples T"] | None = None,
    prefix: Float[ArrayLike, "B P D"] | None = None,
) -> Float[Array, "B *samples T"]:
    r"""How likely a model finds each token of given continuations, $\log p(y_t \mid x, y_{<t})$: what `generate` tells of its own as `log_probs`.

    Their sum is the log-probability of a continuation, as losses of preferences and policies take it; it is differentiable.

    Args:
      apply, params, prompt, tokens, mask, token_mask, prefix: as in `continuation_logits`.

    Returns:
      float32 of the shape of `tokens`; 0 where a token isn't real, NaN where one that is lies outside the vocabulary.

    Raises:
      TypeError, ValueError: an argument of another kind or shape, or what `apply` raises.

    >>> table = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))  # what follows each token
    >>> found = continuation_log_probs(lambda params, ids, mask: (None, params[ids]), table, jnp.array([[1, 0]]), jnp.array([[1, 0, 0]]))
    >>> jnp.exp(found).round(2).tolist()
    [[0.75, 0.5, 0.25]]
    """
    logits = continuation_logits(apply, params, prompt, tokens, mask=mask, token_mask=token_mask, prefix=prefix)
    return token_log_probs(logits, tokens, token_mask)


def final_states(
    apply: Callable,
    params: Any,
    prompt: Int[ArrayLike, "B L"],
    tokens: Int[ArrayLike, "B *samples T"],
    *,
    mask: Bool[ArrayLike, "B L"] | None = None,
    token_mask: Bool[ArrayLike, "B *samples T"] | None = None,
    prefix: Float[ArrayLike, "B P D"] | None = None,
) -> Float[Array, "B *samples D"]:
    """The state of the last real token of each continuation of a prompt, which has seen all of the text: what a reward model reads.

    Args:
      apply, params, prompt, tokens, mask, token_mask, prefix: as in `continuation_logits`.

    Returns:
      float32 of the shape of `tokens` without its last axis, and D; of an empty continuation it is the prompt's. NaN where a prompt has no token
      either.

    Raises:
      TypeError, ValueError: an argument of another kind or shape, or what `apply` raises.

    Reference: Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback", NeurIPS 2022 (a reward model's score).

    >>> def apply(params, ids, mask):
    ...     return params[ids], None
    >>> final_states(apply, jnp.eye(3), jnp.array([[2]]), jnp.array([[0, 1]]), token_mask=jnp.array([[True, False]])).tolist()
    [[1.0, 0.0, 0.0]]
    """
    prompt, mask, prefix, tokens, token_mask = _checked(apply, prompt, mask, prefix, tokens, token_mask)
    hidden, _, real = _read(apply, params, prompt, mask, prefix, tokens, token_mask)
    return single(at_last(hidden, real)).reshape(*tokens.shape[:-1], hidden.shape[-1])


def until(tokens: Int[ArrayLike, "*batch T"], stop: int) -> Bool[Array, "*batch T"]:
    """Which tokens of texts are real: those up to the first stop token, itself among them, as in the `mask` of `generate`.

    Args:
      tokens: integers `[..., T]`, such as texts that were kept without their mask.
      stop: the token that ends a text.

    Returns:
      `[..., T]` booleans.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    >>> until(jnp.array([[5, 2, 7, 2], [5, 6, 7, 8]]), 2).tolist()
    [[True, True, False, False], [True, True, True, True]]
    """
    check.arrays(tokens=(tokens, "... T", "int"))
    check.integer("stop", stop)
    ends = (jnp.asarray(tokens) == stop).astype(jnp.int32)
    return jnp.cumsum(ends, axis=-1) - ends == 0


def _checked(apply, prompt, mask, prefix, tokens, token_mask):
    """The arguments as arrays, with masks of all tokens where there are none."""
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
    mask = jnp.ones(jnp.shape(prompt), bool) if mask is None else jnp.asarray(mask)
    token_mask = jnp.ones(shape, bool) if token_mask is None else jnp.asarray(token_mask)
    return jnp.asarray(prompt), mask, prefix if prefix is None else jnp.asarray(prefix), jnp.asarray(tokens), token_mask


def _read(apply, params, prompt, mask, prefix, tokens, token_mask):
    """What the model gives of the whole texts, a row for each continuation, and which of their tokens are real."""
    samples = tokens.shape[1] if tokens.ndim == 3 else 1
    ids, real = (
        jnp.concatenate([jnp.repeat(before, samples, axis=0), after.reshape(-1, after.shape[-1])], axis=1)
        for before, after in ((prompt, tokens), (mask, token_mask))
    )
    front = {} if prefix is None else {"prefix": jnp.repeat(prefix, samples, axis=0)}
    return *apply(params, ids, real, **front)[:2], real
