"""A small convolutional net in one dimension, for windows of signals."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.encoders.batch_norm import check_train
from cljax.encoders.initialise import lecun_normal
from cljax.encoders.mlp import check_widths, finish


class ConvNet1D(nn.Module):
    """Convolutions over time, each with ReLU and dropout, and the largest or the mean value of each channel over time.

    Convolutions have stride 1 and no padding: a window must be longer than the sum of `widths - 1`. The defaults are the encoder of ColloSSL.

    Attributes:
      channels: the channels of the convolutions, one at least; the last is D, the width of the embeddings.
      widths: the samples that each convolution sees.
      pool: "max" or "mean" over time.
      dropout: the share of values that are dropped after each convolution in training, from 0 to 1; a step that trains with dropout gives
        `rngs={"dropout": key}`.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.

    Call:
      `apply(variables, signals, train=False)` with signals `[B, T]` or `[B, T, C]` floats gives float32 `[B, D]`; `train` matters to dropout alone.

    Raises:
      TypeError, ValueError: an attribute of another kind or range; signals are not floats, have another shape or are too short.

    Reference: Jain et al., "ColloSSL: Collaborative Self-Supervised Learning for Human Activity Recognition", 2022 (encoder).

    >>> import jax, jax.numpy as jnp
    >>> model = ConvNet1D((8, 16), (5, 3))
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((2, 32, 3)))
    >>> model.apply(params, jnp.ones((2, 32, 3))).shape, model.features
    ((2, 16), 16)
    """

    channels: Sequence[int] = (32, 64, 96)
    widths: Sequence[int] = (24, 16, 8)
    pool: Literal["max", "mean"] = "max"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    normalise: bool = False

    def __post_init__(self):
        if not isinstance(self.channels, Sequence) or not self.channels:
            raise TypeError(f"channels must be a sequence of integers, at least one, got {self.channels!r}")
        check_widths("channels", self.channels, self.channels[-1])
        check_widths("widths", self.widths, self.channels[-1])
        if len(self.widths) != len(self.channels):
            raise ValueError(f"widths must be one for each of the {len(self.channels)} channels, got {len(self.widths)}")
        check.choice("pool", self.pool, ("max", "mean"))
        check.number("dropout", self.dropout, at_least=0, at_most=1)
        self.channels, self.widths = tuple(self.channels), tuple(self.widths)
        super().__post_init__()

    @property
    def features(self) -> int:
        return self.channels[-1]

    @nn.compact
    def __call__(self, signals: Float[ArrayLike, "B T *C"], train: bool = False) -> Float[Array, "B D"]:
        check_train(train)
        if jnp.ndim(signals) not in (2, 3):
            raise ValueError(f"signals must have shape [B, T] or [B, T, C], got {list(jnp.shape(signals))}")
        check.arrays(signals=(signals, "..."))
        least = sum(self.widths) - len(self.widths) + 1
        if jnp.shape(signals)[1] < least:
            raise ValueError(f"signals must have at least {least} samples for convolutions of widths {self.widths}, got {jnp.shape(signals)[1]}")
        hidden = signals if jnp.ndim(signals) == 3 else signals[..., None]
        for channels, width in zip(self.channels, self.widths, strict=True):
            hidden = nn.relu(nn.Conv(channels, (width,), padding="VALID", dtype=self.dtype, kernel_init=lecun_normal)(hidden))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return finish(jnp.max(hidden, axis=1) if self.pool == "max" else jnp.mean(hidden, axis=1), self.normalise)
