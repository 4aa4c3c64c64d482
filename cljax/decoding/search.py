"""Contrastive search: likely tokens whose states are unlike those before them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32, Num

from cljax.core import check, safe_normalize
from cljax.core.compat import vary, varying_axes
from cljax.decoding.generate import Generation, checked, chosen, likeliest, read, write


def contrastive_rank(
    context: Float[ArrayLike, "B S E"],
    candidates: Float[ArrayLike, "B k E"],
    probs: Float[ArrayLike, "B k"],
    *,
    alpha: Num[ArrayLike, ""],
    mask: Bool[ArrayLike, "B S"] | None = None,
) -> Int32[Array, " B"]:
    r"""Chooses among candidates for the next token by their probability, less their likeness to what is there.

    $$\arg\max_v \; (1 - \alpha) \, p_v - \alpha \max_j \cos(h_v, h_j)$$

    Args:
      context: `[B, S, E]`, the states of the tokens so far.
      candidates: `[B, k, E]`, the states that the candidates would have.
      probs: `[B, k]`, their probabilities among all tokens: not renormalised over the k, no logarithms.
      alpha: from 0, which takes the most probable, to 1.
      mask: `[B, S]`, which of the context's tokens are real; the likeness to none is 0.

    Returns:
      int32 `[B]`, which candidate, of equally good ones the first.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Su & Collier, "Contrastive Search Is What You Need For Neural Text Generation", TMLR 2023, equation 2.

    >>> context, candidates = jnp.array([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]]), jnp.array([[[1.0, 0.1], [-1.0, 1.0], [0.0, -1.0]]])
    >>> probs = jnp.array([[0.6, 0.25, 0.15]])
    >>> [contrastive_rank(context, candidates, probs, alpha=alpha).item() for alpha in (0.0, 0.3, 0.6, 1.0)]
    [0, 0, 2, 2]
    """
    check.arrays(context=(context, "B S E"), candidates=(candidates, "B k E"), probs=(probs, "B k"), mask=(mask, "B S?", "bool"))
    check.number("alpha", alpha, at_least=0, at_most=1)
    seen = jnp.ones(jnp.shape(context)[:2], bool) if mask is None else jnp.asarray(mask)
    return _rank(safe_normalize(context), safe_normalize(candidates), jnp.asarray(probs), alpha, seen)


def _rank(context, candidates, probs, alpha, seen):
    """The same of states of unit length."""
    likeness = jnp.where(seen[:, None], jnp.einsum("bke,bse->bks", candidates, context, precision=lax.Precision.HIGHEST), -jnp.inf)
    penalty = jnp.where(jnp.any(seen, axis=1, keepdims=True), jnp.max(likeness, axis=2, initial=-jnp.inf), 0)
    return jnp.argmax((1 - alpha) * probs - alpha * penalty, axis=1).astype(jnp.int32)


def contrastive_search(
    apply: Callable,
    params: Any,
    prompt: Int[ArrayLike, "B L"],
    *,
    steps: int,
    k: int,
    alpha: Num[ArrayLike, ""],
    mask: Bool[ArrayLike, "B L"] | None = None,
    stop: int | None = None,
    pad: int = 0,
    prefix: Float[ArrayLike, "B P D"] | None = None,
    head: Callable | None = None,
) -> Generation:
    r"""Continues each prompt by the token that `contrastive_rank` chooses among the k likeliest; nothing is drawn.

    A candidate's state is the one at its own place, given it as input. The winner's cache, state and next logits are kept, so that a token takes one
    call of the model, with k rows for each of the batch. Padding is never looked at, and a row is what it would be alone.

    Args:
      apply: as for `generate`; its `hidden` are the states, those that enter the output projection. It is given k rows of ids for each row of the
        cache, one after the other, which share what that row holds; in the cache that it returns an array has either the rows of the ids or, where
        it is the same for all candidates, those of the cache. A `Decoder` does so.
      params: its first argument.
      prompt: `[B, L]` ids.
      steps: the number of tokens to write at most.
      k: the number of candidates, at least 1 (greedy) and at most V; 5 in the paper for English, 3 for code.
      alpha: from 0 (greedy) to 1; 0.6 in the paper for English, 0.4 for code.
      mask: `[B, L]`, which of the prompt's tokens are real.
      stop: the token that ends a row.
      pad: the token that follows it.
      prefix: `[B, P, D]`, given to the first call of `apply` as `prefix=`.
      head: as for `generate`; besides, of the k candidates only the winner is projected.

    Returns:
      `Generation`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range, a prompt without a token, or what `apply` raises.

    Reference: Su & Collier, "Contrastive Search Is What You Need For Neural Text Generation", TMLR 2023, section 3.

    >>> table = jnp.array([[2.0, 1.9, 0.0], [0.1, 2.0, 1.9], [2.0, 0.0, 1.9]])
    >>> def apply(params, ids, mask, cache):
    ...     return jax.nn.one_hot(ids, 3), params[ids], jnp.zeros(len(ids))
    >>> for alpha in (0.0, 0.6):
    ...     print(contrastive_search(apply, table, jnp.array([[0]]), steps=3, k=2, alpha=alpha).tokens.tolist())
    [[0, 0, 0]]
    [[1, 2, 0]]
    """
    arrays = checked(apply, head, prompt, mask, prefix, steps, stop, pad)
    check.integer("k", k, at_least=1)
    check.number("alpha", alpha, at_least=0, at_most=1)
    return _search(params, *arrays, alpha, apply=apply, head=head, steps=int(steps), k=int(k), stop=stop, pad=pad)


@partial(jax.jit, static_argnames=("apply", "head", "steps", "k", "stop", "pad"))
def _search(params, prompt, mask, prefix, alpha, *, apply, head, steps, k, stop, pad):
    prompt, mask = vary((prompt, mask), varying_axes(params, prompt, mask, prefix, alpha))
    hidden, logits, cache = read(apply, head, params, prompt, mask, prefix, steps)
    check.integer("k", k, at_most=logits.shape[-1])
    rows, length = prompt.shape

    def step(t, real, state):
        logits, cache, context, seen = state
        largest, ids = likeliest(logits, k)
        chances = largest - jax.nn.logsumexp(logits, axis=1, keepdims=True)
        hidden, following, cache = apply(params, ids.reshape(-1, 1), jnp.repeat(real, k)[:, None], cache=cache)
        states = safe_normalize(hidden).reshape(rows, k, hidden.shape[-1])
        best = _rank(context, states, jnp.exp(chances), alpha, seen)
        winners = jnp.arange(rows) * k + best
        cache = jax.tree.map(lambda leaf: leaf if len(leaf) == rows else leaf[winners], cache)
        following = chosen(lambda x: x[winners, 0], head, params, hidden, following)
        pick = partial(jnp.take_along_axis, indices=best[:, None], axis=1)
        context = lax.dynamic_update_slice_in_dim(context, states[jnp.arange(rows), best][:, None], length + t, axis=1)
        seen = lax.dynamic_update_slice_in_dim(seen, real[:, None], length + t, axis=1)
        return pick(ids)[:, 0], pick(chances)[:, 0], (following, cache, context, seen)

    room = ((0, 0), (0, steps))
    context, seen = jnp.pad(safe_normalize(hidden), (*room, (0, 0))), jnp.pad(mask, room)
    return write(step, (logits, cache, context, seen), rows, steps, stop, pad)
