"""Transformers that read a text in both directions, of BERT's form."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from cljax.core import check
from cljax.encoders.bag import check_tokens, look_up
from cljax.encoders.batch_norm import check_train
from cljax.encoders.initialise import lecun_normal, normal
from cljax.encoders.mlp import finish


class TextTransformer(nn.Module):
    r"""A transformer encoder: embeddings of tokens, places and types, blocks of attention and a perceptron with GELU, and a pool over the tokens.

    With `norm="post"` layer normalisation N follows the embeddings and every sublayer, $h \leftarrow N(h + f(h))$, as in BERT, whose weights
    `load_pretrained` reads; with `norm="pre"` it goes before every sublayer and after the last block, $h \leftarrow h + f(N(h))$, which learns
    more easily from nothing. The places are counted over the real tokens alone: a text has the same embedding wherever it is padded.

    | pool | embeddings |
    |---|---|
    | `"mean"` | the mean of the last states of the real tokens |
    | `"first"` | the last state of the first real token, `[CLS]` |
    | `"top"` | the means of the states of the last `top` blocks, one behind the other, `[B, top * features]` |
    | None | the last states of all tokens, `[B, L, features]` |

    Attributes:
      vocab_size: V, the number of tokens.
      features: D, the width of the states.
      layers: the number of blocks.
      heads: the number of heads of attention; it divides D.
      hidden: the width of the perceptrons; None: 4 D.
      max_length: the number of places that have an embedding.
      types: the number of types of tokens, such as 2 for two texts in one; 0: there are none.
      norm: `"post"` or `"pre"`.
      pool: `"mean"`, `"first"`, `"top"` or None, as above.
      top: the number of blocks that `"top"` looks at.
      dropout: the share of entries dropped in training, from the embeddings, the weights of attention and what each sublayer adds.
      dtype: what is computed in, such as `jnp.bfloat16`; parameters, attention weights, normalisations and embeddings are float32.
      normalise: whether embeddings are scaled to unit length.
      epsilon: what layer normalisation adds to the variance.

    Call:
      `apply(params, ids, mask, types, train=False)` with ids `[B, L]` integers, mask `[B, L]` booleans (None: all tokens are real) and types `[B, L]`
      integers (None: all 0) gives float32 `[B, D]`. Tokens that are masked change nothing; their states, and the embedding of a row without a real
      token, are zero; an id outside the vocabulary gives NaN. With `train=True` and dropout it takes `rngs={"dropout": key}`.

    Raises:
      TypeError, ValueError: an attribute of another kind or range; ids, mask or types have another shape or kind; more places than max_length.

    Reference:
      Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Devlin et al., "BERT", NAACL 2019.

    >>> import jax, jax.numpy as jnp
    >>> model = TextTransformer(1000, 32, layers=2, heads=4, max_length=16)
    >>> ids = jnp.array([[5, 7, 0], [6, 8, 9]])
    >>> params = jax.jit(model.init)(jax.random.key(0), ids)
    >>> model.apply(params, ids, ids > 0).shape
    (2, 32)
    """

    vocab_size: int
    features: int
    layers: int
    heads: int
    hidden: int | None = None
    max_length: int = 512
    types: int = 0
    norm: str = "post"
    pool: str | None = "mean"
    top: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32
    normalise: bool = False
    epsilon: float = 1e-12

    def __post_init__(self):
        check_transformer(self)
        if self.features % self.heads:
            raise ValueError(f"heads must divide features, got heads={self.heads} and features={self.features}")
        check.integer("types", self.types, at_least=0)
        check.choice("norm", self.norm, ("post", "pre"))
        check.choice("pool", self.pool, ("mean", "first", "top", None))
        if self.pool == "top":
            check.integer("top", self.top, at_least=1, at_most=self.layers)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        ids: Int[ArrayLike, "B L"],
        mask: Bool[ArrayLike, "B L"] | None = None,
        types: Int[ArrayLike, "B L"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B *L D"]:
        length = check_tokens(ids, mask, types)["L"]
        check_train(train)
        if length > self.max_length:
            raise ValueError(f"ids must have at most max_length = {self.max_length} tokens a row, got {length}")
        if types is not None and not self.types:
            raise ValueError("types must be None, the module has none: types=0")
        how = dict(norm=self.norm, dropout=self.dropout, dtype=self.dtype, epsilon=self.epsilon)
        hidden = self.embed(ids, mask, types)
        if self.norm == "post":
            hidden = nn.LayerNorm(self.epsilon, self.dtype, use_fast_variance=False, name="norm")(hidden)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        real = None if mask is None else jnp.asarray(mask)[:, None, None, :]
        states = []
        for number in range(self.layers):
            hidden = Block(self.heads, self.hidden or 4 * self.features, **how, name=f"block_{number}")(hidden, partial(attend_all, real), train)
            states = [*states, hidden][-self.top :]
        if self.norm == "pre":
            last = nn.LayerNorm(self.epsilon, self.dtype, use_fast_variance=False, name="norm")
            hidden, states = last(hidden), [last(state) for state in states] if self.pool == "top" else []
        return finish(self.pooled(hidden, states, mask), self.normalise)

    def embed(self, ids, mask, types):
        """The sum of the embeddings, before normalisation."""
        tables = {"tokens": self.vocab_size, "positions": self.max_length} | ({"types": self.types} if self.types else {})
        draw = normal(self.features**-0.5)
        tables = {name: self.param(name, draw, (rows, self.features)) for name, rows in tables.items()}
        if mask is None:
            hidden = look_up(tables["tokens"], ids) + tables["positions"][: jnp.shape(ids)[1]]
        else:
            places = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
            hidden = look_up(tables["tokens"], jnp.where(mask, ids, 0)) + look_up(tables["positions"], places)
        if self.types:
            hidden += tables["types"][0] if types is None else look_up(tables["types"], types if mask is None else jnp.where(mask, types, 0))
        return hidden.astype(self.dtype)

    def pooled(self, hidden, states, mask):
        """The embeddings."""
        if self.pool == "first":
            if mask is None:
                return hidden[:, 0]
            first = jnp.take_along_axis(hidden, jnp.argmax(mask, axis=1)[:, None, None], axis=1)[:, 0]
            return jnp.where(jnp.any(mask, axis=1, keepdims=True), first, 0)
        if self.pool is None:
            return hidden if mask is None else jnp.where(mask[..., None], hidden, 0)
        if self.pool == "top":
            hidden = jnp.concatenate(states, axis=-1)
        if mask is None:
            return jnp.mean(hidden, axis=1, dtype=jnp.float32)
        total = jnp.sum(jnp.where(mask[..., None], hidden, 0), axis=1, dtype=jnp.float32)
        return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)


def check_transformer(module):
    """Raises where an attribute that every transformer has is out of range."""
    for name in ("vocab_size", "features", "layers", "heads", "max_length"):
        check.integer(name, getattr(module, name), at_least=1)
    if module.hidden is not None:
        check.integer("hidden", module.hidden, at_least=1)
    check.number("dropout", module.dropout, at_least=0, at_most=1)
    check.number("epsilon", module.epsilon, at_least=0)


class Block(nn.Module):
    """Attention and a perceptron, each with its residual connection."""

    heads: int
    hidden: int
    norm: str
    dropout: float
    dtype: Any
    epsilon: float
    approximate: bool = False  # GELU by tanh

    @nn.compact
    def __call__(self, states, mix, train):
        """`mix(queries, keys, values, drop)` is the attention, all `[B, H, L, d]`; `drop` is for its weights."""
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, kernel_init=lecun_normal, name=name)  # noqa: E731
        drop = nn.Dropout(self.dropout, deterministic=not train)
        batch, length, features = states.shape

        def attend(hidden):
            projected = dense(3 * features, "query_key_value")(hidden).reshape(batch, length, 3, self.heads, features // self.heads)
            mixed = mix(*jnp.transpose(projected, (2, 0, 3, 1, 4)), drop)
            return dense(features, "attention")(jnp.swapaxes(mixed, 1, 2).reshape(batch, length, features))

        def perceive(hidden):
            return dense(features, "perceptron")(nn.gelu(dense(self.hidden, "hidden")(hidden), approximate=self.approximate))

        for change, name in ((attend, "attention_norm"), (perceive, "perceptron_norm")):
            norm = nn.LayerNorm(self.epsilon, self.dtype, use_fast_variance=False, name=name)
            states = states + drop(change(norm(states))) if self.norm == "pre" else norm(states + drop(change(states)))
        return states


def attend_all(mask, queries, keys, values, drop):
    return attention(queries, [(keys, values, mask)], drop)


def attention(queries, sets, drop):
    r"""The values mixed by $\text{softmax}(q k^\top / \sqrt{d})$ over the tokens of several sets that their masks allow.

    Args:
      queries: `[B, H, L, d]`, of H heads of width d.
      sets: of tokens: `(keys, values, mask)`, `[b, H, S, d]` twice and booleans that broadcast to `[b, H, L, S]`, or None. b divides B: a row of the
        set is shared by B / b rows of queries, one after the other.
      drop: what is applied to the weights.

    Returns:
      `[B, H, L, d]`. A query that is allowed nothing gets the mean of all values.
    """
    scores, least = [], jnp.finfo(jnp.float32).min
    for keys, _, mask in sets:
        found = jnp.einsum("bhqd,bhkd->bhqk", together(queries, len(keys)), keys, preferred_element_type=jnp.float32) * queries.shape[-1] ** -0.5
        scores.append(apart(found if mask is None else jnp.where(mask, found, least), len(queries)))
    weights = drop(jax.nn.softmax(jnp.concatenate(scores, axis=-1)))
    ends, mixed = np.cumsum([part.shape[-1] for part in scores])[:-1], []
    for part, (_, values, _) in zip(jnp.split(weights, ends, axis=-1), sets, strict=True):
        mixed.append(apart(jnp.einsum("bhqk,bhkd->bhqd", together(part.astype(values.dtype), len(values)), values), len(queries)))
    return sum(mixed)


def together(x, rows):
    """`[B, H, L, d]` as `[rows, H, B / rows * L, d]`: rows one after the other share one."""
    batch, heads, length, width = x.shape
    return x if rows == batch else jnp.swapaxes(x.reshape(rows, -1, heads, length, width), 1, 2).reshape(rows, heads, -1, width)


def apart(x, batch):
    """What `together` puts together, as it was."""
    rows, heads, length, width = x.shape
    if rows == batch:
        return x
    share = batch // rows
    return jnp.swapaxes(x.reshape(rows, heads, share, length // share, width), 1, 2).reshape(batch, heads, -1, width)
