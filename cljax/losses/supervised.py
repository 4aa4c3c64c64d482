"""Softmax losses with several positives an anchor, named by labels."""

import functools
from typing import Literal

import jax.numpy as jnp
from jaxtyping import ArrayLike, Bool, Float, Integer

from cljax.core import check, softplus
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Similarity, Temperature, Where
from cljax.losses.averaging import Masked
from cljax.pairwise import LogSumExp, Sum


def sup_con(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, "B ..."],
    *,
    temperature: Temperature,
    references: Float[ArrayLike, "M D"] | None = None,
    reference_labels: Integer[ArrayLike, "M ..."] | None = None,
    in_batch: bool = True,
    ids: Ids = None,
    reference_ids: Integer[ArrayLike, "M ..."] | None = None,
    reference_where: Bool[ArrayLike, " M"] | None = None,
    references_axis_name: str | None = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Masked:
    r"""Each row picks the others of its class, $P_i$, among all others.

    $$-\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{\exp(s_{ip}/\tau)}{\sum_{j \ne i} \exp(s_{ij}/\tau)}$$

    With `references`, such as a queue of past batches, j runs over them too, and those of its class are in $P_i$. `pytorch-metric-learning` averages
    over the rows whose value is above 0; `losses.mean` over those with a positive.

    Args:
      embeddings: `[B, D]`; two views of a batch are concatenated, and so are their labels.
      labels: integers `[B]`, or sets `[B, R]` padded with -1: the positives $P_i$ are the other rows whose labels meet those of row i.
      temperature: divides the similarity; above 0, a scalar or `[B]`.
      references, reference_labels, in_batch, reference_ids, reference_where, references_axis_name: further rows, as said in `cljax.losses`.
      ids: integers `[B]`, or sets `[B, R]` padded with -1: rows whose ids meet are never each other's negatives.
      where: `[B]` booleans, the valid rows: any other counts nowhere.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      `Masked` of float32 values `[B]` and booleans `[B]`: a row without a positive has value 0 and is left out by `losses.mean`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive.

    Reference: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2 (the sum over positives outside the logarithm).
    """
    sides = dict(ids=ids, reference_ids=reference_ids, reference_where=reference_where, references_axis_name=references_axis_name)
    sides |= dict(in_batch=in_batch, where=where, axis_name=axis_name)
    embeddings, rows, sources = _pairs.labelled(embeddings, labels, references, reference_labels, **sides)
    rows |= dict(scale=_pairs.scale(temperature, len(embeddings), where))
    how = dict(similarity=similarity, collective=collective, block_size=block_size, implementation=implementation)
    return _multi_positive(embeddings, rows, sources, "outside", how)


def multi_positive_info_nce(
    queries: Float[ArrayLike, "B D"],
    keys: Float[ArrayLike, "N D"],
    labels: Integer[ArrayLike, "B ..."],
    key_labels: Integer[ArrayLike, "N ..."] | None = None,
    *,
    temperature: Temperature,
    combine: Literal["outside", "inside", "apart"] = "outside",
    ids: Ids = None,
    key_ids: Integer[ArrayLike, "N ..."] | None = None,
    where: Where = None,
    key_where: Bool[ArrayLike, " N"] | None = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Masked:
    r"""How badly each query picks the keys that share a label with it, $P_i$, among all keys, $C_i$.

    `combine` says how several positives make one value:
      "outside" the logarithm, every positive must win:
        $-\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{\exp(s_{ip}/\tau)}{\sum_{j \in C_i} \exp(s_{ij}/\tau)}$;
      "inside" it, one that wins is enough:
        $-\log \frac{\sum_{p \in P_i} \exp(s_{ip}/\tau)}{\sum_{j \in C_i} \exp(s_{ij}/\tau)}$;
      "apart": as outside, but with p alone among the negatives, so that positives don't compete.

    Args:
      queries: `[B, D]` embeddings.
      keys: `[N, D]` embeddings.
      labels: integers `[B]`, or sets `[B, R]` padded with -1 (all relevant items of a query, say).
      key_labels: `[N]` or `[N, S]`, likewise. By default the keys stand side by side with the queries: `labels`, `ids` and `where` are those of both.
      temperature: divides the similarity; above 0, a scalar or `[B]`.
      combine: "outside", "inside" or "apart".
      ids: integers `[B]`, or sets `[B, R]` padded with -1: keys whose ids meet the query's are not its negatives.
      key_ids: `[N]` or `[N, S]`, the ids of the keys.
      where: `[B]` booleans, the valid queries.
      key_where: `[N]` booleans, the valid keys.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      `Masked` of float32 values `[B]` and booleans `[B]`: a query without a positive has value 0 and is left out by `losses.mean`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive, an unknown `combine`, ids of one side alone.

    Reference: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2 (outside); Miech et al., "End-to-End Learning of Visual
    Representations from Uncurated Instructional Videos" (MIL-NCE), CVPR 2020, equation 1 (inside).
    """
    check.choice("combine", combine, ("outside", "inside", "apart"))
    sizes = check.arrays(queries=(queries, "B D"), keys=(keys, "N D"), where=(where, "B?", "bool"), key_where=(key_where, "N?", "bool"))
    batch, size = sizes["B"], sizes["N"]
    labels, ids = _pairs.integers("labels", labels, batch), _pairs.integers("ids", ids, batch)
    if key_labels is None:
        if size != batch:
            raise ValueError(f"key_labels must be given where keys are not aligned with queries, got None for {size} keys and {batch} queries")
        key_labels, key_ids, key_where = labels, ids if key_ids is None else key_ids, where if key_where is None else key_where
    if (ids is None) != (key_ids is None):
        raise ValueError(f"ids and key_ids must be given together, got {'ids' if key_ids is None else 'key_ids'} alone")
    names = dict(labels=_pairs.integers("key_labels", key_labels, size), ids=_pairs.integers("key_ids", key_ids, size))
    rows = _pairs.present(labels=labels, ids=ids, where=where, scale=_pairs.scale(temperature, batch, where))
    columns = _pairs.present(where=key_where, **names)
    how = dict(similarity=similarity, collective=collective, block_size=block_size, implementation=implementation)
    return _multi_positive(_pairs.drop(where, queries), rows, [(_pairs.drop(key_where, keys), columns, axis_name)], combine, how)


def _multi_positive(queries, rows, sources, combine, how):
    def terms(scores, row, column, _):
        logits, positive = scores * row["scale"], _pairs.positives(row, column)
        kept, count = _pairs.kept(row, column, positive), {"count": Sum(1.0, positive)}
        if combine == "apart":
            return count | {"lse": LogSumExp(logits, _pairs.both(kept, ~positive))}
        picked = {"picked": Sum(logits, positive)} if combine == "outside" else {"picked_lse": LogSumExp(logits, positive)}
        return count | picked | {"lse": LogSumExp(logits, kept)}

    def each_apart(scores, row, column, _):
        return Sum(softplus(row["lse"] - scores * row["scale"]), _pairs.positives(row, column))

    found = functools.reduce(_pairs.join, _pairs.over(sources, queries, terms, rows, how))
    count = jnp.maximum(found["count"], 1)
    if combine == "apart":
        lse = jnp.maximum(found["lse"], jnp.finfo(found["lse"].dtype).min)  # a query without negatives: terms must be finite
        values = sum(_pairs.over(sources, queries, each_apart, rows | {"lse": lse}, how)) / count
    else:
        values = found["lse"] - (found["picked"] / count if combine == "outside" else found["picked_lse"])
    where = _pairs.both(found["count"] > 0, rows.get("where"))
    return Masked(jnp.where(where, values, 0), where)
