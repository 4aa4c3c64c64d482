"""Weighted draws without replacement."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int32

from cljax.core import check
from cljax.core.check import KeyLike


def gumbel_top_k(key: KeyLike, log_weights: Float[ArrayLike, "*batch N"], k: int) -> Int32[Array, "*batch k"]:
    r"""Draws k of N entries without replacement, each time with probability proportional to its weight among those left.

    $$i_1, \ldots, i_k = \operatorname{top}_k (\log w_i + g_i), \qquad g_i \sim \text{Gumbel}$$

    Args:
      key: a PRNG key, of all rows.
      log_weights: `[..., N]` logarithms of weights, which need not sum to 1; -inf is never drawn.
      k: from 1 to N.

    Returns:
      int32 `[..., k]` in the order in which they are drawn; -1 where no entry is left.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Kool et al., "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling Sequences Without Replacement", ICML 2019.

    >>> gumbel_top_k(jax.random.key(0), jnp.array([-jnp.inf, 0.0, -jnp.inf]), 2).tolist()
    [1, -1]
    """
    check.key("key", key)
    check.integer("k", k, at_least=1, at_most=check.arrays(log_weights=(log_weights, "... N"))["N"])
    log_weights = jnp.asarray(log_weights)
    log_weights = log_weights.astype(jnp.promote_types(log_weights.dtype, jnp.float32))
    values, indices = lax.top_k(log_weights + jax.random.gumbel(key, log_weights.shape, log_weights.dtype), k)
    return jnp.where(values == -jnp.inf, -1, indices).astype(jnp.int32)
