"""From one value an anchor to the scalar that is differentiated, on one device or many."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check, vary


class Masked(NamedTuple):
    """Values of which some do not exist: an anchor without a positive, a query without a relevant item.

    Attributes:
      values: `[B]` floats (of tokens `[B, T]`), 0 where there is none.
      where: booleans of the same shape, which values count.
    """

    values: Float[Array, "..."]
    where: Bool[Array, "..."]


def mean(
    values: Float[ArrayLike, "..."] | Masked, weights: Float[ArrayLike, "..."] | Bool[ArrayLike, "..."] | None = None, axis_name: str | None = None
) -> Float[Array, ""]:
    r"""The weighted mean over all devices, $\sum_i w_i v_i / \sum_i w_i$, already reduced over `axis_name`; 0 where nothing counts.

    The rule for gradients: pass every per-example term of an objective through this function, differentiate the sum of the results, and `pmean`
    the gradients of the parameters. That is right under jit, vmap, pmap and shard_map, with check_vma on (where the pmean does nothing) and off.
    A local `.mean()` beside it is wrong by the number of devices under check_vma=True. Gradients of device-local arrays (embeddings) are n times
    the global ones under pmap and check_vma=False: feed them back into the network, never average or log them.

    >>> from cljax import losses
    >>> print(losses.mean(jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])))
    2.0

    Args:
      values: floats of any shape, or `Masked`, whose values count where it says so.
      weights: as `values`: booleans leave values out (whatever they are, NaN too), floats multiply.
      axis_name: the mapped axis over which the values are split, or None.

    Returns:
      A float32 scalar, the same on every device.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: weights of another shape than the values, or an axis that is not mapped.
    """
    values, counted = values if isinstance(values, Masked) else (values, None)
    check.arrays(values=(values, "..."), weights=(weights, "...?", None))
    check.arrays(**{"values.where": (counted, "...?", "bool")})
    for name, given in (("values.where", counted), ("weights", weights)):
        if given is not None and jnp.shape(given) != jnp.shape(values):
            raise ValueError(f"{name} must have the shape of values, {list(jnp.shape(values))}, got {list(jnp.shape(given))}")
    check.axis("axis_name", axis_name)
    dtype = jnp.promote_types(jnp.result_type(values), jnp.float32)
    w = jnp.ones(jnp.shape(values), dtype) if weights is None else jnp.asarray(weights, dtype)
    for kept in (counted, weights):
        if kept is not None and jnp.issubdtype(jnp.result_type(kept), jnp.bool_):
            values, w = jnp.where(kept, values, 0), jnp.where(kept, w, 0)
    total, weight = jnp.sum(w * values, dtype=dtype), jnp.sum(w)
    if axis_name is not None:
        # One psum each: jax 0.7 cannot transpose a psum of two where only one is differentiated.
        total, weight = (lax.psum(vary(x, {axis_name}), axis_name) for x in (total, weight))
    return jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))
