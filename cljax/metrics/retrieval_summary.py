"""What a search is worth whose queries have one answer each."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check


def retrieval_summary(
    scores: Num[ArrayLike, "Q N"],
    answers: Integer[ArrayLike, " Q"],
    indices: Integer[ArrayLike, "Q N"] | None = None,
    *,
    recall: Sequence[int] = (1, 10),
    ndcg: Sequence[int] = (),
) -> dict[str, Float[Array, " Q"]]:
    r"""How high each query's list has the one item that answers it, by the usual measures of its rank r.

    $$\text{R@}k = [r \le k], \qquad \text{nDCG@}k = \frac{[r \le k]}{\log_2(1 + r)}, \qquad \text{MRR} = \frac1r$$

    They are what `recall_at_k`, `ndcg_at_k` and `mrr_at_k` give, from one count instead of a sort each. A tie counts against: r is one more than the
    number of other items whose score is not lower. A query whose answer is not in its list has 0; one with a NaN among its scores NaN.

    Args:
      scores: `[Q, N]`, higher is better: of the whole collection, or of a list of N items.
      answers: `[Q]` integers, the item that answers each query.
      indices: `[Q, N]` integers, which items the lists hold, as `pairwise.top_k` gives them beside their scores. None: item n is column n.
      recall: the k of R@k, from 1 on; a list may be shorter.
      ndcg: those of nDCG@k.

    Returns:
      `{"R@1": [Q], ..., "nDCG@10": [Q], ..., "MRR": [Q]}`, float32, one value a query; the mean of each is what is reported.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax.numpy as jnp
    >>> found = retrieval_summary(jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 2.0]]), jnp.array([0, 2]), recall=(1, 2))
    >>> {name: [round(float(value), 4) for value in values] for name, values in found.items()}
    {'R@1': [1.0, 0.0], 'R@2': [1.0, 0.0], 'MRR': [1.0, 0.3333]}
    """
    specs = dict(scores=(scores, "Q N", "number"), answers=(answers, "Q", "int"), indices=(indices, "Q N?", "int"))
    size = check.arrays(**specs)["N"]
    for name, depths in (("recall", recall), ("ndcg", ndcg)):
        for k in depths:
            check.integer(name, k, at_least=1)
    scores = jnp.asarray(scores)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    own = (jnp.arange(size) if indices is None else jnp.asarray(indices)) == jnp.asarray(answers)[:, None]
    score = jnp.max(jnp.where(own, scores, -jnp.inf), axis=1, keepdims=True)
    rank = jnp.where(own.any(axis=1), 1 + jnp.sum(~own & (scores >= score), axis=1), jnp.inf).astype(jnp.float32)
    rank = jnp.where(jnp.isnan(scores).any(axis=1), jnp.nan, rank)
    gain = 1 / jnp.log2(1 + rank)
    found = {f"R@{k}": _within(rank, k, jnp.ones_like(rank)) for k in recall} | {f"nDCG@{k}": _within(rank, k, gain) for k in ndcg}
    return found | {"MRR": 1 / rank}


def _within(rank, k, gain):
    """The gain of ranks up to k."""
    return jnp.where(jnp.isnan(rank), jnp.nan, jnp.where(rank <= k, gain, 0))
