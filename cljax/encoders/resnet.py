"""Residual networks, for images of 32 pixels and for large ones, and for clips."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check
from cljax.encoders.batch_norm import batch_norm, check_train
from cljax.encoders.conv3d import clips_with_channels
from cljax.encoders.initialise import he_normal
from cljax.encoders.mlp import check_widths, finish
from cljax.encoders.patches import convolve


class ResNet(nn.Module):
    r"""A residual network, $h \leftarrow \max(0, h + F(h))$ block by block, and the mean over all places.

    $F$ is two 3 x 3 convolutions, or with `bottleneck` a 1 x 1, a 3 x 3 and a 1 x 1 one with four times the channels; each is followed by batch
    normalisation, all but the last by ReLU. A stage has twice the channels of the one before; its first block halves height and width, by its first
    3 x 3 convolution (not in the first stage), and has a 1 x 1 convolution on its short cut where shapes differ. `resnet18` and `resnet50` have the
    published sizes, with torchvision's padding.

    The variables are `{"params": ..., "batch_stats": ...}`. `apply(variables, images)` uses the running averages. In training the statistics of the
    batch count, and the averages come back beside the embeddings; a step of `train.fit` carries them in its state, and `axis_name="data"` makes the
    statistics those of the whole batch and keeps the averages equal on all devices:

        def objective(params, batch_stats, batch, key):
            variables = {"params": params, "batch_stats": batch_stats}
            embeddings, updated = MODEL.apply(variables, views_of(key, batch), train=True, mutable=["batch_stats"])
            ...
            return losses.mean(values, axis_name="data"), updated["batch_stats"]

        def step(state, batch, key):
            inputs = state["params"], state["batch_stats"], batch, key
            (value, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(*inputs)
            ...
            return {"params": params, "batch_stats": batch_stats, "opt": opt}, {"loss": value}

    Attributes:
      stages: the number of blocks in each stage.
      width: the channels of the first stage.
      bottleneck: which of the two kinds of block.
      small_stem: whether a 3 x 3 convolution comes first, as is usual for 32 x 32 images, instead of a 7 x 7 one with stride 2 and a 3 x 3 maximum
        with stride 2.
      axis_name: the mapped axis over which a batch is split in training, `"data"` in `train.fit`; None where it is not.
      zero_scale: whether the last scale of each block is 0 at first, so that the block is the identity.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters, statistics and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.
      momentum: the share of the running averages that stays at each step of training.
      features: D, the width of the embeddings: that of the last stage (not to be given).

    Call:
      `apply(variables, images, train=False)` with images `[B, H, W]` or `[B, H, W, C]` floats gives float32 `[B, D]`.

    Raises:
      TypeError, ValueError: a number is not an integer above 0; images are not floats or have another shape; in training there is one image in
        all, or `axis_name` is not mapped.

    Reference:
      He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1, with the stride in the 3 x 3 convolution; `zero_scale`:
      Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1; `small_stem`: Chen et al. (SimCLR), ICML 2020, appendix B.9.

    >>> import jax, jax.numpy as jnp
    >>> model = ResNet((1, 1), width=4, small_stem=True)
    >>> images = jnp.ones((2, 8, 8, 3))
    >>> variables = jax.jit(model.init)(jax.random.key(0), images)
    >>> embeddings, updated = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    >>> embeddings.shape, model.features, list(updated)
    ((2, 8), 8, ['batch_stats'])
    """

    stages: Sequence[int]
    width: int = 64
    bottleneck: bool = False
    small_stem: bool = False
    axis_name: str | None = None
    zero_scale: bool = True
    dtype: Any = jnp.float32
    normalise: bool = False
    momentum: float = 0.9

    def __post_init__(self):
        if isinstance(self.stages, str) or not isinstance(self.stages, Sequence) or not self.stages:
            raise ValueError(f"stages must be a sequence with the blocks of each stage, got {self.stages!r}")
        for blocks in self.stages:
            check.integer("stages", blocks, at_least=1)
        check.integer("width", self.width, at_least=1)
        check.number("momentum", self.momentum, at_least=0, at_most=1)
        self.stages = tuple(self.stages)
        super().__post_init__()

    @property
    def features(self) -> int:
        return self.width * 2 ** (len(self.stages) - 1) * (4 if self.bottleneck else 1)

    @nn.compact
    def __call__(self, images: Float[ArrayLike, "B H W *C"], train: bool = False) -> Float[Array, "B D"]:
        if jnp.ndim(images) not in (3, 4):
            raise ValueError(f"images must have shape [B, H, W] or [B, H, W, C], got {list(jnp.shape(images))}")
        check.arrays(images=(images, "..."))
        return self.forward(images if jnp.ndim(images) == 4 else images[..., None], train)

    def forward(self, inputs, train):
        """What `apply` gives, from inputs with channels."""
        check_train(train)
        norm = partial(batch_norm, train=train, axis_name=self.axis_name, dtype=self.dtype, momentum=self.momentum)
        hidden = jnp.asarray(inputs, self.dtype)
        hidden = nn.relu(norm(self.convolution(hidden, self.width, *((3, 1) if self.small_stem else (7, 2)), *self.in_time(None))))
        if not self.small_stem:
            still = hidden.ndim - 4  # an axis of time, which is not pooled
            hidden = nn.max_pool(hidden, (1,) * still + (3, 3), strides=(1,) * still + (2, 2), padding=((0, 0),) * still + ((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                hidden = self.block(hidden, stage, 2 if stage and not block else 1, norm)
        return finish(jnp.mean(hidden, axis=tuple(range(1, hidden.ndim - 1)), dtype=jnp.float32), self.normalise)

    def block(self, hidden, stage, stride, norm):
        """One residual block."""
        channels, time = self.width * 2**stage, self.in_time(stage)
        if self.bottleneck:
            sizes = [(channels, 1, 1, *time), (channels, 3, stride), (4 * channels, 1, 1)]
        else:
            sizes = [(channels, 3, stride, *time), (channels, 3, 1)]
        change = hidden
        for size in sizes[:-1]:
            change = nn.relu(norm(self.convolution(change, *size)))
        change = norm(self.convolution(change, *sizes[-1]), scale=0.0 if self.zero_scale else 1.0)
        if hidden.shape != change.shape:
            hidden = norm(self.convolution(hidden, sizes[-1][0], 1, stride))
        return nn.relu(hidden + change)

    def convolution(self, hidden, channels, size, stride, frames=1, step=1):
        """A convolution of `size` x `size`, and over `frames`, that keeps all lengths but for its strides."""
        size, stride = (size, size), (stride, stride)
        if hidden.ndim == 5:
            size, stride = (frames, *size), (step, *stride)
        padding = [(length // 2, length // 2) for length in size]
        how = dict(use_bias=False, dtype=self.dtype, kernel_init=he_normal, conv_general_dilated=convolve if hidden.ndim == 5 else None)
        return nn.Conv(channels, size, stride, padding, **how)(hidden)

    def in_time(self, stage):
        """How many frames the first convolution of a stage's blocks sees (None: the stem), and its stride over time."""
        return 1, 1


class ResNet3D(ResNet):
    r"""A residual network on clips: `ResNet` with an axis of time, over which the stem and the first convolution of some blocks go.

    The stem's 7 x 7 convolution also sees 5 frames, and takes every other one; then the frames stay as many, up to the mean over all of time and
    space. The first convolution of a block, 1 x 1 in a bottleneck, sees as many frames as `temporal_kernels` says of its stage; all others work frame
    by frame. This is the slow pathway of SlowFast networks, and CVRL's R3D-50 (`resnet3d50`).

    Attributes:
      stages, width, bottleneck, small_stem, axis_name, zero_scale, dtype, normalise, momentum, features: as in `ResNet`.
      temporal_kernels: for each stage, the frames that the first convolution of its blocks sees, odd.
      stem_in_time: the frames that the stem sees, odd, and its stride.

    Call:
      `apply(variables, clips, train=False)` with clips `[B, T, H, W]` or `[B, T, H, W, C]` floats gives float32 `[B, D]`.

    Raises:
      TypeError, ValueError: as in `ResNet`; not one temporal kernel a stage, or an even one.

    Reference:
      Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019, table 1; Qian et al., "Spatiotemporal Contrastive Video
      Representation Learning", CVPR 2021, table 1: `momentum` 0.997.

    >>> import jax, jax.numpy as jnp
    >>> model = ResNet3D((1, 1), width=4, small_stem=True, temporal_kernels=(1, 3))
    >>> clips = jnp.ones((2, 4, 8, 8, 3))
    >>> variables = jax.jit(model.init)(jax.random.key(0), clips)
    >>> jax.jit(model.apply)(variables, clips).shape, variables["params"]["Conv_3"]["kernel"].shape
    ((2, 8), (3, 3, 3, 4, 8))
    """

    temporal_kernels: Sequence[int] = (1, 1, 3, 3)
    stem_in_time: Sequence[int] = (5, 2)

    def __post_init__(self):
        check_widths("temporal_kernels", self.temporal_kernels, 1)
        check_widths("stem_in_time", self.stem_in_time, 1)
        if len(self.stem_in_time) != 2:
            raise ValueError(f"stem_in_time must be a pair (frames, stride), got {self.stem_in_time!r}")
        if any(frames % 2 == 0 for frames in (*self.temporal_kernels, self.stem_in_time[0])):
            raise ValueError(f"temporal_kernels and the stem's must be odd, got {self.temporal_kernels!r} and {self.stem_in_time[0]}")
        self.temporal_kernels, self.stem_in_time = tuple(self.temporal_kernels), tuple(self.stem_in_time)
        super().__post_init__()
        if len(self.temporal_kernels) != len(self.stages):
            raise ValueError(f"temporal_kernels must be one for each of the {len(self.stages)} stages, got {self.temporal_kernels!r}")

    @nn.compact
    def __call__(self, clips: Float[ArrayLike, "B T H W *C"], train: bool = False) -> Float[Array, "B D"]:
        return self.forward(clips_with_channels(clips), train)

    def in_time(self, stage):
        return self.stem_in_time if stage is None else (self.temporal_kernels[stage], 1)


def resnet18(**options: Any) -> ResNet:
    """The ResNet with 18 layers, 512 features and 11 176 512 parameters for images of three channels.

    Args:
      **options: attributes of `ResNet`.

    Returns:
      The module.

    >>> resnet18(small_stem=True).features
    512
    """
    return ResNet((2, 2, 2, 2), **options)


def resnet50(**options: Any) -> ResNet:
    """The ResNet with 50 layers, 2048 features and 23 508 032 parameters for images of three channels.

    Args:
      **options: attributes of `ResNet`.

    Returns:
      The module.

    >>> resnet50(dtype=jnp.bfloat16).features
    2048
    """
    return ResNet((3, 4, 6, 3), bottleneck=True, **options)


def resnet3d50(**options: Any) -> ResNet3D:
    """CVRL's R3D-50: 50 layers, 2048 features and 31 672 128 parameters for clips of three channels.

    Args:
      **options: attributes of `ResNet3D`.

    Returns:
      The module.

    >>> resnet3d50(momentum=0.997).features
    2048
    """
    return ResNet3D((3, 4, 6, 3), bottleneck=True, **options)
