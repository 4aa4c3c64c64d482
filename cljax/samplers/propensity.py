"""Weighted draws of partners out of a table of candidates: evenly, by weight, or by weights that undo what a naive rule would prefer."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int32, Integer

from cljax.core import check, gumbel_top_k
from cljax.core.check import KeyLike

Scalar = float | int | Float[ArrayLike, ""]
Index = Integer[ArrayLike, " B"] | None


def inverse_propensity(
    similarity: Float[ArrayLike, "B K"],
    surface: Float[ArrayLike, "B K"],
    *,
    kind: Literal["positive", "negative"],
    temperature: Scalar = 0.1,
    clip: Scalar = 0.05,
    where: Bool[ArrayLike, "B K"] | None = None,
) -> Float[Array, "B K"]:
    r"""Logarithms of weights by which candidates are drawn for what they mean, whatever they look like.

    $$w^+ = \frac{\exp(s / T)}{f + \lambda}, \qquad w^- = \frac{1 - s}{1 - f + \lambda}$$

    s is the similarity of meaning, f that of the surface. A naive rule takes pairs that look alike as positives, with a propensity of about f, and
    random pairs, which don't, as negatives, with about 1 - f. Dividing by the propensity gives positives of the same meaning in other words and
    negatives of another meaning in the same words. With a large $\lambda$ only the meaning counts. A loss may weigh pairs by them instead of drawing:
    `jnp.exp`, over its mean.

    Args:
      similarity: `[B, K]`, how near each candidate is to the anchor in meaning: cosines of a frozen model, at most 1.
      surface: `[B, K]`, how alike the two look, from 0 to 1: the share of common words, say.
      kind: "positive" or "negative".
      temperature: T, of positives alone; above 0.
      clip: $\lambda$, above 0; it bounds the weights.
      where: `[B, K]` booleans, the candidates that exist and may be drawn: not the anchor itself, and for negatives none that is too similar.

    Returns:
      float32 `[B, K]`; -inf for what may not be drawn.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a number that is not positive, an unknown kind.

    Reference: after the abstract of Miao et al., "DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing
    Perspective", CIKM 2023; the weights are a reconstruction. Clipped inverse propensities: Ionides, "Truncated Importance Sampling", 2008.

    >>> weights = jnp.exp(inverse_propensity(jnp.array([[0.9, 0.8]]), jnp.array([[0.8, 0.3]]), kind="positive", temperature=0.2, clip=0.1))
    >>> print(weights.round(2))
    [[100.02 136.5 ]]
    """
    check.choice("kind", kind, ("positive", "negative"))
    check.arrays(similarity=(similarity, "B K"), surface=(surface, "B K"), where=(where, "B K?", "bool"))
    for name, value in (("temperature", temperature), ("clip", clip)):
        check.positive(name, value)
        check.arrays(**{name: (value, "", "number")})
    s, f = (jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)) for x in (similarity, surface))
    log_weights = s / temperature - jnp.log(f + clip) if kind == "positive" else jnp.log(jnp.maximum(1 - s, 0)) - jnp.log(1 - f + clip)
    return log_weights if where is None else jnp.where(where, log_weights, -jnp.inf)


def draw_weighted(key: KeyLike, log_weights: Float[ArrayLike, "B K"], n: int = 1, *, index: Index = None) -> Int32[Array, "B n"]:
    """For each row n of its K candidates, without replacement, each time with probability proportional to the weights of those left.

    Args:
      key: a PRNG key.
      log_weights: `[B, K]` logarithms of weights, which need not sum to 1; -inf is never drawn.
      n: from 1 to K.
      index: integers `[B]`, which example each row is: its draws hang on the key and on it alone. None is 0, 1, ..., B - 1.

    Returns:
      int32 `[B, n]`, places among the K; -1 where no candidate is left.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> draw_weighted(jax.random.key(0), jnp.log(jnp.array([[0.0, 2.0], [1.0, 0.0]]))).tolist()
    [[1], [0]]
    """
    check.key("key", key)
    sizes = check.arrays(log_weights=(log_weights, "B K"), index=(index, "B?", "int"))
    check.integer("n", n, at_least=1, at_most=sizes["K"])
    return _draw(key, log_weights, jnp.arange(sizes["B"]) if index is None else index, n)


def draw_negatives(key: KeyLike, pool: Integer[ArrayLike, "B K"], n: int, *, index: Index = None) -> Int32[Array, "B n"]:
    """For each query n negatives out of its pool, evenly, without replacement, in random order.

    Args:
      key: a PRNG key.
      pool: `[B, K]` integers, the rows of a table of mined candidates (`mine_negatives(...).indices`, made anew from time to time); what is below 0
        is none and is never drawn.
      n: from 1 to K.
      index: integers `[B]`, which example each row is: its draws hang on the key and on it alone. None is 0, 1, ..., B - 1.

    Returns:
      int32 `[B, n]`; -1 where the pool has no more.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Zhang et al., "Adversarial Retriever-Ranker for Dense Text Retrieval" (AR2), ICLR 2022, algorithm 1.

    >>> sorted(draw_negatives(jax.random.key(0), jnp.array([[7, -1, 9]]), 3)[0].tolist())
    [-1, 7, 9]
    """
    check.arrays(pool=(pool, "B K", "int"))
    pool = jnp.asarray(pool)
    places = draw_weighted(key, jnp.where(pool < 0, -jnp.inf, 0.0), n, index=index)
    return jnp.where(places < 0, -1, jnp.take_along_axis(pool, places, axis=1)).astype(jnp.int32)


def draw_hard_or_random(
    key: KeyLike, pool: Integer[ArrayLike, "B K"], total: int, n: int = 1, *, share: Scalar, index: Index = None
) -> Int32[Array, "B n"]:
    """For each query n negatives, each with some probability a hard one out of its pool, else a random one of the whole collection.

    Hard ones come without replacement; where the pool has no more a random one takes its place. Random ones are drawn evenly, and may be what answers
    the query, or another's hard one: give the loss their ids.

    Args:
      key: a PRNG key.
      pool: `[B, K]` integers, rows of a table of mined candidates, as in `draw_negatives`; what is below 0 is none.
      total: how many items the collection has.
      n: from 1 to K.
      share: the probability of a hard one, from 0 to 1.
      index: integers `[B]`, which example each row is: its draws hang on the key and on it alone. None is 0, 1, ..., B - 1.

    Returns:
      int32 `[B, n]`, from 0 to total - 1.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Izacard et al., "Unsupervised Dense Information Retrieval with Contrastive Learning" (Contriever), TMLR 2022, appendix B.1.

    >>> draw_hard_or_random(jax.random.key(0), jnp.array([[7, 9], [-1, -1]]), 5, share=1.0)[:, 0] >= jnp.array([7, 0])
    Array([ True,  True], dtype=bool)
    """
    check.key("key", key)
    check.integer("total", total, at_least=1)
    check.arrays(share=(share, "", "number"))
    check.number("share", share, at_least=0, at_most=1)
    k_hard, *keys = jax.random.split(key, 3)
    hard = draw_negatives(k_hard, pool, n, index=index)
    coin, other = _coins_and_items(*keys, jnp.arange(len(hard)) if index is None else index, n, total)
    return jnp.where((coin < share) & (hard >= 0), hard, other)


@partial(jax.jit, static_argnames="n")
def _draw(key, log_weights, index, n):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return jax.vmap(lambda key, row: gumbel_top_k(key, row, n))(keys, log_weights)


@partial(jax.jit, static_argnames="n")
def _coins_and_items(k_coin, k_item, index, n, total):
    def of_row(index):
        coin, item = (jax.random.fold_in(key, index) for key in (k_coin, k_item))
        return jax.random.uniform(coin, (n,), jnp.float32), jax.random.randint(item, (n,), 0, total, jnp.int32)

    return jax.vmap(of_row)(index)
