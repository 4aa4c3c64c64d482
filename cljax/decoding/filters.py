"""Filters of the next token's logits: what is removed becomes -inf, and a filter is a value that programs take."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Num

from cljax.core import check


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["rule", "static"])
@dataclass(frozen=True)
class Filter:
    """A function from logits `[..., V]` to logits of the same shape; a removed token has -inf.

    It is a pytree: `jit` and `vmap` take it as an argument. Equal rules and integers share a compiled program whatever their numbers.

    Attributes:
      rule: a top-level function of the logits, `static` and `values`.
      values: its numbers, arrays and filters, which are traced.
      static: its integers and booleans.
    """

    rule: Callable
    values: tuple = ()
    static: tuple = ()

    def __call__(self, logits: Float[ArrayLike, "*batch V"]) -> Float[Array, "*batch V"]:
        check.arrays(logits=(logits, "... V"))
        logits = jnp.asarray(logits)
        return self.rule(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), *self.static, *self.values)


def temperature(t: Num[ArrayLike, ""]) -> Filter:
    """Divides the logits by t: below 1 the likely tokens become likelier.

    Args:
      t: above 0. (The limit 0 is `generate(greedy=True)`.)

    Raises:
      TypeError, ValueError: t is not a number above 0.

    >>> temperature(0.5)(jnp.array([1.0, -2.0])).tolist()
    [2.0, -4.0]
    """
    check.positive("t", t)
    return Filter(_temperature, (t,))


def top_k(k: int) -> Filter:
    """Keeps the k likeliest tokens, and all that are as likely as the last of them.

    Args:
      k: at least 1, and at most the number of tokens.

    Raises:
      TypeError, ValueError: k is not such an integer.

    Reference: Fan et al., "Hierarchical Neural Story Generation", ACL 2018.

    >>> top_k(2)(jnp.array([0.0, 3.0, 1.0, 2.0])).tolist()
    [-inf, 3.0, -inf, 2.0]
    """
    check.integer("k", k, at_least=1)
    return Filter(_top_k, static=(int(k),))


def top_p(p: Num[ArrayLike, ""], min_keep: int = 1, *, inclusive: bool = False) -> Filter:
    r"""Keeps the nucleus: the likeliest tokens, in order, as long as those before a token have a mass of at most p.

    Of equally likely ones the first go first. The released code, which this follows, removes a token where the mass before it is *more* than p: where
    a sum is p exactly, that is one token more than the smallest set of mass p, which `inclusive=True` keeps.

    Args:
      p: above 0, at most 1, which keeps all.
      min_keep: so many of the likeliest are kept in any case.
      inclusive: whether a mass before a token that is p exactly removes it too.

    Raises:
      TypeError, ValueError: p is outside (0, 1], min_keep outside [1, V], or inclusive no boolean.

    Reference: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.

    >>> (top_p(0.6)(jnp.log(jnp.array([0.15, 0.5, 0.25, 0.1]))) > -jnp.inf).tolist()
    [False, True, True, False]
    """
    _probability("p", p)
    check.integer("min_keep", min_keep, at_least=1)
    if not isinstance(inclusive, bool):
        raise TypeError(f"inclusive must be True or False, got {type(inclusive).__name__}")
    return Filter(_top_p, (p,), (int(min_keep), inclusive))


def typical(mass: Num[ArrayLike, ""], min_keep: int = 1) -> Filter:
    r"""Keeps the tokens whose surprisal is nearest to the entropy, until they have the mass.

    $$\epsilon_v = |{-\log p_v} - H|, \qquad H = -\sum_v p_v \log p_v$$
    The tokens in order of $\epsilon$ up to the first at which their mass is reached are kept, and all whose $\epsilon$ equals that one's: equally
    likely tokens stay or go together. The likeliest token may go.

    Args:
      mass: above 0, at most 1, which keeps all.
      min_keep: so many of the nearest are kept in any case.

    Raises:
      TypeError, ValueError: mass is outside (0, 1], or min_keep outside [1, V].

    Reference: Meister et al., "Locally Typical Sampling", TACL 2023, algorithm 1; of ties as the released code, without its index out of range where
    rounding leaves the sum of all below the mass.

    >>> (typical(0.5)(jnp.log(jnp.array([0.4, 0.2, 0.2, 0.2]))) > -jnp.inf).tolist()
    [False, True, True, True]
    """
    _probability("mass", mass)
    check.integer("min_keep", min_keep, at_least=1)
    return Filter(_typical, (mass,), (int(min_keep),))


def plausibility(alpha: Num[ArrayLike, ""]) -> Filter:
    r"""Keeps the tokens that are at least alpha times as likely as the likeliest one, $p_v \ge \alpha \max_u p_u$.

    Args:
      alpha: from 0, which keeps all, to 1, which keeps the likeliest.

    Raises:
      TypeError, ValueError: alpha is outside [0, 1].

    Reference: Li et al., "Contrastive Decoding", ACL 2023, equation 3 (the adaptive plausibility constraint).

    >>> plausibility(0.5)(jnp.array([0.0, -0.5, -1.0])).tolist()
    [0.0, -0.5, -inf]
    """
    check.number("alpha", alpha, at_least=0, at_most=1)
    return Filter(_plausibility, (alpha,))


def contrastive_logits(negative: Float[ArrayLike, "*batch V"], *, weight: Num[ArrayLike, ""], plausible: Num[ArrayLike, ""] = 0.0) -> Filter:
    r"""Moves the logits z away from other ones, $z + w (z - z^-)$: probabilities proportional to $p^{1 + w} / (p^-)^w$.

    | the negative | is then known as |
    |---|---|
    | the same model without the condition | guidance without a classifier; w = 0 is no guidance, and s elsewhere may be 1 + w |
    | the same model without the image, or with an empty one | debiasing of what the language alone suggests |
    | a smaller model | contrastive decoding |
    | the model after fine-tuning | emulated undoing of the tuning; w = -1 gives the tuned model, w < -1 more than it |

    Filters after it in `compose` act upon the difference. In `generate` the negative logits are those of each step: an `apply` that runs both models
    with both caches and gives `contrastive_logits(z_negative, weight=w)(z)` does it.

    Args:
      negative: `[..., V]` logits, of the shape of those that the filter is given, and finite where they are.
      weight: w, any number.
      plausible: tokens below so many times the likeliest of the *positive* logits are removed first, see `plausibility`; 0: none.

    Returns:
      The filter. A token that is -inf in the logits stays so.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Li et al., "Contrastive Decoding", ACL 2023; Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022, equation 6.

    >>> contrastive_logits(jnp.array([3.0, 0.5, 0.1, -3.0]), weight=1.0, plausible=0.1)(jnp.array([2.0, 1.5, 0.25, -1.0])).tolist()
    [1.0, 2.5, 0.4..., -inf]
    """
    check.arrays(negative=(negative, "... V"), weight=(weight, "", "number"))
    check.number("plausible", plausible, at_least=0, at_most=1)
    return Filter(_contrastive, (negative, weight, plausible))


def compose(*filters: Callable) -> Filter:
    """Filters one after the other; where all tokens would be removed, the likeliest of those that came in is kept.

    Each filter works on the distribution that the one before it leaves. The usual order is temperature, top-k, top-p, typical.

    Args:
      *filters: such as `temperature(0.7), top_p(0.9)`, or any function of logits (give the same one each time, or programs are compiled anew).

    Raises:
      TypeError: one of them can't be called.

    >>> compose(temperature(2.0), top_k(1))(jnp.array([1.0, 4.0])).tolist()
    [-inf, 2.0]
    """
    for filter in filters:
        if not callable(filter):
            raise TypeError(f"filters must be functions of logits, got {type(filter).__name__}")
    return Filter(_compose, tuple(filter if isinstance(filter, Filter) else Filter(filter) for filter in filters))


def _temperature(logits, t):
    return logits / t


def _top_k(logits, k):
    check.integer("k", k, at_most=logits.shape[-1])
    key = _key(-logits)
    return _removed(logits, key > _border(key, 1, k, jnp.greater_equal))


def _top_p(logits, min_keep, inclusive, p):
    bound, beyond = jnp.where(p >= 1, jnp.inf, p), jnp.greater_equal if inclusive else jnp.greater
    key, shares = _key(-logits), jax.nn.softmax(logits)
    last = _border(key, shares, bound, beyond)
    # Of the tokens that are as likely as the last one the first few are kept.
    tied = key == last
    before = jnp.sum(jnp.where(key < last, shares, 0), axis=-1, keepdims=True)
    share = jnp.max(jnp.where(tied, shares, 0), axis=-1, keepdims=True)
    over = tied & beyond(before + share * (jnp.cumsum(tied, axis=-1) - 1), bound)
    return _removed(logits, ((key > last) | over) & ~_first(key, min_keep))


def _typical(logits, min_keep, mass):
    logs = jax.nn.log_softmax(logits)
    shares = jnp.exp(logs)
    entropy = -jnp.sum(jnp.where(shares == 0, 0, shares * logs), axis=-1, keepdims=True)
    key = _key(jnp.abs(-logs - entropy))
    last = _border(key, shares, jnp.where(mass >= 1, jnp.inf, mass), jnp.greater_equal)
    return _removed(logits, (key > last) & ~_first(key, min_keep))


def _plausibility(logits, alpha):
    return _removed(logits, logits < jnp.max(logits, axis=-1, keepdims=True) + jnp.log(alpha))


def _contrastive(logits, negative, weight, plausible):
    shape = jnp.shape(negative)
    if not check.broadcasts(shape, logits.shape):
        raise ValueError(f"negative must have the shape of the logits, {list(logits.shape)}, got {list(shape)}")
    gone = _plausibility(logits, plausible) == -jnp.inf
    return jnp.where(gone, -jnp.inf, logits + weight * jnp.where(gone, 0, logits - negative))


def _compose(logits, *filters):
    kept = logits
    for filter in filters:
        kept = filter(kept)
    best = jnp.argmax(logits, axis=-1, keepdims=True) == jnp.arange(logits.shape[-1])
    return jnp.where(jnp.all(kept == -jnp.inf, axis=-1, keepdims=True) & best, logits, kept)


def _removed(logits, where):
    """The logits without some; a NaN stays, so that it is seen."""
    return jnp.where(where & ~jnp.isnan(logits), -jnp.inf, logits)


def _key(values):
    """Integers in the order of the floats."""
    kind = jnp.dtype(f"int{8 * values.dtype.itemsize}")
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0, values), kind)  # no negative zero
    return jnp.where(bits < 0, bits ^ jnp.iinfo(kind).max, bits)


def _border(keys, shares, bound, reached):
    """The least of the keys at which the mass of all keys up to it has reached the bound; the largest where none has.

    A search by halves reads the keys once for each of their bits, which takes less than a sort. Sums in one order are monotone, rounded too.
    """

    def halve(_, ends):
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        found = reached(jnp.sum(jnp.where(keys <= middle, shares, 0), axis=-1, keepdims=True), bound)
        return jnp.where(found, low, middle + 1), jnp.where(found, middle, high)

    ends = jnp.min(keys, axis=-1, keepdims=True), jnp.max(keys, axis=-1, keepdims=True)
    return lax.fori_loop(0, 8 * keys.dtype.itemsize, halve, ends)[1]


def _first(keys, count):
    """Where the `count` least keys are, of equal ones the first; nowhere for 1, which every filter keeps by itself."""
    check.integer("min_keep", count, at_most=keys.shape[-1])
    if count == 1:
        return False
    last = _border(keys, 1, count, jnp.greater_equal)
    before, tied = keys < last, keys == last
    return before | (tied & (jnp.cumsum(tied, axis=-1) <= count - jnp.sum(before, axis=-1, keepdims=True)))


def _probability(name, value):
    check.positive(name, value)
    check.number(name, value, at_most=1)
