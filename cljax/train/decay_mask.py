"""Which parameters are decayed."""

import jax
from jaxtyping import PyTree


def decay_mask(params: PyTree) -> PyTree:
    """Which parameters are named "kernel", as those of Linen's layers by which an input is multiplied: no bias, no scale of a normalisation.

    `optax.add_decayed_weights(1e-4, mask=train.decay_mask)` decays these alone.

    Args:
      params: a tree of dicts.

    Returns:
      The tree with True or False in place of each parameter.

    >>> decay_mask({"Dense_0": {"kernel": 1.0, "bias": 2.0}, "BatchNorm_0": {"scale": 3.0}})
    {'BatchNorm_0': {'scale': False}, 'Dense_0': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel" if path else False, params)
