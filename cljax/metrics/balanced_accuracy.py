"""Accuracy where some classes have more examples than others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from cljax.core import check


def balanced_accuracy(predictions: Integer[ArrayLike, " N"], labels: Integer[ArrayLike, " N"], classes: int) -> Float[Array, ""]:
    r"""The mean over classes of the share of their examples that are told right, $\frac1K \sum_k P(\hat y = k \mid y = k)$.

    Args:
      predictions: `[N]` integers.
      labels: `[N]` integers from 0 to `classes` - 1.
      classes: K.

    Returns:
      A float32 scalar, from 0 to 1. A class without examples is left out; NaN where there is no example at all.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    >>> balanced_accuracy(jnp.array([0, 0, 0, 0]), jnp.array([0, 0, 0, 2]), 3).item()
    0.5
    """
    check.arrays(predictions=(predictions, "N", "int"), labels=(labels, "N", "int"))
    check.integer("classes", classes, at_least=1)
    labels = jnp.asarray(labels)
    right, count = (jax.ops.segment_sum(x.astype(jnp.float32), labels, classes) for x in (jnp.asarray(predictions) == labels, jnp.ones_like(labels)))
    return jnp.sum(right / jnp.maximum(count, 1)) / jnp.sum(count > 0)
