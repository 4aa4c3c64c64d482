"""One compiled loop that writes a text token by token."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.core.compat import vary, varying_axes
from cljax.decoding.filters import compose


class Generation(NamedTuple):
    """What was written; `[..., steps]` is `[B, steps]`, or `[B, samples, steps]` where a number of samples was asked for.

    Attributes:
      tokens: int32 `[..., steps]`; `pad` behind the stop token.
      mask: `[..., steps]`, the tokens that are real, the stop token among them.
      log_probs: float32 `[..., steps]`, the logarithms of the tokens' probabilities before any filter, 0 behind the stop token. NaN where the model's
        logits held a NaN: what follows there is worth nothing.
    """

    tokens: Int32[Array, "*batch steps"]
    mask: Bool[Array, "*batch steps"]
    log_probs: Float[Array, "*batch steps"]


def generate(
    key: KeyLike | None,
    apply: Callable,
    params: Any,
    prompt: Int[ArrayLike, "B L"],
    *,
    steps: int,
    mask: Bool[ArrayLike, "B L"] | None = None,
    filter: Callable | None = None,
    greedy: bool = False,
    stop: int | None = None,
    pad: int = 0,
    samples: int | None = None,
    index: Int[ArrayLike, " B"] | None = None,
    prefix: Float[ArrayLike, "B P D"] | None = None,
    head: Callable | None = None,
) -> Generation:
    r"""Continues each prompt by tokens drawn one after the other, $x_t \sim \text{softmax}(f(z_t))$ with the logits z and a filter f.

    The prompt is read once; then each token takes one call of the model with a cache, in one compiled loop, which ends early where all rows have
    their stop token. It is compiled once for equal shapes, `apply`, `steps` and kinds of filters: other parameters, prompts, masks and numbers of
    the filters share the program.

    Args:
      key: a PRNG key; None with `greedy`.
      apply: `apply(params, ids, mask, cache=)` gives `(hidden, logits, cache)`, as a `Decoder`'s: at first with the whole prompt and an integer, the
        number of places; then with one token a row, `[B, 1]`, and the cache of the call before, a pytree whose arrays have the rows in front. Give
        the same function each time (`module.apply` is).
      params: its first argument.
      prompt: `[B, L]` ids.
      steps: the number of tokens to write at most.
      mask: `[B, L]`, which of the prompt's tokens are real; prompts of unequal lengths are padded on either side, which changes nothing.
      filter: a function of logits `[..., V]` such as `top_p(0.9)` or what `compose` makes; None draws from the model itself. Where it removes all
        tokens, the likeliest is kept.
      greedy: takes the likeliest token that the filter leaves, the first of equal ones.
      stop: the token that ends a row.
      pad: the token that follows it.
      samples: how many continuations of each prompt; None: one, without an axis for them.
      index: `[B]`, the number of each row, 0 to B - 1 by default: a row's draws depend on the key and on its number, not on the other rows. Where
        a batch is split over devices, the numbers that its rows have in the whole give the same texts as one device.
      prefix: `[B, P, D]`, given to the first call of `apply` as `prefix=`.
      head: `head(params, hidden)` gives the logits of states, as `Decoder.head`. With it the logits of `apply` are not made: of a prompt only those
        behind its last token are, which saves most of the memory where prompts are long and the vocabulary is large.

    Returns:
      `Generation`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range, a prompt without a token, or what `apply` and the filter raise, such as for
        more tokens than the model has places.

    Reference: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.

    >>> table = jnp.log(jnp.array([[0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0]]))  # what follows each token
    >>> def apply(params, ids, mask, cache):
    ...     return params[ids], params[ids], jnp.zeros(len(ids))
    >>> found = generate(None, apply, table, jnp.array([[0], [1]]), steps=4, greedy=True, stop=2)
    >>> found.tokens.tolist(), found.mask.sum(axis=1).tolist()
    ([[1, 2, 0, 0], [2, 0, 0, 0]], [2, 1])
    """
    if key is not None or not greedy:
        check.key("key", key)
    arrays = checked(apply, head, prompt, mask, prefix, steps, stop, pad)
    rows = np.arange(len(arrays[0])) if index is None else index
    check.arrays(prompt=(prompt, "B L", None), index=(rows, "B", "int"))
    if samples is not None:
        check.integer("samples", samples, at_least=1)
    if not isinstance(greedy, bool):
        raise TypeError(f"greedy must be True or False, got {type(greedy).__name__}")
    filter = filter if filter is None else compose(filter)
    how = dict(apply=apply, head=head, steps=int(steps), greedy=greedy, stop=stop, pad=pad, samples=samples)
    return _generate(key, params, *arrays, jnp.asarray(rows), filter, **how)


@partial(jax.jit, static_argnames=("apply", "head", "steps", "greedy", "stop", "pad", "samples"))
def _generate(key, params, prompt, mask, prefix, rows, filter, *, apply, head, steps, greedy, stop, pad, samples):
    prompt, mask, rows = vary((prompt, mask, rows), varying_axes(key, params, prompt, mask, prefix, rows, filter))
    _, logits, cache = read(apply, head, params, prompt, mask, prefix, steps)
    keys = None if greedy else jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    if samples is not None:
        logits, cache, keys = jax.tree.map(lambda leaf: jnp.repeat(leaf, samples, axis=0), (logits, cache, keys))
        keys = None if greedy else jax.vmap(jax.random.fold_in)(keys, jnp.tile(jnp.arange(samples), len(prompt)))

    def step(t, real, state):
        logits, cache = state
        kept = logits if filter is None else filter(logits)
        scores = kept if greedy else kept + noise(keys, t, kept)
        tokens = likeliest(scores, 1)[1].ravel()  # `argmax` with the noise fused into it takes three times as long on a processor
        log_probs = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logits, axis=1)
        hidden, logits, cache = apply(params, tokens[:, None], real[:, None], cache=cache)
        return tokens, log_probs, (chosen(lambda x: x[:, 0], head, params, hidden, logits), cache)

    found = write(step, (logits, cache), len(logits), steps, stop, pad)
    return found if samples is None else jax.tree.map(lambda leaf: leaf.reshape(len(prompt), samples, steps), found)


def noise(keys, t, logits):
    """What makes the largest of logits a draw from their softmax, of each row by its own key."""
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, t), logits.shape[1:], logits.dtype))(keys)


def checked(apply, head, prompt, mask, prefix, steps, stop, pad):
    """Raises where prompts are none; returns them, their mask and their prefix as arrays."""
    if not callable(apply):
        raise TypeError(f"apply must be a function, got {type(apply).__name__}")
    if head is not None and not callable(head):
        raise TypeError(f"head must be a function or None, got {type(head).__name__}")
    sizes = check.arrays(prompt=(prompt, "B L", "int"), mask=(mask, "B L?", "bool"), prefix=(prefix, "B P D?"))
    check.integer("steps", steps, at_least=1)
    if stop is not None:
        check.integer("stop", stop, at_least=0)
    check.integer("pad", pad, at_least=0)
    mask = np.ones(jnp.shape(prompt), bool) if mask is None else mask
    if not sizes["L"] or not isinstance(mask, jax.core.Tracer) and not np.all(np.any(mask, axis=1)):
        raise ValueError("prompt must have a real token in each row, such as one that begins a text")
    return jnp.asarray(prompt), jnp.asarray(mask), None if prefix is None else jnp.asarray(prefix)


def read(apply, head, params, prompt, mask, prefix, steps):
    """Reads the prompts into a cache with room for so many more: the states of all tokens, the logits behind each row's last real one, the cache."""
    length = prompt.shape[1]
    front = {} if prefix is None else {"prefix": prefix}
    places = length + steps + (0 if prefix is None else prefix.shape[1])
    hidden, logits, cache = apply(params, prompt, mask, cache=places, **front)
    return hidden, chosen(partial(at_last, mask=mask), head, params, hidden, logits), cache


def at_last(values, mask):
    """Of `[B, L, ...]` what stands at each row's last real token; the mask may be of the first tokens alone. NaN where a row has no token."""
    last = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), -1), axis=1)
    last = jnp.where(last < 0, values.shape[1], last)  # out of range
    return jnp.take_along_axis(values, last[:, None, None], axis=1, mode="fill", fill_value=jnp.nan)[:, 0]


def chosen(choose, head, params, hidden, logits):
    """The logits of some states. Where a head makes them, nobody asks for those of the model, and the compiler leaves them out."""
    return single(choose(logits) if head is None else head(params, choose(hidden)))


def write(step, state, rows, steps, stop, pad):
    """Repeats `step(t, real [R], state) -> tokens [R], log_probs [R], state` until all rows have stopped, at most `steps` times."""

    def go_on(carry):
        t, done, _, _ = carry
        return (t < steps) & ~jnp.all(done)

    def advance(carry):
        t, done, found, state = carry
        real = ~done
        tokens, log_probs, state = step(t, real, state)
        new = jnp.where(real, tokens, pad).astype(jnp.int32), real, jnp.where(real, log_probs, 0)
        found = jax.tree.map(lambda whole, row: whole.at[t].set(row), found, Generation(*new))
        return t + 1, done if stop is None else done | (tokens == stop), found, state

    empty = Generation(jnp.full((steps, rows), pad, jnp.int32), jnp.zeros((steps, rows), bool), jnp.zeros((steps, rows), jnp.float32))
    start = vary((jnp.zeros(rows, bool), empty, state), varying_axes(state))
    _, _, found, _ = lax.while_loop(go_on, advance, (0, *start))
    return jax.tree.map(jnp.transpose, found)


def likeliest(logits, k):
    """`lax.top_k`, of many logits from the k groups with the largest maxima, in which the k largest lie: its time grows with the number it sorts."""
    size = 2 ** round(math.log2(max(1, logits.shape[1] / 8)) / 2)
    groups = -(-logits.shape[1] // size)
    if groups <= 4 * k:
        return lax.top_k(logits, k)
    grouped = jnp.pad(logits, ((0, 0), (0, groups * size - logits.shape[1])), constant_values=-jnp.inf).reshape(len(logits), groups, size)
    chosen = jnp.sort(lax.top_k(jnp.max(grouped, axis=2), k)[1], axis=1)  # in their order, so that of equal logits the first is taken
    values, places = lax.top_k(jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(len(logits), k * size), k)
    return values, jnp.take_along_axis(chosen, places // size, axis=1) * size + places % size


def single(x):
    """At least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
