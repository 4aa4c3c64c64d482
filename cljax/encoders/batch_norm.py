"""Batch normalisation, over the rows of one device or of a mapped axis of devices."""

import math

from flax import linen as nn
from jax import lax

from cljax.core import check


def batch_norm(hidden, *, train, axis_name, dtype, affine=True, scale=1.0, momentum=0.9):
    r"""Normalises each channel (the last axis) inside a compact Linen method, $y = \gamma (x - \mu) / \sqrt{\sigma^2 + 10^{-5}} + \beta$.

    In training $\mu$ and $\sigma^2$ are those of the batch (of all devices of `axis_name`), in float32, and the running averages in the collection
    `batch_stats` move towards them, by a tenth; otherwise the running averages are used. The running variance is the biased one.

    Args:
      hidden: `[..., C]` values.
      train: whether the statistics of the batch are used.
      axis_name: the mapped axis over which the batch is split, or None.
      dtype: of the result.
      affine: whether gamma and beta are learned.
      scale: gamma at first.
      momentum: the share of the running averages that stays at each step.

    Raises:
      ValueError: in training, `axis_name` is not mapped here, or there is one row in all.
    """
    layer = nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        dtype=dtype,
        axis_name=axis_name,
        # The quick variance, E x^2 - (E x)^2 in one pass, is inexact for representations, whose mean after ReLU is large beside their spread.
        use_fast_variance=hidden.ndim >= 4,
        use_scale=affine,
        use_bias=affine,
        scale_init=nn.initializers.constant(scale),
    )
    if train and not layer.is_initializing():
        check.axis("axis_name", axis_name)
        rows = hidden.shape[0] if hidden.ndim >= 4 else math.prod(hidden.shape[:-1])
        if rows * (1 if axis_name is None else lax.axis_size(axis_name)) < 2:
            raise ValueError("batch normalisation in training needs at least two rows, got 1; with train=False it uses the running averages")
    return layer(hidden)


def check_train(train):
    """Raises TypeError unless `train` is a Python boolean: it decides which program is made."""
    if not isinstance(train, bool):
        raise TypeError(f"train must be True or False, got {type(train).__name__}")
