"""A text as the weighted mean of its tokens' vectors."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from cljax.core import check
from cljax.encoders.batch_norm import check_train
from cljax.encoders.initialise import normal
from cljax.encoders.mlp import MLP, finish


class BagOfTokens(nn.Module):
    r"""The gated mean of token vectors: $z = \sum_l g_l e_l / \sum_l g_l$ with $g_l = \log(1 + \exp(w_{t_l}))$, over the tokens $t_l$ that are real.

    Each token of the vocabulary has a vector $e_t$ and a weight $w_t$: what says little learns to weigh little, as in tf-idf.

    Attributes:
      vocab_size: V, the number of tokens.
      features: D, the width of the embeddings.
      gate: whether tokens are weighed; otherwise the mean is a plain one.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.
      deviation: of the vectors' entries at first, normal; None: 1 / sqrt(D), which makes vectors of about unit length.

    Call:
      `apply(params, ids, mask)` with ids `[B, L]` integers and mask `[B, L]` booleans, or None where all tokens are real, gives float32 `[B, D]`; a
      row without a real token gives zeros, and an id outside the vocabulary NaN. `train` is taken, and changes nothing.
      `apply(params, ids, mask, method="tokens")` gives the vectors, `[B, L, D]`, and their gates `[B, L]`, both zero where no token is.

    Raises:
      TypeError, ValueError: vocab_size or features is not an integer above 0; ids or mask have another shape or kind.

    >>> import jax, jax.numpy as jnp
    >>> model = BagOfTokens(6000, 128, normalise=True)
    >>> ids = jnp.array([[5, 7, 0], [6, 8, 9]])
    >>> params = jax.jit(model.init)(jax.random.key(0), ids)
    >>> model.apply(params, ids, ids > 0).shape
    (2, 128)
    """

    vocab_size: int
    features: int
    gate: bool = True
    dtype: Any = jnp.float32
    normalise: bool = False
    deviation: float | None = None

    def __post_init__(self):
        for name in ("vocab_size", "features"):
            check.integer(name, getattr(self, name), at_least=1)
        if self.deviation is not None:
            check.positive("deviation", self.deviation)
        super().__post_init__()

    def setup(self):
        deviation = self.features**-0.5 if self.deviation is None else self.deviation
        self.vectors = self.param("vectors", normal(deviation), (self.vocab_size, self.features))
        self.gates = self.param("gates", nn.initializers.zeros, (self.vocab_size,)) if self.gate else None

    def __call__(self, ids: Int[ArrayLike, "B L"], mask: Bool[ArrayLike, "B L"] | None = None, train: bool = False) -> Float[Array, "B D"]:
        check_train(train)
        vectors, gates = self.tokens(ids, mask)
        total = jnp.sum(gates, axis=1, keepdims=True)
        shares = gates / jnp.where(total == 0, 1, total)
        return finish(jnp.einsum("bl,bld->bd", shares.astype(self.dtype), vectors, preferred_element_type=jnp.float32), self.normalise)

    def tokens(self, ids: Int[ArrayLike, "B L"], mask: Bool[ArrayLike, "B L"] | None = None) -> tuple[Float[Array, "B L D"], Float[Array, "B L"]]:
        """The vectors of tokens and their gates, zero where no token is."""
        check_tokens(ids, mask)
        vectors = look_up(self.vectors, ids).astype(self.dtype)
        gates = jax.nn.softplus(look_up(self.gates, ids)) if self.gate else jnp.ones(jnp.shape(ids))
        if mask is not None:
            vectors, gates = jnp.where(jnp.asarray(mask)[..., None], vectors, 0), jnp.where(mask, gates, 0)
        return vectors, gates


class DeepAveraging(nn.Module):
    r"""The plain mean of token vectors and what a perceptron adds to it, $z = m + f(m)$: a text's words together say more than each by itself.

    Attributes:
      vocab_size: V, the number of tokens.
      features: D, the width of the token vectors and of the embeddings.
      hidden: the widths of the perceptron's hidden layers; None: one of D.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.

    Call:
      `apply(params, ids, mask)` as of `BagOfTokens`.

    Raises:
      TypeError, ValueError: as `BagOfTokens` and `MLP`.

    Reference: Iyyer et al., "Deep Unordered Composition Rivals Syntactic Methods for Text Classification", ACL 2015, section 3 (there f alone).

    >>> import jax, jax.numpy as jnp
    >>> model = DeepAveraging(6000, 128, normalise=True)
    >>> ids = jnp.array([[5, 7, 0], [6, 8, 9]])
    >>> params = jax.jit(model.init)(jax.random.key(0), ids)
    >>> model.apply(params, ids, ids > 0).shape
    (2, 128)
    """

    vocab_size: int
    features: int
    hidden: Sequence[int] | None = None
    dtype: Any = jnp.float32
    normalise: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "features"):
            check.integer(name, getattr(self, name), at_least=1)
        self.hidden = None if self.hidden is None else tuple(self.hidden)  # so that it can be hashed
        super().__post_init__()

    @nn.compact
    def __call__(self, ids: Int[ArrayLike, "B L"], mask: Bool[ArrayLike, "B L"] | None = None, train: bool = False) -> Float[Array, "B D"]:
        check_train(train)
        mean = BagOfTokens(self.vocab_size, self.features, gate=False, dtype=self.dtype)(ids, mask)
        hidden = (self.features,) if self.hidden is None else self.hidden
        return finish(mean + MLP(hidden, self.features, dtype=self.dtype)(mean), self.normalise)


def look_up(table, ids):
    """Rows of a table, NaN where it has none. (With a plain index JAX takes the last row instead.)"""
    return jnp.take(table, ids, axis=0, mode="fill")


def check_tokens(ids, mask, types=None):
    """Raises where a batch of tokens is not one; returns its sizes."""
    return check.arrays(ids=(ids, "B L", "int"), mask=(mask, "B L?", "bool"), types=(types, "B L?", "int"))
