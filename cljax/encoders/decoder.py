"""Transformers that read a text from left to right and say what comes next, of GPT-2's form."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32

from cljax.core import check
from cljax.encoders.bag import look_up
from cljax.encoders.batch_norm import check_train
from cljax.encoders.initialise import normal
from cljax.encoders.text import Block, attention


class Cache(NamedTuple):
    """What a `Decoder` keeps of the tokens that it has read; every array has the rows of the batch in front, so that rows can be taken and repeated.

    Attributes:
      keys: of each block `[B, S, H, d]`, for S places.
      values: of each block the same.
      mask: `[B, S]` booleans, the places that hold a real token.
      used: `[B]`, how many places are written, the same in all rows.
    """

    keys: tuple[Float[Array, "B S H d"], ...]
    values: tuple[Float[Array, "B S H d"], ...]
    mask: Bool[Array, "B S"]
    used: Int32[Array, " B"]


class Decoder(nn.Module):
    r"""A transformer in which each token sees itself and those before it: $h_l$ is the state from which token l + 1 is predicted.

    The embeddings of tokens and places go through blocks of attention and a perceptron (GELU by tanh) with layer normalisation before every
    sublayer, and one more behind the last block; the logits are $h_l$ times the table of embeddings. These are GPT-2's formulas, whose weights
    `load_pretrained` reads. `positions="rotary"` has no table of places: it turns queries and keys by angles that grow with the place, and so reads
    texts of any length.

    The places are counted over the real tokens alone: a text has the same states wherever it is padded, and whatever else is in the batch.

    Attributes:
      vocab_size: V, the number of tokens.
      features: D, the width of the states.
      layers: the number of blocks.
      heads: the number of heads of attention; it divides D (with rotary positions into an even number).
      hidden: the width of the perceptrons; None: 4 D.
      max_length: the number of places that have an embedding; with rotary positions it limits nothing.
      positions: `"learned"` or `"rotary"`.
      dropout: the share of entries dropped in training, from the embeddings, the weights of attention and what each sublayer adds.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters, attention weights, states that are returned and logits are float32.
      epsilon: what layer normalisation adds to the variance.

    Call:
      `apply(params, ids, mask=None, cache=None, prefix=None, train=False)` with ids `[B, L]` integers and mask `[B, L]` booleans (None: all tokens
      are real) gives `(hidden, logits)`, float32 `[B, L, D]`, what enters the output projection, and `[B, L, V]`. Masked tokens change nothing, and
      their states are zero; an id outside the vocabulary gives NaN in its row. `prefix`, `[B, P, D]`, stands in front like the embeddings of P
      real tokens (of a picture, or learned); its own states are not returned. With `train=True` and dropout it takes `rngs={"dropout": key}`.

      With a `cache` it gives `(hidden, logits, cache)`: an integer makes a new one with so many places, of which prefix and ids fill the first; a
      cache that an earlier call gave is read on: the ids follow upon what it holds, in the same places of all rows. That equals one call with the
      whole text. What is beyond the last place gives NaN.

    Raises:
      TypeError, ValueError: an attribute of another kind or range; ids, mask, prefix or cache have another shape or kind; more tokens than
        max_length, or than the cache has places.

    Reference:
      Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; rotary positions: Su et al., "RoFormer", 2021, section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> model = Decoder(1000, 32, layers=2, heads=4, max_length=16)
    >>> ids = jnp.array([[5, 7, 3], [6, 8, 9]])
    >>> params = jax.jit(model.init)(jax.random.key(0), ids)
    >>> hidden, logits = model.apply(params, ids)
    >>> _, first, cache = model.apply(params, ids[:, :2], cache=16)
    >>> _, last, cache = model.apply(params, ids[:, 2:], cache=cache)
    >>> bool(jnp.allclose(jnp.concatenate([first, last], axis=1), logits, atol=1e-5))
    True
    """

    vocab_size: int
    features: int
    layers: int
    heads: int
    hidden: int | None = None
    max_length: int = 1024
    positions: str = "learned"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    epsilon: float = 1e-5

    def __post_init__(self):
        for name in ("vocab_size", "features", "layers", "heads", "max_length"):
            check.integer(name, getattr(self, name), at_least=1)
        check.choice("positions", self.positions, ("learned", "rotary"))
        if self.features % (self.heads * (2 if self.positions == "rotary" else 1)):
            what = "features into an even number" if self.positions == "rotary" else "features"
            raise ValueError(f"heads must divide {what}, got heads={self.heads} and features={self.features}")
        if self.hidden is not None:
            check.integer("hidden", self.hidden, at_least=1)
        check.number("dropout", self.dropout, at_least=0, at_most=1)
        check.number("epsilon", self.epsilon, at_least=0)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        ids: Int[ArrayLike, "B L"],
        mask: Bool[ArrayLike, "B L"] | None = None,
        cache: int | Cache | None = None,
        prefix: Float[ArrayLike, "B P D"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B L V"]] | tuple[Float[Array, "B L D"], Float[Array, "B L V"], Cache]:
        check_train(train)
        places = self.places(ids, mask, cache, prefix)
        mask = jnp.ones(jnp.shape(ids), bool) if mask is None else jnp.asarray(mask)
        tokens = self.param("tokens", normal(self.features**-0.5), (self.vocab_size, self.features))
        states, real = look_up(tokens, jnp.where(mask, ids, 0)), mask
        if prefix is not None:
            states = jnp.concatenate([jnp.asarray(prefix, states.dtype), states], axis=1)
            real = jnp.pad(mask, ((0, 0), (jnp.shape(prefix)[1], 0)), constant_values=True)
        past = cache if isinstance(cache, Cache) else None
        used = 0 if past is None else past.used[0]
        present = put(None if past is None else past.mask, real, used, places)
        index = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0) + (0 if past is None else jnp.sum(past.mask, axis=1, keepdims=True))
        allowed = present[:, None, None, :] & (jnp.arange(places) <= used + jnp.arange(real.shape[1])[:, None])
        if self.positions == "learned":
            states += look_up(self.param("positions", normal(self.features**-0.5), (self.max_length, self.features)), index)
        states = nn.Dropout(self.dropout, deterministic=not train)(states.astype(self.dtype))
        kept = []

        def mix(queries, keys, values, drop):
            number = len(kept)
            if self.positions == "rotary":
                queries, keys = rotate(queries, index), rotate(keys, index)
            old = (None, None) if past is None else (past.keys[number], past.values[number])
            kept.append([put(before, new, used, places) for before, new in zip(old, (keys, values), strict=True)])
            return attention(queries, *kept[-1], drop, allowed)

        how = dict(norm="pre", dropout=self.dropout, dtype=self.dtype, epsilon=self.epsilon, approximate=True)
        for number in range(self.layers):
            states = Block(self.heads, self.hidden or 4 * self.features, **how, name=f"block_{number}")(states, mix, train)
        states = nn.LayerNorm(self.epsilon, self.dtype, use_fast_variance=False, name="norm")(states)[:, real.shape[1] - mask.shape[1] :]
        hidden = jnp.where(mask[..., None], states, 0).astype(jnp.float32)
        hidden = jnp.where(used + real.shape[1] > places, jnp.nan, hidden)
        flat = hidden.astype(self.dtype).reshape(-1, self.features)  # XLA:CPU of jax 0.7 has no product of bfloat16 in three axes
        logits = jnp.matmul(flat, tokens.astype(self.dtype).T, preferred_element_type=jnp.float32).reshape(*hidden.shape[:2], -1)
        if cache is None:
            return hidden, logits
        keys, values = zip(*kept, strict=True)
        written = jnp.broadcast_to(jnp.int32(used + real.shape[1]), present[:, 0].shape)
        return hidden, logits, Cache(keys, values, present, written)

    def places(self, ids, mask, cache, prefix):
        """The number of places that attention looks at, of arguments that fit each other."""
        held = cache.mask if isinstance(cache, Cache) else None
        what = dict(ids=(ids, "B L", "int"), mask=(mask, "B L?", "bool"), prefix=(prefix, "B P D?"), cache=(held, "B S?", "bool"))
        sizes = check.arrays(**what)
        length = sizes["L"] + sizes.get("P", 0)
        if sizes.get("D", self.features) != self.features:
            raise ValueError(f"prefix must have the width {self.features} of the states, got {sizes['D']}")
        if held is not None:
            places = sizes["S"]
        elif cache is None:
            places = length
        else:
            check.integer("cache", cache, at_least=1)
            places = cache
        if length > places:
            raise ValueError(f"cache must have a place for each of the {length} tokens, got {places}")
        if self.positions == "learned" and places > self.max_length:
            what = "ids must have at most max_length = {} tokens a row" if cache is None else "cache must have at most max_length = {} places"
            raise ValueError(f"{what.format(self.max_length)}, got {places}")
        return places


def put(old, new, start, places):
    """`new`, `[B, n, ...]`, written into the rows of `old`, `[B, S, ...]`, from `start` on, or where that is None into empty rows."""
    if old is None:
        return jnp.pad(new, ((0, 0), (0, places - new.shape[1]), *[(0, 0)] * (new.ndim - 2)))
    return lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis=1)


def rotate(x, index):
    """Turns each pair of entries (i, i + d / 2) of heads `[B, L, H, d]` by an angle that is the token's place times 10000^(-2 i / d)."""
    half = x.shape[-1] // 2
    angles = index[:, :, None, None] * jnp.float32(10000) ** (-np.arange(half) / half)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * jnp.cos(angles) - b * jnp.sin(angles), b * jnp.cos(angles) + a * jnp.sin(angles)], axis=-1).astype(x.dtype)
