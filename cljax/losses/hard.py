"""Losses that use only the hardest negatives of an anchor, and the simple loss that they repair."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from cljax import pairwise
from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Scalar, Similarity, Temperature, Where
from cljax.pairwise import Sum


def hard_contrastive(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "B D"],
    *,
    k: int,
    temperature: Temperature,
    negatives: Float[ArrayLike, "M D"] | None = None,
    in_batch: bool = True,
    ids: Ids = None,
    key_ids: Ids = None,
    negative_ids: Integer[ArrayLike, "M ..."] | None = None,
    negative_where: Bool[ArrayLike, " M"] | None = None,
    negatives_axis_name: str | None = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""InfoNCE with the k most similar negatives of each query alone.

    $$-\log \frac{\exp(s_{ii}/\tau)}{\exp(s_{ii}/\tau) + \sum_{j \in \text{top-}k} \exp(s_{ij}/\tau)}$$

    Which negatives are kept has no gradient; it goes through the similarities of those kept.

    Args:
      queries, keys, temperature, negatives, in_batch, ids, key_ids, negative_ids, negative_where, negatives_axis_name, where: as in `info_nce`.
      k: how many negatives an anchor keeps, from all sets together; fewer where ids and `where` leave fewer.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.top_k`.

    Returns:
      float32 `[B]`, one value a query.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: as in `info_nce`, or a `k` beyond the number of negatives.

    Reference: Wang & Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, equations 8 and 9, with a fixed k for the quantile.
    """
    how = dict(similarity=similarity, collective=collective, block_size=block_size, implementation=implementation)
    sides = dict(ids=ids, key_ids=key_ids, negative_ids=negative_ids, negative_where=negative_where, negatives_axis_name=negatives_axis_name)
    queries, keys, index, ids, sources = _pairs.sources(queries, keys, negatives, in_batch=in_batch, where=where, axis_name=axis_name, **sides)
    scale = _pairs.scale(temperature, len(index), where)
    scores, found = _hardest(queries, _pairs.present(self=index, ids=ids), sources, k, how)
    own = _pairs.aligned(queries, keys, similarity) * scale
    candidates = jnp.concatenate([own[:, None], scores * scale[:, None]], axis=1)
    return _pairs.drop(where, _pairs.log_sum_exp(candidates, jnp.pad(found, ((0, 0), (1, 0)), constant_values=True)) - own)


def simple_contrastive(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "B D"],
    *,
    k: int | None = None,
    weight: Scalar = 1.0,
    negatives: Float[ArrayLike, "M D"] | None = None,
    in_batch: bool = True,
    ids: Ids = None,
    key_ids: Ids = None,
    negative_ids: Integer[ArrayLike, "M ..."] | None = None,
    negative_where: Bool[ArrayLike, " M"] | None = None,
    negatives_axis_name: str | None = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""The positive against the mean of the negatives, without a softmax; with `k` against the mean of the hardest ("hard simple").

    $$-s_{ii} + \text{weight} \cdot \operatorname{mean}_j s_{ij}$$

    Args:
      queries, keys, negatives, in_batch, ids, key_ids, negative_ids, negative_where, negatives_axis_name, where: as in `info_nce`.
      k: how many negatives an anchor keeps, the most similar ones; by default all.
      weight: of the negatives.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[B]`, one value a query; the mean of no negatives is 0.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: as in `info_nce`, or a `k` beyond the number of negatives.

    Reference: Wang & Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, equation 3 with lambda = weight / (number of negatives used).
    """
    check.arrays(weight=(weight, "", "number"))
    how = dict(similarity=similarity, collective=collective, block_size=block_size, implementation=implementation)
    sides = dict(ids=ids, key_ids=key_ids, negative_ids=negative_ids, negative_where=negative_where, negatives_axis_name=negatives_axis_name)
    queries, keys, index, ids, sources = _pairs.sources(queries, keys, negatives, in_batch=in_batch, where=where, axis_name=axis_name, **sides)
    rows = _pairs.present(self=index, ids=ids)

    def terms(scores, row, column, _):
        kept = _pairs.kept(row, column)
        return Sum(scores, kept), Sum(1.0, kept)

    if k is None:
        total, count = (sum(part) for part in zip(*_pairs.over(sources, queries, terms, rows, how), strict=True))
    else:
        scores, found = _hardest(queries, rows, sources, k, how)
        total, count = jnp.sum(scores, axis=1), jnp.sum(found, axis=1)
    return _pairs.drop(where, weight * total / jnp.maximum(count, 1) - _pairs.aligned(queries, keys, similarity))


def _hardest(queries, rows, sources, k, how):
    """The k largest similarities over all sources, `[B, k]`, and which exist; 0 where fewer do."""
    available = sum(map(_pairs.size, sources))
    check.integer("k", k, at_least=1)
    if k > available:
        raise ValueError(f"k must be at most the number of negatives, {available}, got {k}")
    found = [
        pairwise.top_k(queries, keys, min(k, size), rows=rows, columns=columns, where=_pairs.kept if columns else None, axis_name=axis, **how)
        for keys, columns, axis in sources
        if (size := _pairs.size((keys, columns, axis))) > 0
    ]
    scores, indices = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    exists = indices >= 0
    if scores.shape[1] > k:
        scores, best = lax.top_k(scores, k)
        exists = jnp.take_along_axis(exists, best, axis=1)
    return jnp.where(exists, scores, 0), exists
