"""A small convolutional net, for images of 8 to 64 pixels."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.encoders.initialise import lecun_normal
from cljax.encoders.mlp import check_widths, finish


class ConvNet(nn.Module):
    """3 x 3 convolutions, each with group normalisation and ReLU, the mean over all places, and a linear layer.

    Every convolution but the first halves height and width (stride 2). Group normalisation keeps no running statistics: the module is a pure
    function of its parameters, and an image's embedding does not hang on the rest of the batch.

    Attributes:
      channels: the channels of the convolutions, `(32, 64, 128)`: at least one.
      features: D, the width of the embeddings.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.

    Call:
      `apply(params, images)` with images `[B, H, W]` or `[B, H, W, C]` floats gives float32 `[B, D]`.

    Raises:
      TypeError, ValueError: a number of channels or features is not an integer above 0; images are not floats or have another shape.

    >>> import jax, jax.numpy as jnp
    >>> model = ConvNet((8, 16), 32)
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((2, 8, 8)))
    >>> model.apply(params, jnp.ones((2, 8, 8))).shape
    (2, 32)
    """

    channels: Sequence[int]
    features: int
    dtype: Any = jnp.float32
    normalise: bool = False

    def __post_init__(self):
        check_widths("channels", self.channels, self.features)
        if not self.channels:
            raise ValueError("channels must name at least one convolution, got none")
        self.channels = tuple(self.channels)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Float[ArrayLike, "B H W *C"]) -> Float[Array, "B D"]:
        if jnp.ndim(images) not in (3, 4):
            raise ValueError(f"images must have shape [B, H, W] or [B, H, W, C], got {list(jnp.shape(images))}")
        check.arrays(images=(images, "..."))
        hidden = images if jnp.ndim(images) == 4 else images[..., None]
        for i, channels in enumerate(self.channels):
            hidden = nn.Conv(channels, (3, 3), strides=1 if i == 0 else 2, use_bias=False, dtype=self.dtype, kernel_init=lecun_normal)(hidden)
            hidden = nn.relu(nn.GroupNorm(num_groups=math.gcd(8, channels), dtype=self.dtype)(hidden))
        return finish(nn.Dense(self.features, dtype=self.dtype, kernel_init=lecun_normal)(jnp.mean(hidden, axis=(1, 2))), self.normalise)
