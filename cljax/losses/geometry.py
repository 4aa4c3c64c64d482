"""How embeddings lie on the sphere: pairs near each other, all spread evenly."""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from cljax import pairwise
from cljax.core import check, safe_norm, safe_normalize, vary
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Scalar, Where
from cljax.pairwise import LogSumExp, Sum


def alignment(
    a: Float[ArrayLike, "B D"], b: Float[ArrayLike, "B D"], *, power: Scalar = 2, similarity: Literal["cosine", "sqeuclidean"] = "cosine"
) -> Float[Array, " B"]:
    r"""The distance of each pair, $\lVert a_i - b_i \rVert_2^{\text{power}}$, of unit vectors.

    Args:
      a: `[B, D]` embeddings.
      b: `[B, D]` embeddings; row i belongs to row i of `a`.
      power: at least 1.
      similarity: "cosine" normalises first, "sqeuclidean" takes the embeddings as they are.

    Returns:
      float32 `[B]`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a power below 1, another similarity.

    Reference: Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere", ICML 2020,
    section 4.1.
    """
    check.arrays(a=(a, "B D"), b=(b, "B D"))
    check.number("power", power, at_least=1)
    a, b = _placed(a, similarity), _placed(b, similarity)
    return safe_norm(a - b) ** power


def negative_cosine(
    predictions: Float[ArrayLike, "*batch D"], targets: Float[ArrayLike, "*batch D"], *, stop_gradient: bool = True
) -> Float[Array, "*batch"]:
    r"""The prediction of a target embedding up to its length, $-\cos(p, z)$; no gradient goes to the target.

    SimSiam's loss is half of each direction, `losses.mean((negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2)`; BYOL's squared distance of unit
    vectors is 2 plus twice this, the cosine distance 1 plus this.

    Args:
      predictions: `[..., D]`.
      targets: `[..., D]`.
      stop_gradient: whether the targets are constants; without that (or targets from an average of the parameters) all embeddings may fall together.

    Returns:
      float32 `[...]`, from -1 to 1; 0 with zero gradient where a vector is zero.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    Reference: Chen & He, "Exploring Simple Siamese Representation Learning" (SimSiam), CVPR 2021, equations 1 and 3; Grill et al., "Bootstrap Your
    Own Latent" (BYOL), NeurIPS 2020, equation 2.
    """
    check.arrays(predictions=(predictions, "... D"), targets=(targets, "... D"))
    if jnp.shape(targets) != jnp.shape(predictions):
        raise ValueError(f"targets must have the shape of predictions, {list(jnp.shape(predictions))}, got {list(jnp.shape(targets))}")
    return -_pairs.aligned(predictions, lax.stop_gradient(targets) if stop_gradient else targets, "cosine")


def uniformity(
    embeddings: Float[ArrayLike, "B D"],
    *,
    t: Scalar = 2,
    ids: Ids = None,
    where: Where = None,
    similarity: Literal["cosine", "sqeuclidean"] = "cosine",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, ""]:
    r"""How unevenly embeddings are spread: 0 where all coincide, lower where they keep apart.

    $$\log \operatorname{mean}_{i \ne j} \exp(-t \lVert x_i - x_j \rVert^2)$$ of unit vectors.
    Nonlinear in the whole batch, hence a scalar that is reduced over devices inside the logarithm; differentiate it as it is (see `losses.mean`).

    Args:
      embeddings: `[B, D]`.
      t: the sharpness of the kernel, above 0.
      ids: integers `[B]`, or sets `[B, R]` padded with -1: pairs whose ids meet (two views of an example) are left out.
      where: `[B]` booleans, the valid rows.
      similarity: "cosine" normalises first, "sqeuclidean" takes the embeddings as they are.
      axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      A float32 scalar, the same on every device; 0 where there is no pair.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a `t` that is not positive, another similarity.

    Reference: Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere", ICML 2020,
    section 4.1.
    """
    batch = check.arrays(embeddings=(embeddings, "B D"), where=(where, "B?", "bool"), t=(t, "", "number"))["B"]
    check.positive("t", t)
    index = pairwise.index(batch, axis_name)
    rows = _pairs.present(index=index, self=index, ids=_pairs.integers("ids", ids, batch), where=where)

    def terms(scores, row, column, t):
        kept = _pairs.kept(row, column)
        return {"lse": LogSumExp(t * scores, kept), "count": Sum(1.0, kept)}

    how = dict(similarity="sqeuclidean", axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    found = pairwise.reduce(_placed(_pairs.drop(where, embeddings), similarity), None, terms, rows=rows, params=_pairs.float_array(t), **how)
    count = _pairs.total(_pairs.drop(where, found["count"]), axis_name)
    return jnp.where(count == 0, 0, _log_total(_pairs.drop(where, found["lse"], -jnp.inf), axis_name) - jnp.log(jnp.maximum(count, 1)))


def _placed(x, similarity):
    check.choice("similarity", similarity, ("cosine", "sqeuclidean"))
    return safe_normalize(x) if similarity == "cosine" else _pairs.float_array(x)


def _log_total(x, axis_name):
    """The log-sum-exp over rows and devices; 0, with zero gradient, where all are -inf."""
    highest = lax.stop_gradient(jnp.max(x, initial=-jnp.inf))
    if axis_name is not None:
        highest = lax.pmax(vary(highest, {axis_name}), axis_name)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    total = _pairs.total(jnp.exp(x - highest), axis_name)
    return jnp.log(jnp.where(total == 0, 1, total)) + highest
