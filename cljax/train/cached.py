"""The gradient cache: losses over many examples at once, encoded a few at a time."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import check, vary, varying_axes
from cljax.train.loops import slow_in_a_loop


def cached_value_and_grad(encode: Callable, loss: Callable, chunk_size: int, *, has_aux: bool = False, fold: bool = True) -> Callable:
    r"""Value and gradient of a loss over a whole batch, in the memory of one chunk of it.

    $$L(\theta, z_1, \dots, z_B), \quad z_i = encode(\theta, x_i): \qquad
    \nabla_\theta L + \sum_{chunks} \Big(\frac{\partial z_{chunk}}{\partial \theta}\Big)^{\!\top} \frac{\partial L}{\partial z_{chunk}}$$
    First the embeddings of all chunks are computed, without keeping what a backward pass would need; then the loss of all of them and its gradient
    by the embeddings (the cache); then each chunk is encoded again, with the same key, and the cached gradient sent through it. This is exactly the
    plain gradient, also with dropout and for losses that no sum of parts gives (in-batch negatives, uniformity, covariances), at the price of one
    more forward pass. Accumulating the gradients of small batches instead would leave each with its own few negatives.

    Inside a step of `train.fit` and any other mapped axis the rule for gradients stays what it is: each device encodes its own rows, the loss is made
    of `losses.mean(..., axis_name="data")` and losses with that `axis_name`, and the gradients go through `train.descend`.

    Args:
      encode: `encode(params, chunk, key) -> embeddings`, an array or any pytree of arrays of floats with the chunk's leading axis: two towers return
        two. A row may not depend on the others: batch norm in training takes its statistics from a chunk.
      loss: `loss(params, embeddings, *rest) -> value`, a scalar. The parameters are those of the encoder and of the loss alike: a temperature, a
        head.
      chunk_size: rows encoded at a time. The last chunk is smaller where it does not divide the batch, which compiles the encoder once more.
      has_aux: whether the loss returns `(value, aux)`.
      fold: chunk i gets the key folded with i, as dropout needs it; False gives every chunk the key as it is, for an encoder that folds in each
        example's `index` itself: then nothing depends on `chunk_size`.

    Returns:
      `value_and_grad(params, batch, key, *rest) -> value, grads`, or `-> (value, aux), grads`. `batch` is a pytree of arrays with one leading axis;
      `key` may be None for an encoder without randomness; `rest` goes to the loss. The gradients have the dtypes of the parameters; over the chunks
      they are summed in float32 at least. The chunks run in a compiled loop; on a CPU those of a convolutional encoder are written out one after the
      other, as XLA is slow in loops there.

    Raises:
      TypeError: `encode` or `loss` is no function, or `chunk_size` no integer.
      ValueError: a `chunk_size` below 1, arrays of the batch without one common leading axis, or embeddings without the chunk's.

    >>> def encode(params, batch, key):
    ...     keep = jax.random.bernoulli(key, 0.9, batch["x"].shape)
    ...     return jnp.tanh((keep * batch["x"]) @ params["w"]), batch["x"] @ params["w"]
    >>> def loss(params, embeddings):
    ...     logits = embeddings[0] @ embeddings[1].T * jnp.exp(params["log_scale"])
    ...     return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits)))
    >>> params = {"w": jnp.eye(3), "log_scale": 2.0}
    >>> batch = {"x": jax.random.normal(jax.random.key(0), (10, 3))}
    >>> value, grads = jax.jit(cached_value_and_grad(encode, loss, 4))(params, batch, jax.random.key(1))
    >>> value.shape, grads["w"].shape, grads["log_scale"].shape
    ((), (3, 3), ())

    Reference: Gao, Zhang, Han & Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021, section 3.
    """
    for name, function in (("encode", encode), ("loss", loss)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    check.integer("chunk_size", chunk_size, at_least=1)

    def embed(params, chunk, key, number):
        embeddings = encode(params, chunk, key if key is None or not fold else jax.random.fold_in(key, number))
        _rows("embeddings (what encode returns)", embeddings, _rows("batch", chunk))
        for path, leaf in jax.tree_util.tree_leaves_with_path(embeddings):
            check.arrays(**{f"embeddings{jax.tree_util.keystr(path)} (what encode returns)": (leaf, "...")})
        return embeddings

    def value_and_grad(params, batch, key, *rest):
        batch = jax.tree.map(jnp.asarray, batch)
        if _rows("batch", batch) <= chunk_size:
            plain = jax.value_and_grad(lambda params: loss(params, embed(params, batch, key, 0), *rest), has_aux=has_aux)
            return plain(params)
        dtypes = jax.tree.map(jnp.result_type, params)
        # Gradients add up over the chunks in the dtypes, and over devices in the place, in which the parameters enter here.
        wide, leave = jax.vjp(lambda params: vary(jax.tree.map(_wide, params), varying_axes(batch)), params)

        def encoded(wide, chunk, number):
            return embed(jax.tree.map(lambda leaf, dtype: jnp.asarray(leaf, dtype), wide, dtypes), chunk, key, number)

        def forward(carry, number, chunk):
            return carry, encoded(wide, chunk, number)

        def backward(total, number, chunk, cotangents):
            (grads,) = jax.vjp(lambda wide: encoded(wide, chunk, number), wide)[1](cotangents)
            return jax.tree.map(jnp.add, total, grads), None

        looped = not slow_in_a_loop(lambda: jax.make_jaxpr(encoded)(wide, jax.tree.map(lambda leaf: leaf[:chunk_size], batch), 0))
        _, embeddings = _over(forward, None, (batch,), chunk_size, looped)
        value, (by_loss, cotangents) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=has_aux)(params, embeddings, *rest)
        zeros = jax.tree.map(lambda leaf: vary(jnp.zeros_like(leaf), varying_axes(leaf)), wide)
        total, _ = _over(backward, zeros, (batch, cotangents), chunk_size, looped)
        return value, jax.tree.map(jnp.add, by_loss, *leave(total))

    return value_and_grad


def _over(function, carry, trees, size, looped):
    """`function(carry, number, *pieces) -> carry, rows` over the chunks of the trees: the last carry, and the rows of all."""
    rows = _rows("batch", trees)
    count, parts = rows // size, []

    if looped:
        chunks = jax.tree.map(lambda leaf: leaf[: count * size].reshape(count, size, *leaf.shape[1:]), trees)
        carry, found = lax.scan(lambda carry, piece: function(carry, *piece), carry, (jnp.arange(count), *chunks))
        parts.append(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found))
    for number in range(count if looped else 0, -(-rows // size)):
        start, length = number * size, min(size, rows - number * size)
        take = partial(lax.dynamic_slice_in_dim, start_index=start if looped else _after(start, carry, parts[-1:]), slice_size=length)
        carry, found = function(carry, number, *jax.tree.map(take, trees))
        parts.append(found)
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _after(index, *trees):
    """The index, but not before the arrays are there: XLA:CPU drops optimisation barriers, and would begin with all chunks at once."""
    entries = [leaf.ravel()[0].astype(jnp.float32) for leaf in jax.tree.leaves(trees) if leaf.size]
    bits = lax.bitcast_convert_type(sum(entries, jnp.float32(0)), jnp.int32)
    return index + ((bits | 1) == 0).astype(jnp.int32)  # never true, which XLA does not know


def _rows(name, tree, wanted=None):
    """The size of the leading axis that all arrays of a tree share; raises ValueError where it is none, or not the one that is wanted."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    found = {shape[:1] for shape in shapes}
    if len(found) != 1 or found in ({()}, {(0,)}) or (wanted is not None and found != {(wanted,)}):
        which = "one leading axis, of one row at least" if wanted is None else f"the leading axis of the chunk, {wanted}"
        raise ValueError(f"{name} must be arrays with {which}, got {', '.join(str(list(shape)) for shape in shapes) or 'none'}")
    return shapes[0][0]


def _wide(leaf):
    dtype = jnp.result_type(leaf)
    return jnp.asarray(leaf, jnp.promote_types(dtype, jnp.float32)) if jnp.issubdtype(dtype, jnp.floating) else leaf
