"""Integers that say what two examples share: ids and labels, one an example or a set of them."""

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core import check


def integers(name, value, size):
    """Ids or labels as an array: `[size]` integers or `[size, R]` sets padded with -1; ids that are None stay None.

    Raises TypeError or ValueError, naming the argument, for another shape or dtype, and for numpy integers that are too far apart for 32 bits.
    """
    if value is None and name.endswith("ids"):
        return None
    check.arrays(**{name: (value, f"{size}" if np.ndim(value) == 1 else f"{size} R", "int")})
    if isinstance(value, np.ndarray) and value.size and not jax.config.jax_enable_x64 and int(value.max()) - int(value.min()) >= 2**32:
        raise ValueError(f"{name} must fit into 32 bits, got values from {value.min()} to {value.max()}: number them, or enable jax_enable_x64")
    return jnp.asarray(value)


def meet(a, b):
    """Whether two integers are equal, or two sets share a member: leaves `[b, 1]` or `[b, 1, R]` against `[1, n]` or `[1, n, S]`."""
    if a.ndim == b.ndim == 2:
        return _equal(a, b)
    a, b = a[..., None, None] if a.ndim == 2 else a[..., :, None], b[..., None, None] if b.ndim == 2 else b[..., None, :]
    return jnp.any(_equal(a, b) & (a != _padding(a)) & (b != _padding(b)), axis=(-2, -1))


def _equal(a, b):
    # Where two dtypes have no common one (int32 and uint32 without 64 bits), promotion wraps: equal bits of unequal sign are not equal.
    return a == b if a.dtype == b.dtype else (a == b) & ((a < 0) == (b < 0))


def _padding(ids):
    return np.array(-1).astype(ids.dtype)  # the largest number of an unsigned dtype
