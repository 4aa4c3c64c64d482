"""Measures of a ranked list, one value a query.

The rules that all share:
  A tie counts against: of items with the same score those that are less relevant stand first. A scorer that says the same of all items gets the worst
  value that its list can have, not the best. A query without a relevant item has no value: it is left out of `losses.mean` by the `where` of the
  `Masked` that is returned. `where` [Q, N] names the items that exist; any other (padding) is neither ranked nor relevant. A query with a NaN among
  its scores has the value NaN.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Bool, Float, Integer, Num, Shaped

from cljax import pairwise
from cljax.core import check
from cljax.losses import Masked

Scores = Num[ArrayLike, "Q N"]
Relevance = Shaped[ArrayLike, "Q N"]
Where = Bool[ArrayLike, "Q N"] | None


def recall_at_k(scores: Scores, relevance: Relevance, k: int, *, where: Where = None) -> Masked:
    r"""The share of a query's relevant items that stand among the first k, $|\text{top}_k \cap \text{rel}| / |\text{rel}|$.

    With one relevant item a query it is the hit rate.

    Args:
      scores: `[Q, N]`, higher is better.
      relevance: `[Q, N]` booleans or numbers; above 0 is relevant.
      k: from 1 to N.
      where: `[Q, N]` booleans, the items that exist.

    Returns:
      `Masked` of float32 `[Q]`; ties count against, queries without a relevant item are left out.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax.numpy as jnp
    >>> recall_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]]), k=2).values.tolist()
    [0.5]
    """
    ranked, valid = _ranked(scores, relevance, where, k)
    hits = jnp.sum(ranked[:, :k] > 0, axis=1)
    return _masked(hits / _at_least_one(jnp.sum(ranked > 0, axis=1)), ranked, valid)


def mrr_at_k(scores: Scores, relevance: Relevance, k: int, *, where: Where = None) -> Masked:
    """The reciprocal rank of a query's first relevant item, 0 where none stands among the first k; the mean is the MRR@k.

    Args:
      scores: `[Q, N]`, higher is better.
      relevance: `[Q, N]` booleans or numbers; above 0 is relevant.
      k: from 1 to N; N for the MRR over the whole list.
      where: `[Q, N]` booleans, the items that exist.

    Returns:
      `Masked` of float32 `[Q]`; ties count against, queries without a relevant item are left out.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax.numpy as jnp
    >>> mrr_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[0, 1, 1]]), k=3).values.tolist()
    [0.5]
    """
    ranked, valid = _ranked(scores, relevance, where, k)
    relevant = ranked[:, :k] > 0
    first = jnp.argmax(relevant, axis=1)
    return _masked(jnp.where(relevant.any(axis=1), 1 / (first + 1), 0), ranked, valid)


def ndcg_at_k(scores: Scores, relevance: Relevance, k: int, *, where: Where = None) -> Masked:
    r"""The discounted cumulative gain of the first k items over that of the best order, $\sum_{r \le k} g_r / \log_2(1 + r)$.

    The gain g is the relevance itself, as in trec_eval and scikit-learn; for the exponential gain give `2 ** relevance - 1`.

    Args:
      scores: `[Q, N]`, higher is better.
      relevance: `[Q, N]` booleans or numbers, at least 0.
      k: from 1 to N.
      where: `[Q, N]` booleans, the items that exist.

    Returns:
      `Masked` of float32 `[Q]`; ties count against, queries without a relevant item are left out.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Järvelin & Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", ACM TOIS 2002.

    >>> import jax.numpy as jnp
    >>> print(f"{ndcg_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[0, 1, 0]]), k=3).values[0]:.4f}")
    0.6309
    """
    ranked, valid = _ranked(scores, relevance, where, k)
    discount = 1 / jnp.log2(jnp.arange(2, k + 2))
    best = jnp.sum(-jnp.sort(-ranked, axis=1)[:, :k] * discount, axis=1)
    return _masked(jnp.sum(ranked[:, :k] * discount, axis=1) / jnp.where(best == 0, 1, best), ranked, valid)


def average_precision(scores: Scores, relevance: Relevance, *, where: Where = None) -> Masked:
    r"""The mean over a query's relevant items of the precision at their rank, $\frac{1}{|\text{rel}|} \sum_{r\,\text{relevant}} \text{hits}_r / r$.

    The mean over queries is the MAP.

    Args:
      scores: `[Q, N]`, higher is better.
      relevance: `[Q, N]` booleans or numbers; above 0 is relevant.
      where: `[Q, N]` booleans, the items that exist.

    Returns:
      `Masked` of float32 `[Q]`; ties count against, queries without a relevant item are left out.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    >>> import jax.numpy as jnp
    >>> print(f"{average_precision(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]])).values[0]:.4f}")
    0.8333
    """
    ranked, valid = _ranked(scores, relevance, where)
    relevant = (ranked > 0).astype(ranked.dtype)
    precision = jnp.cumsum(relevant, axis=1) / jnp.arange(1, ranked.shape[1] + 1)
    return _masked(jnp.sum(precision * relevant, axis=1) / _at_least_one(jnp.sum(relevant, axis=1)), ranked, valid)


def r_precision(scores: Scores, relevance: Relevance, *, where: Where = None) -> Masked:
    r"""The share of relevant items among a query's first R, where R is the number of its relevant items.

    It is precision and recall at R at once: 1 where all relevant items stand first.

    Args:
      scores: `[Q, N]`, higher is better.
      relevance: `[Q, N]` booleans or numbers; above 0 is relevant.
      where: `[Q, N]` booleans, the items that exist.

    Returns:
      `Masked` of float32 `[Q]`; ties count against, queries without a relevant item are left out.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Manning, Raghavan & Schütze, "Introduction to Information Retrieval", 2008, section 8.4.

    >>> import jax.numpy as jnp
    >>> r_precision(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]])).values.tolist()
    [0.5]
    """
    ranked, valid = _ranked(scores, relevance, where)
    _, hits, total = _first_r(ranked)
    return _masked(hits[:, -1] / total, ranked, valid)


def average_precision_at_r(scores: Scores, relevance: Relevance, *, where: Where = None) -> Masked:
    r"""Average precision over a query's first R items alone, R the number of its relevant ones: $\frac1R \sum_{r \le R} \text{rel}_r\,
    \text{hits}_r / r$.

    The mean over queries is the MAP@R of metric learning; on embeddings and labels: `label_retrieval(average_precision_at_r, embeddings, labels)`.

    Args:
      scores: `[Q, N]`, higher is better.
      relevance: `[Q, N]` booleans or numbers; above 0 is relevant.
      where: `[Q, N]` booleans, the items that exist.

    Returns:
      `Masked` of float32 `[Q]`; ties count against, queries without a relevant item are left out.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Musgrave et al., "A Metric Learning Reality Check", ECCV 2020, section 3.2.

    >>> import jax.numpy as jnp
    >>> average_precision_at_r(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]])).values.tolist()
    [0.5]
    """
    ranked, valid = _ranked(scores, relevance, where)
    relevant, hits, total = _first_r(ranked)
    return _masked(jnp.sum(relevant * hits / jnp.arange(1, ranked.shape[1] + 1), axis=1) / total, ranked, valid)


def label_retrieval(
    metric: Callable,
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    reference: Float[ArrayLike, "N D"] | None = None,
    reference_labels: Integer[ArrayLike, " N"] | None = None,
    *,
    similarity: Literal["cosine", "dot", "sqeuclidean"] = "cosine",
    block_size: int = 128,
) -> Masked:
    """A ranking metric of embeddings with labels: every example is a query, and those with its label are relevant.

    Without a reference the examples are looked for among themselves, but for the query. A block of queries is ranked at a time: nothing of size
    B x N is held.

    Args:
      metric: `metric(scores, relevance, where=where)`, a function of this module; `functools.partial(recall_at_k, k=5)` binds what else it needs.
      embeddings: `[B, D]`.
      labels: `[B]` integers.
      reference: `[N, D]`, the embeddings that are ranked, or None.
      reference_labels: `[N]` integers, with `reference`.
      similarity: as in `pairwise.top_k`.
      block_size: queries of a block.

    Returns:
      `Masked` of float32 `[B]`; a query whose label no other example has is left out.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range, one of the reference's two without the other.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> label_retrieval(r_precision, x, jnp.array([5, 5, 5, 8]))
    Masked(values=Array([0.5, 0.5, 0.5, 0. ], dtype=float32), where=Array([ True,  True,  True, False], dtype=bool))
    """
    if not callable(metric):
        raise TypeError(f"metric must be a function of (scores, relevance), got {type(metric).__name__}")
    if (reference is None) != (reference_labels is None):
        raise ValueError("reference and reference_labels must be given together, or neither")
    check.choice("similarity", similarity, pairwise.similarity.SIMILARITIES)
    check.integer("block_size", block_size, at_least=1)
    specs = dict(embeddings=(embeddings, "B D"), labels=(labels, "B", "int"))
    batch = check.arrays(**specs, reference=(reference, "N D?"), reference_labels=(reference_labels, "N?", "int"))["B"]
    queries, labels = jnp.asarray(embeddings), jnp.asarray(labels)
    keys, key_labels = (queries, labels) if reference is None else (jnp.asarray(reference), jnp.asarray(reference_labels))
    place, centre = jnp.arange(len(keys)), pairwise.similarity.centre(similarity, keys)

    def one(query):
        embedding, label, own = query
        scores = pairwise.similarity.scores(similarity, embedding[None], keys, centre)
        found = metric(scores, (key_labels == label)[None], where=(place != own)[None])
        return found.values[0], found.where[0]

    own = jnp.arange(batch) if reference is None else jnp.full(batch, -1)
    return Masked(*lax.map(one, (queries, labels, own), batch_size=min(block_size, batch)))


def _ranked(scores, relevance, where, *depth):
    """The relevance in the order of the list, 0 where an item does not exist; and whether a query's scores are numbers."""
    sizes = check.arrays(scores=(scores, "Q N", "number"), relevance=(relevance, "Q N", None), where=(where, "Q N?", "bool"))
    if not any(jnp.issubdtype(jnp.result_type(relevance), kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"relevance must have dtype bool, int or float, got {jnp.result_type(relevance)}")
    for k in depth:
        check.integer("k", k, at_least=1, at_most=sizes["N"])
    exists = jnp.ones(jnp.shape(scores), bool) if where is None else jnp.asarray(where)
    scores = jnp.asarray(scores)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    gains = jnp.where(exists, jnp.asarray(relevance), 0).astype(jnp.float32)
    valid = ~jnp.any(exists & jnp.isnan(scores), axis=1)
    return lax.sort((~exists, -scores, gains), dimension=1, num_keys=3)[2], valid


def _first_r(ranked):
    """Whether each item is relevant and among the first R, how many such there are up to it, and R, at least 1 and a column for `[Q]`."""
    relevant = ranked > 0
    total = jnp.sum(relevant, axis=1, keepdims=True)
    relevant &= jnp.arange(ranked.shape[1]) < total
    return relevant, jnp.cumsum(relevant, axis=1), _at_least_one(total[:, 0])


def _masked(values, ranked, valid):
    kept = (ranked > 0).any(axis=1)
    return Masked(jnp.where(kept, jnp.where(valid, values, jnp.nan), 0).astype(jnp.float32), kept)


def _at_least_one(count):
    return jnp.maximum(count, 1)
