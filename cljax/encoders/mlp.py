"""Multilayer perceptrons: as encoders of flat inputs, and as heads on other encoders."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check, safe_normalize
from cljax.encoders.batch_norm import batch_norm, check_train
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
      batch_norm: whether each hidden layer has batch normalisation, in place of its bias and before ReLU; see `ResNet` for how a step carries the
        running averages.
      last_batch_norm: whether the embeddings have it, without scale and bias to learn.
      axis_name: the mapped axis over which a batch is split in training, `"data"` in `train.fit`; None where it is not.

    Call:
      `apply(variables, inputs, train=False)` with inputs `[B, ...]` floats gives float32 `[B, D]`; `train` matters to batch normalisation alone.

    Raises:
      TypeError, ValueError: a width is not an integer above 0; inputs are not floats, or have no axis after the first; batch normalisation in
      training
        with one row, or over an axis that is not mapped.

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
    batch_norm: bool = False
    last_batch_norm: bool = False
    axis_name: str | None = None

    def __post_init__(self):
        check_widths("widths", self.widths, self.features)
        self.widths = tuple(self.widths)  # a list has no hash, and a step takes modules as static values
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Float[ArrayLike, "B ..."], train: bool = False) -> Float[Array, "B D"]:
        check.arrays(inputs=(inputs, "..."))
        if jnp.ndim(inputs) < 2:
            raise ValueError(f"inputs must have shape [B, ...] with at least one axis after the first, got {list(jnp.shape(inputs))}")
        return perceptron(self, jnp.reshape(inputs, (len(inputs), math.prod(jnp.shape(inputs)[1:]))), self.widths, train)


class ProjectionHead(nn.Module):
    r"""A small perceptron between an encoder's representation and the loss: $z = W_2 \max(0, W_1 h + b_1) + b_2$.

    The representation before it is what is used afterwards; `Chain` makes one module of both. With batch normalisation it is the head of other
    methods:

    | head | options |
    |---|---|
    | SimCLR, MoCo v2 | none |
    | BYOL projector and predictor, SimSiam predictor | `batch_norm=True` |
    | Barlow Twins, VICReg | `layers=3, batch_norm=True` |
    | SimSiam projector | `layers=3, batch_norm=True, last_batch_norm=True` |

    Attributes:
      width: the width of the hidden layers.
      features: D, the width of the embeddings.
      dtype: what is computed in; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.
      layers: the number of linear layers.
      batch_norm: whether each hidden layer has batch normalisation, in place of its bias and before ReLU.
      last_batch_norm: whether the embeddings have it, without scale and bias to learn.
      axis_name: the mapped axis over which a batch is split in training, `"data"` in `train.fit`; None where it is not.

    Call:
      `apply(variables, representations, train=False)` with representations `[..., H]` floats gives float32 `[..., D]`; `train` matters to batch
      normalisation alone.

    Raises:
      TypeError, ValueError: a width or number of layers is not an integer above 0; representations are not floats; batch normalisation in training
      with
        one row, or over an axis that is not mapped.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020, section 2.1.

    >>> import jax, jax.numpy as jnp
    >>> head = ProjectionHead(48, 16)
    >>> params = jax.jit(head.init)(jax.random.key(0), jnp.ones((5, 24)))
    >>> head.apply(params, jnp.ones((5, 24))).shape
    (5, 16)
    """

    width: int
    features: int
    dtype: Any = jnp.float32
    normalise: bool = False
    layers: int = 2
    batch_norm: bool = False
    last_batch_norm: bool = False
    axis_name: str | None = None

    def __post_init__(self):
        check_widths("width", (self.width,), self.features)
        check.integer("layers", self.layers, at_least=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, representations: Float[ArrayLike, "*B H"], train: bool = False) -> Float[Array, "*B D"]:
        check.arrays(representations=(representations, "... H"))
        return perceptron(self, jnp.asarray(representations), (self.width,) * (self.layers - 1), train)


class Autoencoder(nn.Module):
    r"""A perceptron into a narrow embedding and its mirror image back: $z = f(x)$, $\hat x = g(z)$.

    The parameters of the two, each those of an `MLP`, are under `encoder` and `decoder`.

    Attributes:
      widths: the widths of the encoder's hidden layers; the decoder's are the same in reverse.
      features: D, the width of the embeddings.
      dtype: what is computed in; parameters, embeddings and reconstructions are float32.

    Call:
      `apply(variables, inputs)` with inputs `[B, ...]` floats gives the embeddings, float32 `[B, D]`; with `reconstruct=True` the pair of these and
      the reconstructions, in the shape of the inputs.

    Raises:
      TypeError, ValueError: a width is not an integer above 0; inputs are not floats, or have no axis after the first.

    >>> import jax, jax.numpy as jnp
    >>> model = Autoencoder((128, 64), 10)
    >>> images = jnp.ones((5, 8, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), images)
    >>> [part.shape for part in model.apply(params, images, reconstruct=True)]
    [(5, 10), (5, 8, 8)]
    """

    widths: Sequence[int]
    features: int
    dtype: Any = jnp.float32

    def __post_init__(self):
        check_widths("widths", self.widths, self.features)
        self.widths = tuple(self.widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Float[ArrayLike, "B ..."], reconstruct: bool = False):
        embeddings = MLP(self.widths, self.features, self.dtype, name="encoder")(inputs)
        if not reconstruct and not self.is_initializing():
            return embeddings
        shape = jnp.shape(inputs)
        back = MLP(self.widths[::-1], math.prod(shape[1:]), self.dtype, name="decoder")(embeddings)
        return (embeddings, back.reshape(shape)) if reconstruct else embeddings


def perceptron(module, hidden, widths, train):
    """Hidden layers and the linear one, as the attributes of a module say, inside its compact method."""
    check_train(train)
    how = dict(train=train, axis_name=module.axis_name, dtype=module.dtype)
    for width in widths:
        hidden = nn.Dense(width, not module.batch_norm, dtype=module.dtype, kernel_init=lecun_normal)(hidden)
        hidden = nn.relu(batch_norm(hidden, **how) if module.batch_norm else hidden)
    hidden = nn.Dense(module.features, not module.last_batch_norm, dtype=module.dtype, kernel_init=lecun_normal)(hidden)
    return finish(batch_norm(hidden, affine=False, **how) if module.last_batch_norm else hidden, module.normalise)


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
