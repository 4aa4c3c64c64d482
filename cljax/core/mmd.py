"""The distance of two samples by the means of their kernels."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.core.compat import vary

SCALES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 100.0)


def mmd(
    x: Float[ArrayLike, "N F"],
    y: Float[ArrayLike, "M F"],
    *,
    scales: Sequence[float] = SCALES,
    floor: float | Float[ArrayLike, ""] = 0.0,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""The squared maximum mean discrepancy of two samples, under a sum of Gaussian kernels.

    $$\max(\bar k(X, X) + \bar k(Y, Y) - 2 \bar k(X, Y),\ \text{floor}), \qquad k(u, v) = \sum_s \exp(-\lVert u - v \rVert^2 / (2 s)),$$
    with $\bar k$ the mean over all pairs, a point with itself included (the biased estimate, which is not negative). Squared distances come from one
    product of centred points; those of the i-th x and the i-th y from their difference, so that a sample has no distance to itself.

    Args:
      x: `[N, F]` points; computed in float32 at least.
      y: `[M, F]` points.
      scales: the variances s of the kernels, above 0.
      floor: the least value.
      axis_name: the mapped axis over which both samples are split; all devices give the distance of the whole ones.

    Returns:
      A float32 scalar (float64 for float64 input); NaN where a point is.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, an empty sample, a scale that is not positive, an axis that is not mapped.

    Reference: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 5.

    >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    >>> print(f"{mmd(x, x + jnp.array([0.0, 1.0])):.4f} {mmd(x, x):.4f}")
    5.1037 0.0000
    """
    sizes = check.arrays(x=(x, "N F"), y=(y, "M F"))
    for name, size in (("x", sizes["N"]), ("y", sizes["M"])):
        if size == 0:
            raise ValueError(f"{name} must hold at least one point, got shape [0, {sizes['F']}]")
    if isinstance(scales, str) or not isinstance(scales, Sequence) or not scales:
        raise TypeError(f"scales must be a sequence of numbers, at least one, got {scales!r}")
    for scale in scales:
        check.positive("scales", scale)
    check.number("floor", floor)
    check.axis("axis_name", axis_name)
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    return _mmd(*(jnp.asarray(z, dtype) for z in (x, y)), tuple(jnp.asarray(scale, dtype) for scale in scales), jnp.asarray(floor, dtype), axis_name)


@partial(jax.jit, static_argnames="axis_name")  # else each kernel is a program of its own
def _mmd(x, y, scales, floor, axis_name):
    every_x, every_y = (x, y) if axis_name is None else (lax.all_gather(vary(z, {axis_name}), axis_name, tiled=True) for z in (x, y))
    centre = lax.stop_gradient(jnp.mean(every_x, axis=0))
    part = 0 if axis_name is None else lax.axis_index(axis_name)

    def similarity(a, b):
        distances = _squared_distances(a - centre, b - centre, part * len(a))
        mean = sum(jnp.mean(jnp.exp(distances / (-2 * scale))) for scale in scales)
        return mean if axis_name is None else lax.pmean(vary(mean, {axis_name}), axis_name)

    return jnp.maximum(similarity(x, every_x) + similarity(y, every_y) - 2 * similarity(x, every_y), floor)


def _squared_distances(a, b, first):
    """From rows `[n, F]`, of which the first is number `first` of its sample, to the whole of a sample `[m, F]`: `[n, m]`."""
    products = jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
    distances = jnp.maximum(jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1) - 2 * products, 0)
    place = first + jnp.arange(len(a))
    aligned = jnp.sum((a - b[jnp.minimum(place, len(b) - 1)]) ** 2, axis=1)
    return jnp.where(place[:, None] == jnp.arange(len(b)), aligned[:, None], distances)
