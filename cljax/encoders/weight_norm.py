"""A linear classifier whose weights have a direction and a length of their own."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check, safe_norm, safe_normalize
from cljax.encoders.initialise import lecun_normal


class WeightNormHead(nn.Module):
    r"""A linear layer with weight normalisation, $y_k = g_k \, v_k \cdot h / \lVert v_k \rVert + b_k$: logits of the classes, on an encoder.

    At first $g_k = \lVert v_k \rVert$, so that it is the linear layer of v.

    Attributes:
      features: K, the number of classes.
      dtype: what is computed in; parameters and logits are float32.

    Call:
      `apply(params, representations)` with representations `[..., H]` floats gives float32 `[..., K]`.

    Raises:
      TypeError, ValueError: `features` is not an integer above 0; representations are not floats.

    Reference:
      Salimans & Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks", NIPS 2016, equation 2;
      as a classifier of source-free adaptation: Liang et al., "Do We Really Need to Access the Source Data?" (SHOT), ICML 2020.

    >>> import jax, jax.numpy as jnp
    >>> head = WeightNormHead(10)
    >>> params = jax.jit(head.init)(jax.random.key(0), jnp.ones((5, 24)))
    >>> head.apply(params, jnp.ones((5, 24))).shape
    (5, 10)
    """

    features: int
    dtype: Any = jnp.float32

    def __post_init__(self):
        check.integer("features", self.features, at_least=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, representations: Float[ArrayLike, "*B H"]) -> Float[Array, "*B K"]:
        check.arrays(representations=(representations, "... H"))
        hidden = jnp.asarray(representations, self.dtype)
        direction = self.param("direction", lecun_normal, (hidden.shape[-1], self.features))
        length = self.param("length", lambda _: safe_norm(direction, axis=0))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        kernel = (safe_normalize(direction, axis=0) * length).astype(self.dtype)
        return (hidden @ kernel).astype(jnp.float32) + bias
