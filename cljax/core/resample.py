"""Weighted draws with replacement that are spread as evenly as can be."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int32

from cljax.core import check
from cljax.core.check import KeyLike


def systematic_resample(key: KeyLike, weights: Float[ArrayLike, " N"], count: int) -> Int32[Array, " count"]:
    r"""Draws entries with replacement, entry i on average $L w_i / \sum_j w_j$ times, and never a whole time more or less.

    One number $u \sim U[0, 1)$ places a comb, $(u + l) / L$ for l = 0, ..., L - 1, over the running sum of the weights: draw l is the entry on which
    its tooth falls.

    Args:
      key: a PRNG key.
      weights: `[N]`, not below 0; they need not sum to 1.
      count: L, how many are drawn.

    Returns:
      int32 `[count]`, rising; an entry of weight 0 is never drawn. -1 everywhere where no weight is above 0 or one is NaN.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Carpenter et al., "Improved Particle Filter for Nonlinear Problems", IEE Proceedings 1999; Douc et al., "Comparison of Resampling
    Schemes for Particle Filtering", 2005.

    >>> systematic_resample(jax.random.key(0), jnp.array([0.0, 3.0, 1.0]), 4).tolist()
    [1, 1, 1, 2]
    """
    check.key("key", key)
    size = check.arrays(weights=(weights, "N"))["N"]
    check.integer("count", count, at_least=1)
    if size == 0:
        raise ValueError("weights must not be empty, got shape [0]")
    if not isinstance(weights, jax.core.Tracer) and np.any(np.asarray(weights) < 0):
        raise ValueError(f"weights must be at least 0, got a minimum of {np.nanmin(weights)}")
    weights = jnp.asarray(weights)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    ends = jnp.cumsum(weights)
    teeth = (jax.random.uniform(key, (), weights.dtype) + jnp.arange(count)) / count
    last = jnp.max(jnp.where(weights > 0, jnp.arange(size), 0))  # where rounding puts a tooth on the very end
    found = jnp.minimum(jnp.searchsorted(ends, teeth * ends[-1], side="right"), last)
    return jnp.where(ends[-1] > 0, found, -1).astype(jnp.int32)
