"""Losses on the statistics of features over a batch, which keep them from collapsing without negatives: Barlow Twins, the terms of VICReg.

Nonlinear in the whole batch, hence scalars whose means are taken over the valid rows of all devices first; differentiate them as they are (see
`losses.mean`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Scalar, Where
from cljax.pairwise.similarity import product


def barlow_twins(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    off_diagonal_weight: Scalar = 0.005,
    epsilon: Scalar = 1e-5,
    where: Where = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""How far the correlations of two views' features are from the identity.

    $$\sum_j (C_{jj} - 1)^2 + \lambda \sum_{j \ne k} C_{jk}^2, \qquad C = \frac1n \hat A^\top \hat B$$

    Features are standardised over the batch first, by the biased variance plus $\epsilon$, as the released code's batch norm does; the pseudo-code of
    the paper divides by the unbiased deviation, which scales C by (n - 1) / n.

    Args:
      a: `[B, D]` features of one view.
      b: `[B, D]` features of the other view, in the same order.
      off_diagonal_weight: $\lambda$.
      epsilon: $\epsilon$, above 0.
      where: `[B]` booleans, the valid rows.
      axis_name: the mapped axis over which the rows are split, or None.

    Returns:
      A float32 scalar, the same on every device; 0 where no row is valid.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, an epsilon that is not positive, an axis that is not mapped.

    Reference: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021, equations 1 and 2.
    """
    batch = check.arrays(a=(a, "B D"), b=(b, "B D"), where=(where, "B?", "bool"), off_diagonal_weight=(off_diagonal_weight, "", "number"))["B"]
    check.positive("epsilon", epsilon)
    check.axis("axis_name", axis_name)
    count = _pairs.valid(batch, where, axis_name)
    a, b = (_centred(x, count, where, axis_name) for x in (a, b))
    a, b = (x / jnp.sqrt(_pairs.total(x**2, axis_name, axis=0) / jnp.maximum(count, 1) + epsilon) for x in (a, b))
    correlation = _product(a, b, axis_name) / jnp.maximum(count, 1)
    return jnp.where(count == 0, 0, jnp.sum((jnp.diagonal(correlation) - 1) ** 2) + off_diagonal_weight * _off_diagonal(correlation))


def variance(
    features: Float[ArrayLike, "B D"],
    *,
    target: Scalar = 1.0,
    epsilon: Scalar = 1e-4,
    where: Where = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""How far the deviation of each feature over the batch falls below a target: the variance term of VICReg.

    $$\frac1D \sum_j \left[\gamma - \sqrt{\operatorname{Var}(z_j) + \epsilon}\right]_+$$

    with the unbiased variance. VICReg's invariance is `losses.mean(losses.alignment(a, b, similarity="sqeuclidean"))`. Its released code weighs that
    over D with 25, the mean of this term over both views with 25, and the sum of `covariance` of both with 1; the paper does not divide by D, and
    takes the sum of this term too.

    Args:
      features: `[B, D]`.
      target: $\gamma$.
      epsilon: $\epsilon$, above 0: it bounds the gradient of the root.
      where: `[B]` booleans, the valid rows.
      axis_name: the mapped axis over which the rows are split, or None.

    Returns:
      A float32 scalar, the same on every device; 0 where no row is valid.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, an epsilon that is not positive, an axis that is not mapped.

    Reference: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR 2022, equations 1 and 2.
    """
    batch = check.arrays(features=(features, "B D"), where=(where, "B?", "bool"), target=(target, "", "number"))["B"]
    check.positive("epsilon", epsilon)
    check.axis("axis_name", axis_name)
    count = _pairs.valid(batch, where, axis_name)
    squares = _pairs.total(_centred(features, count, where, axis_name) ** 2, axis_name, axis=0)
    deviation = jnp.sqrt(squares / jnp.maximum(count - 1, 1) + epsilon)
    return jnp.where(count == 0, 0, jnp.mean(jax.nn.relu(target - deviation)))


def covariance(features: Float[ArrayLike, "B D"], *, where: Where = None, axis_name: str | None = None) -> Float[Array, ""]:
    r"""How strongly different features vary together over the batch: the covariance term of VICReg.

    $$\frac1D \sum_{j \ne k} C_{jk}^2$$

    with the unbiased covariance $C$. The mean over the D (D - 1) entries, which DynaMo takes, is this divided by D - 1.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> print(f"{losses.covariance(jnp.array([[1.0, 2, 0], [0, 1, 1], [2, 0, 1], [1, 1, 3]])):.6f}")
    0.148148

    Args:
      features: `[B, D]`.
      where: `[B]` booleans, the valid rows.
      axis_name: the mapped axis over which the rows are split, or None.

    Returns:
      A float32 scalar, the same on every device; 0 where fewer than two rows are valid.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, an axis that is not mapped.

    Reference: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR 2022, equations 3 and 4.
    """
    sizes = check.arrays(features=(features, "B D"), where=(where, "B?", "bool"))
    check.axis("axis_name", axis_name)
    count = _pairs.valid(sizes["B"], where, axis_name)
    centred = _centred(features, count, where, axis_name)
    return _off_diagonal(_product(centred, centred, axis_name) / jnp.maximum(count - 1, 1)) / sizes["D"]


def _centred(x, count, where, axis_name):
    """The valid rows less their mean, 0 elsewhere."""
    x = _pairs.drop(where, _pairs.float_array(x))
    return _pairs.drop(where, x - _pairs.total(x, axis_name, axis=0) / jnp.maximum(count, 1))


def _product(a, b, axis_name):
    """a^T b over the rows of all devices, `[D, D]`."""
    return _pairs.total(product(a, b, (0, 0))[None], axis_name, axis=0)


def _off_diagonal(matrix):
    """The sum of squares beside the diagonal."""
    return jnp.sum(jnp.where(jnp.eye(len(matrix), dtype=bool), 0, matrix) ** 2)
