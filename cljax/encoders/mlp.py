"""Multilayer perceptrons: as encoders of flat inputs, and as heads on other encoders."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check, safe_normalize
from cljax.encoders.initialise import lecun_normal


class MLP(nn.Module):
    r"""Hidden layers with ReLU and a linear layer: $h_l = \max(0, W_l h_{l-1} + b_l)$, $z = W h_L + b$.

    All axes of the inputs but the first are flattened, so images need no reshaping. The embeddings are not normalised unless it is asked for: the
    losses compare by cosine.

    Attributes:
      widths: the widths of the hidden layers; none makes the encoder linear.
      features: D, the width of the embeddings.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.

    Call:
      `apply(params, inputs)` with inputs `[B, ...]` floats gives float32 `[B, D]`.

    Raises:
      TypeError, ValueError: a width is not an integer above 0; inputs are not floats, or have no axis after the first.

    >>> import jax, jax.numpy as jnp
    >>> model = MLP((128, 64), 32)
    >>> images = jnp.ones((5, 8, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)
    >>> model.apply(params, images).shape, model.features
    ((5, 32), 32)
    """

    widths: Sequence[int]
    features: int
    dtype: Any = jnp.float32
    normalise: bool = False

    def __post_init__(self):
        check_widths("widths", self.widths, self.features)
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Float[ArrayLike, "B ..."]) -> Float[Array, "B D"]:
        check.arrays(inputs=(inputs, "..."))
        if jnp.ndim(inputs) < 2:
            raise ValueError(f"inputs must have shape [B, ...] with at least one axis after the first, got {list(jnp.shape(inputs))}")
        hidden = jnp.reshape(inputs, (jnp.shape(inputs)[0], -1))
        for width in self.widths:
            hidden = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=lecun_normal)(hidden))
        return finish(nn.Dense(self.features, dtype=self.dtype, kernel_init=lecun_normal)(hidden), self.normalise)


class ProjectionHead(nn.Module):
    r"""A small perceptron between an encoder's representation and the loss: $z = W_2 \max(0, W_1 h + b_1) + b_2$.

    The representation before it is what is used afterwards: `nn.Sequential([encoder, ProjectionHead(...)])`, or apply the two one after the other.

    Attributes:
      width: the width of the hidden layer.
      features: D, the width of the embeddings.
      dtype: what is computed in; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.

    Call:
      `apply(params, representations)` with representations `[..., H]` floats gives float32 `[..., D]`.

    Raises:
      TypeError, ValueError: a width is not an integer above 0; representations are not floats.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, section 2.1.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = nn.Sequential([MLP((64,), 48), ProjectionHead(48, 16)])
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((5, 8, 8)))
    >>> model.apply(params, jnp.ones((5, 8, 8))).shape
    (5, 16)
    """

    width: int
    features: int
    dtype: Any = jnp.float32
    normalise: bool = False

    def __post_init__(self):
        check_widths("width", (self.width,), self.features)
        super().__post_init__()

    @nn.compact
    def __call__(self, representations: Float[ArrayLike, "*B H"]) -> Float[Array, "*B D"]:
        check.arrays(representations=(representations, "... H"))
        hidden = nn.relu(nn.Dense(self.width, dtype=self.dtype, kernel_init=lecun_normal)(jnp.asarray(representations)))
        return finish(nn.Dense(self.features, dtype=self.dtype, kernel_init=lecun_normal)(hidden), self.normalise)


def check_widths(name, widths, features):
    """Raises where a module's widths are not integers above 0."""
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        raise TypeError(f"{name} must be a sequence of integers, got {widths!r} ({type(widths).__name__})")
    for width in widths:
        check.integer(name, width, at_least=1)
    check.integer("features", features, at_least=1)


def finish(embeddings, normalise):
    """Embeddings as they leave every encoder."""
    embeddings = embeddings.astype(jnp.float32)
    return safe_normalize(embeddings) if normalise else embeddings
