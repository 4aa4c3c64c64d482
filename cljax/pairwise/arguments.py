"""What `reduce` and `top_k` do with their arguments before the work begins."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from cljax.core import check, vary, varying_axes
from cljax.pairwise.similarity import SIMILARITIES

IMPLEMENTATIONS = ("auto", "dense", "blockwise")
COLLECTIVES = ("gather", "ring")


def checked(queries, keys, rows, columns, *, similarity, block_size, implementation, axis_name, collective):
    """The four as trees of arrays (keys may be None); raises for whatever no pairwise function takes."""
    sizes = check.arrays(queries=(queries, "B D"), keys=(keys, "N D?"))
    check.choice("similarity", similarity, SIMILARITIES)
    check.choice("implementation", implementation, IMPLEMENTATIONS)
    check.choice("collective", collective, COLLECTIVES)
    check.axis("axis_name", axis_name)
    if block_size is not None:
        check.integer("block_size", block_size, at_least=1)
    queries, keys, rows, columns = jax.tree.map(jnp.asarray, (queries, keys, rows, columns))
    if keys is None and columns is not None:
        raise ValueError("columns must be None where keys is None: the queries are their own keys, and the rows' leaves their columns'")
    _check_leaves("rows", rows, "queries", sizes["B"])
    if keys is not None:
        _check_leaves("columns", columns, "keys", len(keys))
    _check_sharding(queries=queries, keys=keys)
    return queries, keys, rows, columns


def _check_leaves(name, tree, side, size):
    for leaf in jax.tree.leaves(tree):
        if leaf.ndim == 0 or len(leaf) != size:
            raise ValueError(f"every leaf of {name} must have one entry for each of the {size} {side}, got shape {list(leaf.shape)}")


def _check_sharding(**arrays):
    for name, array in arrays.items():
        if array is None:
            continue
        sharding = jax.typeof(array).sharding
        if any(kind == AxisType.Explicit for kind in sharding.mesh.axis_types) and any(axis is not None for axis in sharding.spec):
            raise ValueError(
                f"{name} must not be sharded over explicit mesh axes, got {sharding.spec}: call inside jax.shard_map with axis_name, "
                "or make the mesh with AxisType.Auto"
            )


def gathered(queries, keys, rows, columns, params, axis_name, collective="gather"):
    """The arguments as one device needs them, marked as varying over the axis: all keys and columns beside its own queries and rows, or its own keys
    where they travel.

    Keys stay None (the queries are their own) where one device holds all queries.
    """
    inputs = queries, keys, rows, columns, params
    queries, keys, rows, columns, params = vary(inputs, varying_axes(inputs) | ({axis_name} - {None}))
    if axis_name is None or lax.axis_size(axis_name) == 1:
        return queries, keys, rows, columns, params
    keys, columns = (queries, rows) if keys is None else (keys, columns)
    if collective == "gather":
        keys, columns = jax.tree.map(lambda leaf: lax.all_gather(leaf, axis_name, tiled=True), (keys, columns))
    return queries, keys, rows, columns, params
