"""Elementary functions whose values and gradients stay finite where the textbook form does not."""

import jax.numpy as jnp
from jax import lax


def safe_normalize(x, axis=-1):
    r"""Scales vectors to unit length, $x / \lVert x \rVert_2$; a zero vector stays zero and gets a zero gradient.

    Args:
      x: `[..., D]` floats; computed in float32 at least.
      axis: the axis of the vectors.

    Returns:
      Float32 (float64 for float64 input) of the same shape.
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    scaled = x / jnp.where(largest == 0, 1, largest)  # else squares of entries beyond 1e19 or below 1e-19 leave float32
    square = jnp.sum(scaled * scaled, axis=axis, keepdims=True)
    return jnp.where(square == 0, 0, scaled / jnp.sqrt(jnp.where(square == 0, 1, square)))


def safe_norm(x, axis=-1):
    r"""Euclidean length $\lVert x \rVert_2$ with a zero gradient at zero (`jnp.linalg.norm` gives NaN there).

    Args:
      x: `[..., D]` floats; computed in float32 at least.
      axis: the axis of the vectors, which the result lacks.
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.sum(x * x, axis=axis)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
