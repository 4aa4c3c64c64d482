"""What differs between the JAX versions that are supported (0.7.2 and later), in one place."""

import jax
from jax import lax


def varying_axes(*trees):
    """The mesh axes over which any leaf of `trees` varies inside `jax.shard_map`; empty elsewhere, and under `check_vma=False`."""
    axes = set()
    for leaf in jax.tree.leaves(trees):
        kind = jax.typeof(leaf)
        axes |= kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
    return frozenset(axes)


def vary(tree, axes):
    """Marks every leaf of `tree` as varying over the mapped axes `axes`, on top of those over which it varies; the transpose sums over what was
    added.

    Only `jax.shard_map` with `check_vma=True` keeps such marks: under `jax.pmap`, `jax.vmap(axis_name=)` and `check_vma=False` the tree comes back
    as it is.
    """
    tracked = {axis for axis in axes if axis in varying_axes(lax.axis_index(axis))}

    def mark(leaf):
        missing = tuple(sorted(tracked - varying_axes(leaf)))
        if not missing:
            return leaf
        return lax.pcast(leaf, missing, to="varying") if hasattr(lax, "pcast") else lax.pvary(leaf, missing)

    return jax.tree.map(mark, tree)


def platform():
    """Where a new array would lie: `"cpu"`, `"gpu"`, `"tpu"`."""
    device = jax.config.jax_default_device
    return jax.default_backend() if device is None else device if isinstance(device, str) else device.platform
