"""Dropout that hangs on the example, not on the batch."""

from typing import Any

import jax
from jaxtyping import ArrayLike, Integer, PyTree

from cljax.core import check
from cljax.core.check import KeyLike


def apply_with_dropout(model: Any, params: PyTree, *inputs: PyTree, key: KeyLike | None, index: Integer[ArrayLike, " B"]) -> PyTree:
    """`model.apply(params, *inputs)` in training, with what example i drops drawn by `fold_in(key, index[i])`.

    So neither the other rows of a batch nor how it is split over devices changes what a row gives: what a run gives doesn't depend on the number of
    devices.

    Args:
      model: a Linen module, or what has its `apply`. Where its `dropout` is 0, or it has none, it is called as in evaluation.
      params: its variables.
      *inputs: trees of arrays with leading axis B, such as ids and mask of texts.
      key: a PRNG key, another one for each step and for each pass over an example. None: nothing is dropped.
      index: `[B]` integers, the examples' places in the data set, as `train.draws` gives them.

    Returns:
      What `apply` returns, with leading axis B.

    Raises:
      TypeError, ValueError: `key` is no PRNG key; `index` are not integers, one an example.

    >>> import jax.numpy as jnp
    >>> from cljax import encoders
    >>> model, ids = encoders.TextTransformer(9, 8, layers=1, heads=2, max_length=4, dropout=0.5), jnp.array([[5, 6], [7, 8], [5, 6]])
    >>> params = jax.jit(model.init)(jax.random.key(0), ids)
    >>> z = apply_with_dropout(model, params, ids, key=jax.random.key(1), index=jnp.array([4, 0, 4]))
    >>> bool((z[0] == z[2]).all()), bool((z[0] == model.apply(params, ids)[0]).all())
    (True, False)
    """
    if key is None or not getattr(model, "dropout", 0):
        return model.apply(params, *inputs)
    check.key("key", key)
    check.arrays(index=(index, f"{len(jax.tree.leaves(inputs)[0])}", "int"))

    def one(key, inputs):
        inputs = jax.tree.map(lambda leaf: leaf[None], inputs)
        return jax.tree.map(lambda leaf: leaf[0], model.apply(params, *inputs, train=True, rngs={"dropout": key}))

    return jax.vmap(one)(jax.vmap(jax.random.fold_in, (None, 0))(key, index), inputs)
