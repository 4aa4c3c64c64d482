"""InfoNCE and its two-way forms: the cross-entropy of picking an anchor's own key among others."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from cljax import pairwise
from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Scalar, Similarity, Temperature, Where
from cljax.pairwise import LogSumExp, Sum


def info_nce(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    negatives: Float[ArrayLike, "M D"] | None = None,
    in_batch: bool = True,
    ids: Ids = None,
    key_ids: Ids = None,
    negative_ids: Integer[ArrayLike, "M ..."] | None = None,
    negative_where: Bool[ArrayLike, " M"] | None = None,
    negatives_axis_name: str | None = None,
    where: Where = None,
    label_smoothing: Scalar = 0.0,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""How badly each query picks its own key among others.

    $$-\log \frac{\exp(s_{ii}/\tau)}{\sum_{j \in C_i} \exp(s_{ij}/\tau)}$$

    Key i is the positive of query i. The candidates $C_i$ are that key, the other keys of the batch and `negatives`. With label smoothing
    $\epsilon$ the target is $1 - \epsilon$ on the positive and $\epsilon$ spread evenly over all of $C_i$, the positive too.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> values = losses.info_nce(jnp.eye(2), jnp.array([[0.8, 0.6], [0.6, 0.8]]), temperature=0.5)
    >>> print(f"{losses.mean(values):.6f}")
    0.513015

    Args:
      queries: `[B, D]` embeddings.
      keys: `[B, D]` embeddings.
      temperature: divides the similarity; above 0, a scalar or `[B]`.
      negatives: `[M, D]` further candidates of every query, such as a queue, used as this device holds them.
      in_batch: whether the other keys of the batch are candidates; without them only `negatives` are (MoCo).
      ids: integers `[B]`, or sets `[B, R]` padded with -1: keys whose ids meet the query's are no candidates; the own key always is.
      key_ids: the ids of the keys; by default those of the queries.
      negative_ids: `[M]` or `[M, S]`, the ids of the negatives; by default all count.
      negative_where: `[M]` booleans, the negatives that exist: a queue's slots that are not filled yet do not.
      negatives_axis_name: the mapped axis over which a bank of negatives is split: each device gives its M rows, all see all.
      where: `[B]` booleans, the valid rows: any other is no candidate, and its own value is 0.
      label_smoothing: $\epsilon$, from 0 to 1.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[B]`, one value a query, not below 0 (but for rounding).

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive, `in_batch=False` without `negatives`, ids of one side alone.

    Reference: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4; He et al., "Momentum Contrast for
    Unsupervised Visual Representation Learning" (MoCo), CVPR 2020, equation 1, is `in_batch=False`.
    """
    smoothing = _smoothing(label_smoothing)
    how = dict(similarity=similarity, collective=collective, block_size=block_size, implementation=implementation)
    sides = dict(ids=ids, key_ids=key_ids, negative_ids=negative_ids, negative_where=negative_where, negatives_axis_name=negatives_axis_name)
    queries, keys, index, ids, sources = _pairs.sources(queries, keys, negatives, in_batch=in_batch, where=where, axis_name=axis_name, **sides)
    scale = _pairs.scale(temperature, len(index), where)

    def terms(scores, row, column, _):
        logits, own = scores * row["scale"], _pairs.own(row, column)
        positive = {} if own is None else {"positive": Sum(logits, own)}
        return positive | _candidates(logits, _pairs.kept(row, column, own), smoothing)

    rows = _pairs.present(partner=index, ids=ids, scale=scale)
    found = _pairs.over(sources, queries, terms, rows, how)
    if not in_batch:  # one number serves as positive and in the denominator, so that the loss cannot fall below 0
        positive = _pairs.aligned(queries, keys, similarity) * scale
        found.insert(0, {"positive": positive, "lse": positive, "sum": positive, "count": 1.0})
    return _pairs.drop(where, _cross_entropy(found[0]["positive"], functools.reduce(_pairs.join, found), smoothing))


def symmetric_info_nce(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    ids: Ids = None,
    where: Where = None,
    label_smoothing: Scalar = 0.0,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""InfoNCE from a to b and from b to a, half of each, from one pass over the scores.

    $$-\frac12 \log \frac{\exp(s_{ii}/\tau)}{\sum_j \exp(s_{ij}/\tau)} - \frac12 \log \frac{\exp(s_{ii}/\tau)}{\sum_j \exp(s_{ji}/\tau)}$$

    Args:
      a: `[B, D]` embeddings.
      b: `[B, D]` embeddings; row i belongs to row i of `a`.
      temperature: divides the similarity; above 0, a scalar, or `[B]`: that of pair i, as an anchor in either direction.
      ids: integers `[B]`, or sets `[B, R]` padded with -1, of the pairs: pairs whose ids meet are never each other's negatives.
      where: `[B]` booleans, the valid pairs: any other counts nowhere, and its value is 0.
      label_smoothing: from 0 to 1, spread evenly over all candidates of an anchor, the positive too.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[B]`, one value a pair.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive.

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), ICML 2021, figure 3.
    """
    smoothing = _smoothing(label_smoothing)
    batch = check.arrays(a=(a, "B D"), b=(b, "B D"), where=(where, "B?", "bool"))["B"]
    index = pairwise.index(batch, axis_name)
    pair = _pairs.present(
        index=index, partner=index, ids=_pairs.integers("ids", ids, batch), where=where, scale=_pairs.scale(temperature, batch, where)
    )
    one_temperature = jnp.ndim(temperature) == 0

    def terms(scores, row, column, _):
        own = _pairs.own(row, column)
        forth = scores * row["scale"]
        back = forth if one_temperature else scores * column["scale"]
        return {
            "positive": Sum(forth, own),
            "forth": _candidates(forth, _pairs.kept(row, column, own), smoothing),
            "back": _candidates(back, _pairs.kept(column, row, own), smoothing, axis=0),
        }

    how = dict(similarity=similarity, axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    found = pairwise.reduce(_pairs.drop(where, a), _pairs.drop(where, b), terms, rows=pair, columns=pair, **how)
    forth, back = (_cross_entropy(found["positive"], found[way], smoothing) for way in ("forth", "back"))
    return _pairs.drop(where, (forth + back) / 2)


def nt_xent(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    ids: Ids = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " twice_B"]:
    r"""Each of the 2B views picks the other view $p(i)$ of its example among all views but itself.

    $$-\log \frac{\exp(s_{i p(i)}/\tau)}{\sum_{j \ne i} \exp(s_{ij}/\tau)}$$

    Args:
      a: `[B, D]` embeddings of one view.
      b: `[B, D]` embeddings of the other view, in the same order.
      temperature: divides the similarity; above 0, a scalar, or `[B]`: that of both views of example i.
      ids: integers `[B]`, or sets `[B, R]` padded with -1, of the examples: views of examples whose ids meet are never each other's negatives.
      where: `[B]` booleans, the valid examples: any other counts nowhere, and its values are 0.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[2B]`, the anchors of `a` and then those of `b`; its mean is the loss.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020, equation 1.
    """
    views, rows = _pairs.two_views(a, b, temperature=temperature, ids=ids, where=where, axis_name=axis_name)

    def terms(scores, row, column, _):
        logits, own = scores * row["scale"], _pairs.own(row, column)
        return {"positive": Sum(logits, own)} | _candidates(logits, _pairs.kept(row, column, own))

    how = dict(similarity=similarity, axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    found = pairwise.reduce(views, None, terms, rows=rows, **how)
    return _pairs.drop(rows.get("where"), _cross_entropy(found["positive"], found))


def _smoothing(label_smoothing):
    """The label smoothing, or None where it is known to be 0: then its sums are not taken."""
    check.number("label_smoothing", label_smoothing, at_least=0, at_most=1)
    return None if isinstance(label_smoothing, int | float) and label_smoothing == 0 else label_smoothing


def _candidates(logits, kept, smoothing=None, axis=1):
    """What the cross-entropy needs of the candidates: the log of their sum of exponentials and, for smoothing, their sum and their number."""
    sums = {} if smoothing is None else {"sum": Sum(logits, kept, axis), "count": Sum(1.0, kept, axis)}
    return {"lse": LogSumExp(logits, kept, axis)} | sums


def _cross_entropy(positive, candidates, smoothing=None):
    """Cross-entropy of the softmax over the candidates, from the target that is 1 - smoothing on the positive and even in the rest."""
    loss = candidates["lse"] - positive
    return loss if smoothing is None else loss + smoothing * (positive - candidates["sum"] / candidates["count"])
