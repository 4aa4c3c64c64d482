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
from cljax.encoders.text import Block, attention, check_transformer


class Cache(NamedTuple):
    """What a `Decoder` keeps of the tokens that it has read; every array has the rows of the batch in front, so that rows can be taken and repeated.

    Attributes:
      keys: of each block `[B, H, S, d]`, for S places.
      values: of each block the same.
      last: of each block the key and the value of the token read last, `[B, H, 1, d]` each, which the next call writes into their place.
      mask: `[B, S]` booleans, the places that hold a real token.
      used: `[B]`, how many places are taken, the same in all rows.
    """

    keys: tuple[Float[Array, "C H S d"], ...]
    values: tuple[Float[Array, "C H S d"], ...]
    last: tuple[tuple[Float[Array, "B H 1 d"], Float[Array, "B H 1 d"]], ...]
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

      `head(params, hidden)` gives the logits of states alone.

      With a `cache` it gives `(hidden, logits, cache)`: an integer makes a new one with so many places, of which prefix and ids fill the first; a
      cache that an earlier call gave is read on: the ids follow upon what it holds, in the same places of all rows. That equals one call with the
      whole text. What is beyond the last place gives NaN.

      One token a row may be read with a cache of fewer rows, of which each is shared by k rows of ids, one after the other: the cache that is
      returned has `keys` and `values` of these fewer rows and all else of the rows of ids, so that k continuations cost no copy of what is before
      them. To read on, take one of the k rows of `last`, `mask` and `used`.

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
        check_transformer(self)
        check.choice("positions", self.positions, ("learned", "rotary"))
        if self.features % (self.heads * (2 if self.positions == "rotary" else 1)):
            what = "features into an even number" if self.positions == "rotary" else "features"
            raise ValueError(f"heads must divide {what}, got heads={self.heads} and features={self.features}")
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
        length, used, before, there = real.shape[1], 0, 0, None
        if past is not None:
            used = past.used[0] if len(past.used) else 0
            there = jnp.repeat(past.mask, len(real) // max(1, len(past.mask)), axis=0)
            before = jnp.sum(there, axis=1, keepdims=True)
        index = jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0) + before
        allowed = real[:, None, None, :] & np.tri(length, dtype=bool)
        if self.positions == "learned":
            states += look_up(self.param("positions", normal(self.features**-0.5), (self.max_length, self.features)), index)
        states = nn.Dropout(self.dropout, deterministic=not train)(states.astype(self.dtype))
        kept = []

        def mix(queries, keys, values, drop):
            if self.positions == "rotary":
                queries, keys = rotate(queries, index), rotate(keys, index)
            new, last = (keys, values), (keys[:, :, -1:], values[:, :, -1:])
            if past is None:
                kept.append((*(put(None, part, 0, places, axis=2) for part in new), last))
                return attention(queries, [(keys, values, allowed)], drop)
            number = len(kept)
            old = (past.keys[number], past.values[number])
            old = [put(part, final, used - 1, places, axis=2) for part, final in zip(old, past.last[number], strict=True)]
            shared = len(keys) > len(old[0])
            kept.append((*(part if shared else put(part, token, used, places, axis=2) for part, token in zip(old, new, strict=True)), last))
            return attention(queries, [(*old, past.mask[:, None, None, :]), (keys, values, allowed)], drop)

        how = dict(norm="pre", dropout=self.dropout, dtype=self.dtype, epsilon=self.epsilon, approximate=True)
        for number in range(self.layers):
            states = Block(self.heads, self.hidden or 4 * self.features, **how, name=f"block_{number}")(states, mix, train)
        states = nn.LayerNorm(self.epsilon, self.dtype, use_fast_variance=False, name="norm")(states)[:, real.shape[1] - mask.shape[1] :]
        hidden = jnp.where(mask[..., None], states, 0).astype(jnp.float32)
        hidden = jnp.where(used + length > places, jnp.nan, hidden)
        logits = self.project(tokens, hidden)
        if cache is None:
            return hidden, logits
        keys, values, last = zip(*kept, strict=True)
        return hidden, logits, Cache(keys, values, last, put(there, real, used, places), jnp.full(len(real), used + length, jnp.int32))

    def head(self, params: Any, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """The logits of states that a call returned, for those who want them of some tokens alone."""
        return self.project(params["params"]["tokens"], hidden)

    def project(self, tokens, hidden):
        flat = hidden.astype(self.dtype).reshape(-1, self.features)  # XLA:CPU of jax 0.7 has no product of bfloat16 in three axes
        return jnp.matmul(flat, tokens.astype(self.dtype).T, preferred_element_type=jnp.float32).reshape(*hidden.shape[:-1], len(tokens))

    def places(self, ids, mask, cache, prefix):
        """The number of places that attention looks at, of arguments that fit each other."""
        held = cache.mask if isinstance(cache, Cache) else None
        sizes = check.arrays(ids=(ids, "B L", "int"), mask=(mask, "B L?", "bool"), prefix=(prefix, "B P D?"), cache=(held, "C S?", "bool"))
        length = sizes["L"] + sizes.get("P", 0)
        if sizes.get("D", self.features) != self.features:
            raise ValueError(f"prefix must have the width {self.features} of the states, got {sizes['D']}")
        if held is not None:
            places, rows = sizes["S"], sizes["C"]
            if sizes["B"] % max(1, rows) or (sizes["B"] > rows and length > 1):
                raise ValueError(f"cache must have the {sizes['B']} rows of ids, or divide them where they are one token each, got {rows} rows")
            if len(cache.keys[0]) != rows:
                raise ValueError(f"cache must have one row of last, mask and used for each of its {len(cache.keys[0])} rows of keys, got {rows}")
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


def put(old, new, start, places, axis=1):
    """`new` written into `old` along an axis, from `start` on, or where that is None into so many empty places."""
    if old is None:
        return jnp.pad(new, [(0, places - size if place == axis else 0) for place, size in enumerate(new.shape)])
    return lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis)


def rotate(x, index):
    """Turns each pair of entries (i, i + d / 2) of heads `[B, H, L, d]` by an angle that is the token's place times 10000^(-2 i / d)."""
    half = x.shape[-1] // 2
    angles = index[:, None, :, None] * jnp.float32(10000) ** (-np.arange(half) / half)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * jnp.cos(angles) - b * jnp.sin(angles), b * jnp.cos(angles) + a * jnp.sin(angles)], axis=-1).astype(x.dtype)
