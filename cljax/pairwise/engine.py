"""Reductions over all pairs of queries and keys, without holding their score matrix."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import check
from cljax.pairwise import dense
from cljax.pairwise.similarity import SIMILARITIES, centre
from cljax.pairwise.terms import TermFn


def index(batch, axis_name=None):
    """The global index of this device's rows: what a term compares to tell self from others.

    Args:
      batch: the number of rows on this device.
      axis_name: the mapped axis over which the rows are split, or None.

    Returns:
      int32 `[batch]`: `axis_index * batch + 0, 1, ...`.
    """
    check.integer("batch", batch, at_least=0)
    check.axis("axis_name", axis_name)
    local = jnp.arange(batch, dtype=jnp.int32)
    return local if axis_name is None else local + lax.axis_index(axis_name).astype(jnp.int32) * batch


def reduce(queries, keys, terms, *, rows=None, columns=None, params=None, similarity="dot", block_size=None, implementation="auto", axis_name=None, collective="gather"):
    check.choice("similarity", similarity, SIMILARITIES)
    if keys is None:
        keys, columns = queries, rows
    if axis_name is not None:
        raise NotImplementedError
    return dense.reduce(queries, keys, terms, rows, columns, params, similarity, centre(similarity, keys))
