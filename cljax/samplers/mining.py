"""Hard negatives out of a collection, in arrays of fixed shape: by rank, by score, by distance, at random.

The rules that all share:
  A query never gets a key that is one of its `positives`, or whose ids meet its own. Where fewer than k keys are left the rest of its row has the
  index -1, the score -inf and `where` False: nothing is invented. `keys[indices]` with `where` is a list of negatives for each query, as
  `losses.grouped_info_nce(queries, positives, keys[indices], negative_weights=where, ...)` takes it. Nothing of size B x N is held; all is traced,
  and compiles once for a set of shapes. Nothing has a gradient: scores to be trained on are made again from `keys[indices]`.
  With an `axis_name` each device gives its own queries and its part of the keys; indices and `positives` are global. A NaN score breaks no bound
  and ranks highest: it comes to light.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int32, Integer, PyTree

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.samplers import _candidates, _runs

Scalar = float | int | Float[ArrayLike, ""]
Ids = Integer[ArrayLike, "B ..."] | None
KeyIds = Integer[ArrayLike, "N ..."] | None
Positives = Integer[ArrayLike, " B"] | Integer[ArrayLike, "B P"]
Index = Integer[ArrayLike, " B"] | None
Similarity = Literal["dot", "cosine", "sqeuclidean"]


class Mined(NamedTuple):
    """Negatives of each query.

    Attributes:
      indices: int32 `[B, k]`, which keys; -1 where there is none.
      where: `[B, k]` booleans, which entries are keys.
      scores: float32 `[B, k]`, their similarities; -inf where there is none.
      masked: int32 `[B]`, how many keys the rules left out: as positives, by ids, by `where`, and (inside of the window, if there is one) by their
        score.
    """

    indices: Int32[Array, "B k"]
    where: Bool[Array, "B k"]
    scores: Float[Array, "B k"]
    masked: Int32[Array, " B"]


def mine_negatives(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"],
    k: int,
    *,
    positives: Positives | None = None,
    ids: Ids = None,
    key_ids: KeyIds = None,
    rows: PyTree = None,
    columns: PyTree = None,
    where: Callable | None = None,
    guide: tuple[Float[ArrayLike, "B E"], Float[ArrayLike, "N E"]] | None = None,
    guide_margin: Scalar = 0.0,
    first: int = 0,
    last: int | None = None,
    min_score: Scalar | None = None,
    max_score: Scalar | None = None,
    absolute_margin: Scalar | None = None,
    relative_margin: Scalar | None = None,
    sampling: Literal["top", "random"] = "top",
    key: KeyLike | None = None,
    index: Index = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
) -> Mined:
    r"""For each query the k most similar keys, or k random ones, among those that the rules leave.

    In this order: positives, keys whose ids meet, keys that `where` forbids and those that a guide takes for positives are left out; the others are
    ranked by falling score, and those with a rank in [`first`, `last`) stay; of them those whose score s keeps all bounds, $\text{min\_score} \le s
    \le \text{max\_score}$, $s \le s^+ - \text{absolute\_margin}$ and $s \le s^+ - \text{relative\_margin} \, |s^+|$. Here $s^+$ is the lowest score
    among the query's positives; a query without a positive has no margin.

    With `last` the `last` nearest keys of each query are held, `[B, last]`. Without it, bounds on scores and random draws look at the whole
    collection, in one pass for each of the k: give a `last` where k is large.

    Args:
      queries: `[B, D]` embeddings.
      keys: `[N, D]` embeddings, the collection; the queries themselves if need be, with `positives=pairwise.index(B)`.
      k: the number of negatives of a query, at most N.
      positives: the keys that belong to a query, indices `[B]`, or `[B, P]` padded with -1.
      ids: integers `[B]`, or sets `[B, R]` padded with -1: keys whose ids meet the query's are never chosen.
      key_ids: `[N]` or `[N, S]`, the ids of the keys; by default those of the queries, where there are as many keys.
      rows, columns, where: as in `pairwise.top_k`: a function of what is known of a query and of a key, True where it may be chosen.
      guide: the embeddings of queries and keys by a second model, `[B, E]` and `[N, E]`: a key whose cosine there is above that of the query's
        positive (the lowest of several) less `guide_margin` is taken for a false negative and never chosen. A query without a positive has no such
        limit.
      guide_margin: how much more cautious, in units of the cosine; may be below 0.
      first, last: the window of ranks, from 0 on; all by default.
      min_score, max_score: the bounds of the score itself.
      absolute_margin, relative_margin: how far below the positive's score a negative has to stay, in units of the score and as a share of it.
      sampling: "top" takes the most similar of what is left, "random" draws evenly, without replacement, in random order.
      key: a PRNG key, for "random".
      index: integers `[B]`, which example each query is: draws hang on the key and on it alone. By default its global place in the batch.
      similarity: as in `pairwise.reduce`.
      axis_name: a mapped axis over which queries and keys are split.

    Returns:
      `Mined`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, k above N, a window that is empty or ends beyond N, a margin or a guide without positives, positives that are
        no keys, "random" without a key, an unknown name, an axis that is not mapped.

    Reference:
      Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval" (ANCE), ICLR 2021 (the most similar);
      Moreira et al., "NV-Retriever: Improving text embedding models with effective hard-negative mining", 2024, section 4 (margins); Solatorio,
      "GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning", 2024 (guide).

    >>> keys = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> mined = mine_negatives(keys[:1], keys, 3, positives=jnp.array([0]), max_score=0.7)
    >>> mined.indices.tolist(), mined.where.tolist(), mined.masked.tolist()
    ([[2, 3, -1]], [[True, True, False]], [2])
    """
    check.choice("sampling", sampling, ("top", "random"))
    bounds = dict(min_score=min_score, max_score=max_score, absolute_margin=absolute_margin, relative_margin=relative_margin)
    bounds = {name: value for name, value in bounds.items() if value is not None}
    for name, value in bounds.items():
        check.arrays(**{name: (value, "", "number")})
        if name.endswith("margin") and positives is None:
            raise ValueError(f"{name} needs positives, got positives=None")
    if guide is not None:
        if positives is None:
            raise ValueError("guide needs positives, got positives=None")
        check.arrays(guide_margin=(guide_margin, "", "number"))
        guide = *guide, guide_margin
    if sampling == "random":
        check.key("key", key)
    rules = dict(positives=positives, ids=ids, key_ids=key_ids, rows=rows, columns=columns, where=where, guide=guide)
    pool = _candidates.pool(queries, keys, k, **rules, index=index, similarity=similarity, axis_name=axis_name)
    total = len(pool.keys)
    check.integer("first", first, at_least=0, at_most=total - 1)
    if last is not None:
        check.integer("last", last, at_least=first + 1, at_most=total)

    def fits(scores, row, column=None):
        return ~(scores < row["low"]) & ~(scores > row["high"])  # so that a NaN stays

    limits = dict(zip(("low", "high"), _bounds(pool, **bounds), strict=True))
    draw = None if sampling == "top" else _runs.fold(key, pool.rows["example"])
    if sampling == "top" and not bounds:
        last = min(first + k, last or total)
    if last is not None:
        scores, indices = (x[:, first:] for x in _candidates.nearest(pool, last))
        kept = (indices >= 0) & fits(scores, {name: limit[:, None] for name, limit in limits.items()})
        value = scores if draw is None else _candidates.gumbel(draw[:, None], indices)
        chosen = _choose(k, value, kept, indices, scores)
        masked = jnp.sum((indices >= 0) & ~kept, axis=1, dtype=jnp.int32)
        if _candidates.ruled(pool):
            masked += _candidates.count(pool, pool.rows, lambda scores, row, column: _candidates.forbidden(pool, row, column))
        return Mined(*chosen, masked)

    def value(scores, row, column):
        return scores if draw is None else _candidates.gumbel(row["draw"], column["index"])

    rows = pool.rows | limits | ({} if draw is None else {"draw": draw})
    if first == 0:
        return _whole(pool, rows, k, value, fits)
    scores, taken = _candidates.nearest(pool, first)  # they stand before the window, and are no one's loss
    found = _whole(pool, rows, k, value, fits, taken)
    before = (taken >= 0) & ~fits(scores, {name: limit[:, None] for name, limit in limits.items()})
    return found._replace(masked=found.masked - jnp.sum(before, axis=1, dtype=jnp.int32))


def semi_hard_negatives(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"],
    k: int = 1,
    *,
    positives: Positives,
    margin: Scalar | None = None,
    ids: Ids = None,
    key_ids: KeyIds = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
) -> Mined:
    r"""For each query the k most similar keys that are less similar than its positive, $s^+ - \text{margin} < s < s^+$.

    Negatives above the positive are often false or too hard, those far below teach nothing. It takes k passes over the collection.

    Args:
      queries: `[B, D]` embeddings.
      keys: `[N, D]` embeddings, the collection.
      k: the number of negatives of a query, at most N.
      positives: the keys that belong to a query, indices `[B]`, or `[B, P]` padded with -1; $s^+$ is the lowest of their scores. A query without
        one has no semi-hard negatives.
      margin: above 0; None for no lower bound.
      ids, key_ids, similarity, axis_name: as in `mine_negatives`.

    Returns:
      `Mined`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: as `mine_negatives`; a margin that is not positive.

    Reference:
      Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015, equation 4.

    >>> keys = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> semi_hard_negatives(keys[:1], keys, positives=jnp.array([1]), margin=0.5).indices.tolist()
    [[2]]
    """
    if margin is not None:
        check.arrays(margin=(margin, "", "number"))
        check.positive("margin", margin)
    if positives is None:
        raise TypeError("positives must be an array, got None")
    pool = _candidates.pool(queries, keys, k, positives=positives, ids=ids, key_ids=key_ids, similarity=similarity, axis_name=axis_name)
    high = _candidates.positive(pool)
    high = jnp.where(high == jnp.inf, -jnp.inf, high)
    low = jnp.full_like(high, -jnp.inf) if margin is None else high - margin

    def fits(scores, row, column):
        return ~(scores >= row["high"]) & ~(scores <= row["low"])

    return _whole(pool, pool.rows | {"low": low, "high": high}, k, lambda scores, row, column: scores, fits)


def distance_weighted_negatives(
    key: KeyLike,
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"],
    k: int = 1,
    *,
    cutoff: Scalar = 0.5,
    nonzero_loss_cutoff: Scalar = 1.4,
    positives: Positives | None = None,
    ids: Ids = None,
    key_ids: KeyIds = None,
    index: Index = None,
    axis_name: str | None = None,
) -> Mined:
    r"""For each query k random keys, drawn so that all distances d of unit vectors would be equally frequent if the keys were spread evenly.

    $$p(d) \propto \frac{1}{q(\max(d, \text{cutoff}))} \text{ for } d < \text{nonzero\_loss\_cutoff}, \qquad
    q(d) = d^{D-2} \left(1 - \tfrac{1}{4} d^2\right)^{(D-3)/2}$$

    Draws are without replacement, by Gumbel numbers that hang on the key, the example and the other key alone. It takes k passes over the
    collection.

    Args:
      key: a PRNG key.
      queries: `[B, D]` embeddings, D at least 2; they are normalised.
      keys: `[N, D]` embeddings, the collection.
      k: the number of negatives of a query, at most N.
      cutoff: above 0: nearer keys weigh as much as one at this distance, so that their noise does not rule.
      nonzero_loss_cutoff: above 0: keys at this distance or further are not drawn.
      positives, ids, key_ids, index, axis_name: as in `mine_negatives`.

    Returns:
      `Mined`, in the order in which they were drawn; the scores are cosines.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: as `mine_negatives`; embeddings of one dimension; a cutoff that is not positive.

    Reference:
      Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, section 4.2; the upper cutoff is that of the released code, 1.4.

    >>> import jax
    >>> keys = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]])
    >>> mined = distance_weighted_negatives(jax.random.key(0), keys[:1], keys, 3, positives=jnp.array([0]))
    >>> sorted(mined.indices[0].tolist()), mined.masked.tolist()
    ([-1, 1, 2], [2])
    """
    check.key("key", key)
    for name, value in (("cutoff", cutoff), ("nonzero_loss_cutoff", nonzero_loss_cutoff)):
        check.arrays(**{name: (value, "", "number")})
        check.positive(name, value)
    rules = dict(positives=positives, ids=ids, key_ids=key_ids, index=index, axis_name=axis_name)
    pool = _candidates.pool(queries, keys, k, **rules, similarity="cosine")
    width = pool.queries.shape[1]
    check.integer("the dimension of queries", width, at_least=2)

    def log_weight(scores):
        square = jnp.clip(2 - 2 * scores, jnp.square(cutoff), 4 * (1 - 1e-6))
        return -(width - 2) / 2 * jnp.log(square) - (width - 3) / 2 * jnp.log1p(-square / 4)

    def value(scores, row, column):
        return log_weight(scores) + _candidates.gumbel(row["draw"], column["index"])

    def fits(scores, row, column):
        return ~(scores <= 1 - jnp.square(nonzero_loss_cutoff) / 2)

    return _whole(pool, pool.rows | {"draw": _runs.fold(key, pool.rows["example"])}, k, value, fits)


def _bounds(pool, min_score=None, max_score=None, absolute_margin=None, relative_margin=None):
    """The lowest and the highest score that a negative of each query may have, `[B]` each."""
    dtype = jnp.promote_types(pool.queries.dtype, jnp.float32)
    low, high = jnp.full(len(pool.queries), -jnp.inf, dtype), jnp.full(len(pool.queries), jnp.inf, dtype)
    if min_score is not None:
        low = jnp.maximum(low, min_score)
    if max_score is not None:
        high = jnp.minimum(high, max_score)
    if absolute_margin is not None or relative_margin is not None:
        score = _candidates.positive(pool)
        if absolute_margin is not None:
            high = jnp.minimum(high, score - absolute_margin)
        if relative_margin is not None:
            high = jnp.minimum(high, jnp.where(score == jnp.inf, jnp.inf, score - relative_margin * jnp.abs(score)))
    return low, high


def _choose(k, value, kept, indices, scores):
    """The k entries of the highest values among those kept, out of a list for each query: indices, where, scores."""
    short = max(k - indices.shape[1], 0)
    _, place = lax.top_k(jnp.where(kept, value, -jnp.inf), k - short)
    kept, indices, scores = (jnp.take_along_axis(x, place, axis=1) for x in (kept, indices, scores))
    found = jnp.where(kept, indices, -1), kept, jnp.where(kept, scores, -jnp.inf)
    return (jnp.pad(x, ((0, 0), (0, short)), constant_values=fill) for x, fill in zip(found, (-1, False, -jnp.inf), strict=True))


def _whole(pool, rows, k, value, fits, taken=None):
    """What is chosen from the whole collection, but for the keys `taken`."""
    indices = _candidates.best(pool, rows, k, value, fits, taken)
    masked = _candidates.count(pool, rows, lambda scores, row, column: _candidates.forbidden(pool, row, column) | ~fits(scores, row, column))
    return Mined(indices, indices >= 0, _candidates.scores(pool, indices), masked)
