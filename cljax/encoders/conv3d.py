"""A small convolutional net over time and space, for clips of small frames."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.encoders.batch_norm import batch_norm, check_train
from cljax.encoders.initialise import lecun_normal
from cljax.encoders.mlp import check_widths, finish
from cljax.encoders.patches import convolve


class ConvNet3D(nn.Module):
    """3 x 3 x 3 convolutions, each with batch normalisation and ReLU, and the mean over all of time and space.

    Every convolution but the first halves height and width (stride 2); the frames stay as many. See `ResNet` for how a step carries the running
    averages of batch normalisation. On a CPU the convolutions are products with patches (`patches.convolve`).

    Attributes:
      channels: the channels of the convolutions, one at least; the last is D, the width of the embeddings.
      axis_name: the mapped axis over which a batch is split in training, `"data"` in `train.fit`; None where it is not.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters, statistics and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.
      features: D, the width of the embeddings (not to be given).

    Call:
      `apply(variables, clips, train=False)` with clips `[B, T, H, W]` or `[B, T, H, W, C]` floats gives float32 `[B, D]`.

    Raises:
      TypeError, ValueError: a number of channels is not an integer above 0; clips are not floats or have another shape; in training there is one clip
        in all, or `axis_name` is not mapped.

    >>> import jax, jax.numpy as jnp
    >>> model = ConvNet3D((4, 8))
    >>> clips = jnp.ones((2, 3, 8, 8))
    >>> variables = jax.jit(model.init)(jax.random.key(0), clips)
    >>> jax.jit(model.apply)(variables, clips).shape, model.features
    ((2, 8), 8)
    """

    channels: Sequence[int] = (16, 32, 64)
    axis_name: str | None = None
    dtype: Any = jnp.float32
    normalise: bool = False

    def __post_init__(self):
        check_widths("channels", self.channels, 1)
        if not self.channels:
            raise ValueError("channels must name at least one convolution, got none")
        self.channels = tuple(self.channels)
        super().__post_init__()

    @property
    def features(self) -> int:
        return self.channels[-1]

    @nn.compact
    def __call__(self, clips: Float[ArrayLike, "B T H W *C"], train: bool = False) -> Float[Array, "B D"]:
        check_train(train)
        hidden = jnp.asarray(clips_with_channels(clips), self.dtype)
        for i, channels in enumerate(self.channels):
            how = dict(use_bias=False, dtype=self.dtype, kernel_init=lecun_normal, conv_general_dilated=convolve)
            hidden = nn.Conv(channels, (3, 3, 3), (1, 2, 2) if i else 1, [(1, 1)] * 3, **how)(hidden)
            hidden = nn.relu(batch_norm(hidden, train=train, axis_name=self.axis_name, dtype=self.dtype))
        return finish(jnp.mean(hidden, axis=(1, 2, 3), dtype=jnp.float32), self.normalise)


def clips_with_channels(clips):
    """Clips `[B, T, H, W, C]`, checked; those without channels have one."""
    if jnp.ndim(clips) not in (4, 5):
        raise ValueError(f"clips must have shape [B, T, H, W] or [B, T, H, W, C], got {list(jnp.shape(clips))}")
    check.arrays(clips=(clips, "..."))
    return clips if jnp.ndim(clips) == 5 else clips[..., None]
