"""The sigmoid loss: every pair is a yes-or-no question of its own."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from cljax import pairwise
from cljax.core import check, softplus
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Scalar, Similarity, Temperature, Where
from cljax.pairwise import Sum


def sigmoid_contrastive(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    bias: Scalar,
    ids: Ids = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""Whether two rows belong together, asked of every pair: $-\sum_j \log \sigma(z_{ij} (s_{ij}/\tau + \text{bias}))$ with $z_{ii} = 1$, else $-1$.

    Args:
      a: `[B, D]` embeddings, the anchors.
      b: `[B, D]` embeddings; row i belongs to row i of `a`.
      temperature: divides the similarity; above 0, a scalar or `[B]`. SigLIP starts it at 0.1.
      bias: a scalar added to every logit. SigLIP starts it at -10, as nearly all pairs are negative.
      ids: integers `[B]`, or sets `[B, R]` padded with -1, of the pairs: where ids meet there is no question, but for the own pair.
      where: `[B]` booleans, the valid pairs: any other counts nowhere, and its value is 0.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[B]`, the sum over an anchor's pairs; its mean is the loss.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive, a bias that is not a scalar.

    Reference: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (SigLIP), ICCV 2023, equation in section 3.2.
    """
    batch = check.arrays(a=(a, "B D"), b=(b, "B D"), where=(where, "B?", "bool"), bias=(bias, "", "number"))["B"]
    index = pairwise.index(batch, axis_name)
    pair = _pairs.present(
        index=index, partner=index, ids=_pairs.integers("ids", ids, batch), where=where, scale=_pairs.scale(temperature, batch, where)
    )

    def terms(scores, row, column, bias):
        logits, own = scores * row["scale"] + bias, _pairs.own(row, column)
        return Sum(softplus(jnp.where(own, -logits, logits)), _pairs.kept(row, column, own))

    how = dict(similarity=similarity, axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    a, b = _pairs.drop(where, a), _pairs.drop(where, b)
    return _pairs.drop(where, pairwise.reduce(a, b, terms, rows=pair, columns=pair, params=_pairs.float_array(bias), **how))
