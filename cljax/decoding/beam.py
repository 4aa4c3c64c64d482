"""Beam search: the likeliest text that a search in some breadth finds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Bool, Float, Int, Num

from cljax.core import check
from cljax.core.compat import vary, varying_axes
from cljax.decoding.generate import Generation, checked, chosen, likeliest, read


def beam_search(
    apply: Callable,
    params: Any,
    prompt: Int[ArrayLike, "B L"],
    *,
    steps: int,
    beams: int,
    length_penalty: Num[ArrayLike, ""] = 1.0,
    mask: Bool[ArrayLike, "B L"] | None = None,
    stop: int | None = None,
    pad: int = 0,
    prefix: Float[ArrayLike, "B P D"] | None = None,
    head: Callable | None = None,
) -> Generation:
    r"""Continues each prompt by the likeliest of a few texts that are continued side by side, $\arg\max_y \log p(y | x) / |y|^\lambda$.

    In each step the texts with the greatest sums of log-probabilities are kept, out of all tokens behind all texts; one that has its stop token stays
    as it is, and its sum. Lengths count in the end only. With one beam it is greedy. A token takes one call of the model, with a row for each text.

    Args:
      apply, params, prompt, mask, stop, pad, prefix, head: as for `generate`.
      steps: the number of tokens to write at most.
      beams: how many texts of each prompt, at least 1 and at most V; 4 or 5 in most papers.
      length_penalty: $\lambda$; 0 takes the likeliest text, short ones are; 1 the one with the likeliest tokens.

    Returns:
      `Generation`, the best text of each prompt. NaN where the model's logits held a NaN.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range, a prompt without a token, or what `apply` raises.

    Reference: Wu et al., "Google's Neural Machine Translation System", 2016, section 7, with this simpler penalty of the usual library.

    >>> table = jnp.log(jnp.array([[0.0, 0.6, 0.4], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))  # what follows each token
    >>> def apply(params, ids, mask, cache):
    ...     return params[ids], params[ids], jnp.zeros(len(ids))
    >>> for beams in (1, 2):
    ...     found = beam_search(apply, table, jnp.array([[0]]), steps=2, beams=beams)
    ...     print(found.tokens.tolist(), float(jnp.exp(found.log_probs.sum())).__round__(2))
    [[1, 0]] 0.3
    [[2, 2]] 0.4
    """
    arrays = checked(apply, head, prompt, mask, prefix, steps, stop, pad)
    check.integer("beams", beams, at_least=1)
    check.number("length_penalty", length_penalty, at_least=0)
    return _search(params, *arrays, length_penalty, apply=apply, head=head, steps=int(steps), beams=int(beams), stop=stop, pad=pad)


@partial(jax.jit, static_argnames=("apply", "head", "steps", "beams", "stop", "pad"))
def _search(params, prompt, mask, prefix, length_penalty, *, apply, head, steps, beams, stop, pad):
    prompt, mask = vary((prompt, mask), varying_axes(params, prompt, mask, prefix, length_penalty))
    _, logits, cache = read(apply, head, params, prompt, mask, prefix, steps)
    check.integer("beams", beams, at_most=logits.shape[-1])
    rows = len(prompt)
    first = jnp.arange(rows)[:, None] * beams

    def go_on(carry):
        t, real, *_ = carry
        return (t < steps) & jnp.any(real)

    def advance(carry):
        t, real, scores, found, logits, cache = carry
        best, ids = likeliest(jax.nn.log_softmax(logits), beams)
        stays = jnp.where(jnp.arange(beams) == 0, 0, -jnp.inf)  # the one continuation of a text that has ended
        best, ids = jnp.where(real[:, None], best, stays), jnp.where(real[:, None], ids, pad)
        scores, place = lax.top_k((scores[:, :, None] + best.reshape(rows, beams, beams)).reshape(rows, beams * beams), beams)
        parents = (first + place // beams).ravel()
        pick = lambda each: each[parents, (place % beams).ravel()]  # noqa: E731
        tokens, log_probs = pick(ids), pick(best)
        found, cache, real = jax.tree.map(lambda leaf: leaf[parents], (found, cache, real))
        new = Generation(tokens, real, jnp.where(real, log_probs, 0))
        found = jax.tree.map(lambda whole, column: whole.at[:, t].set(column), found, new)
        hidden, logits, cache = apply(params, tokens[:, None], real[:, None], cache=cache)
        real = real if stop is None else real & (tokens != stop)
        return t + 1, real, scores, found, chosen(lambda x: x[:, 0], head, params, hidden, logits), cache

    count = rows * beams
    empty = Generation(jnp.full((count, steps), pad, jnp.int32), jnp.zeros((count, steps), bool), jnp.zeros((count, steps), jnp.float32))
    logits, cache = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), (logits, cache))
    scores = jnp.tile(jnp.where(jnp.arange(beams) == 0, 0, -jnp.inf).astype(jnp.float32), (rows, 1))  # all begin alike: one goes on
    start = vary((jnp.ones(count, bool), scores, empty, logits, cache), varying_axes((logits, cache)))
    _, _, scores, found, *_ = lax.while_loop(go_on, advance, (0, *start))
    length = jnp.maximum(jnp.sum(found.mask, axis=1), 1).reshape(rows, beams).astype(scores.dtype)
    winner = first[:, 0] + jnp.argmax(scores / length**length_penalty, axis=1)
    return jax.tree.map(lambda leaf: leaf[winner], found)
