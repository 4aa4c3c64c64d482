"""Softmax losses of two views that correct the denominator of `nt_xent`: for the positive in it, and for negatives that are of the anchor's class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from cljax import pairwise
from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Scalar, Similarity, Temperature, Where
from cljax.pairwise import LogSumExp, Sum


def decoupled_info_nce(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    positive_weights: Float[ArrayLike, " B"] | None = None,
    ids: Ids = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " twice_B"]:
    r"""`nt_xent` without the positive in the denominator (DCL): a positive that is picked easily does not shrink the gradient.

    $$-w_i \frac{s_{i p(i)}}{\tau} + \log \sum_{j \ne i, p(i)} \exp(s_{ij}/\tau)$$

    The loss may fall below 0. The weighted form (DCLW) takes $w_i = 2 - B \operatorname{softmax}(s_{p}/\sigma)_i$ of the similarities of the B pairs,
    without gradient, and $\sigma = 0.5$.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> values = losses.decoupled_info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0)
    >>> print(", ".join(f"{value:.4f}" for value in values))
    -0.3069, -0.3069, -0.3069, -0.3069

    Args:
      a: `[B, D]` embeddings of one view.
      b: `[B, D]` embeddings of the other view, in the same order.
      temperature: divides the similarity; above 0, a scalar, or `[B]`: that of both views of example i.
      positive_weights: $w$, `[B]`, those of both views of an example; by default 1.
      ids: integers `[B]`, or sets `[B, R]` padded with -1, of the examples: views of examples whose ids meet are never each other's negatives.
      where: `[B]` booleans, the valid examples: any other counts nowhere, and its values are 0.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[2B]`, the anchors of `a` and then those of `b`; its mean is the loss. An anchor without a negative has value 0.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive.

    Reference: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, equations 5 and 6.
    """
    views, rows = _pairs.two_views(a, b, temperature=temperature, ids=ids, where=where, axis_name=axis_name)
    check.arrays(a=(a, "B D"), positive_weights=(positive_weights, "B?"))

    def terms(scores, row, column, _):
        logits, own = scores * row["scale"], _pairs.own(row, column)
        negative = _pairs.both(_pairs.kept(row, column), ~own)
        return {"positive": Sum(logits, own), "lse": LogSumExp(logits, negative), "count": Sum(1.0, negative)}

    how = dict(similarity=similarity, axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    found = pairwise.reduce(views, None, terms, rows=rows, **how)
    weights = 1 if positive_weights is None else jnp.tile(_pairs.drop(where, positive_weights), 2)
    nothing = 0 * found["positive"]  # NaN where an embedding is
    return _pairs.drop(rows.get("where"), jnp.where(found["count"] > 0, found["lse"] - weights * found["positive"], nothing))


def debiased_info_nce(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    positive_prior: Scalar,
    ids: Ids = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " twice_B"]:
    r"""`nt_xent` with the negatives' sum corrected for those that are of the anchor's class.

    $$-\log \frac{\exp(s_{i p(i)}/\tau)}{\exp(s_{i p(i)}/\tau) + N g_i}, \qquad g_i = \max\left(\frac{1}{1 - \pi} \left(\frac1N \sum_{j \ne i, p(i)}
    \exp(s_{ij}/\tau) - \pi \exp(s_{i p(i)}/\tau)\right), e^{-1/\tau}\right)$$

    $\pi$ is the chance that a negative is of the anchor's class; with 0 this is `nt_xent`. N counts the anchor's own negatives: 2B - 2 where ids and
    `where` take none. The floor is the least that g can be for cosines; where it holds, no gradient goes to the negatives. Paper and released code
    agree on it, with the one positive of the anchor as the sample of its class (M = 1).

    Args:
      a, b, temperature, ids, where: as in `nt_xent`.
      positive_prior: $\pi$, from 0 to below 1: 1 / (number of classes) where classes are even. The paper takes 0.1 for CIFAR-10.
      similarity, axis_name, collective, block_size, implementation: as in `pairwise.reduce`. The floor supposes similarities not below -1: "cosine",
        or "dot" of unit vectors.

    Returns:
      float32 `[2B]`, the anchors of `a` and then those of `b`, not below 0; its mean is the loss. An anchor without a negative has value 0.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive, a prior outside [0, 1).

    Reference: Chuang et al., "Debiased Contrastive Learning", NeurIPS 2020, equations 7 and 8.
    """
    how = dict(similarity=similarity, axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    return _corrected(a, b, temperature, positive_prior, None, ids, where, how)


def hard_negative_info_nce(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Temperature,
    positive_prior: Scalar,
    concentration: Scalar,
    ids: Ids = None,
    where: Where = None,
    similarity: Similarity = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " twice_B"]:
    r"""`debiased_info_nce` with its negatives weighted by their hardness (HCL).

    The mean over the N negatives becomes one with weights that grow with their similarity,
    $$\frac1N \sum_j \exp(s_{ij}/\tau) \quad \to \quad \frac{\sum_j \exp(\beta s_{ij}/\tau) \exp(s_{ij}/\tau)}{\sum_j \exp(\beta s_{ij}/\tau)}$$

    With $\beta = 0$ this is `debiased_info_nce`; as it grows, the most similar negative comes to count alone. As in the released code, gradients go
    through the weights too, and $\beta$ multiplies the similarity over the temperature.

    Args:
      a, b, temperature, ids, where: as in `nt_xent`.
      positive_prior: as in `debiased_info_nce`.
      concentration: $\beta$, not below 0. The paper takes 0.5 to 2.
      similarity, axis_name, collective, block_size, implementation: as in `debiased_info_nce`.

    Returns:
      float32 `[2B]`, the anchors of `a` and then those of `b`, not below 0; its mean is the loss. An anchor without a negative has value 0.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive, a prior outside [0, 1), a negative concentration.

    Reference: Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021, equations 4 and 5.
    """
    check.number("concentration", concentration, at_least=0)
    check.arrays(concentration=(concentration, "", "number"))
    how = dict(similarity=similarity, axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    return _corrected(a, b, temperature, positive_prior, _pairs.float_array(concentration), ids, where, how)


def _corrected(a, b, temperature, prior, concentration, ids, where, how):
    """The softmax loss whose negatives are summed by the estimator of both functions above; all in logarithms, so that nothing overflows."""
    check.number("positive_prior", prior, at_least=0)
    check.arrays(positive_prior=(prior, "", "number"))
    check.positive("1 - positive_prior", 1 - prior)
    views, rows = _pairs.two_views(a, b, temperature=temperature, ids=ids, where=where, axis_name=how["axis_name"])

    def terms(scores, row, column, concentration):
        logits, own = scores * row["scale"], _pairs.own(row, column)
        negative = _pairs.both(_pairs.kept(row, column), ~own)
        found = {"positive": Sum(logits, own), "count": Sum(1.0, negative)}
        if concentration is None:
            return found | {"lse": LogSumExp(logits, negative)}
        return found | {"lse": LogSumExp((1 + concentration) * logits, negative), "weights": LogSumExp(concentration * logits, negative)}

    found = pairwise.reduce(views, None, terms, rows=rows, params=concentration, **how)
    exists, count = found["count"] > 0, jnp.maximum(found["count"], 1)
    summed = jnp.where(exists, found["lse"], 0)
    if concentration is not None:
        summed = summed - jnp.where(exists, found["weights"], 0) + jnp.log(count)
    prior = _pairs.float_array(prior)
    share = found["positive"] + jnp.log(count) + jnp.where(prior == 0, -jnp.inf, jnp.log(jnp.where(prior == 0, 1, prior)))
    floor = jnp.log(count) + jnp.log1p(-prior) - rows["scale"]
    above = ~(summed <= jnp.logaddexp(share, floor))  # NaN is not at the floor
    gap = jnp.where(above, summed - share, 1)
    negatives = jnp.where(above, summed + jnp.log(-jnp.expm1(-gap)), floor) - jnp.log1p(-prior)
    nothing = 0 * found["positive"]  # NaN where an embedding is
    return _pairs.drop(rows.get("where"), jnp.where(exists, jax.nn.softplus(negatives - found["positive"]), nothing))
