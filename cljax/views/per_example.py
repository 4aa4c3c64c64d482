"""One key for each example, from its place in the data set."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Integer, PyTree

from cljax.core import check
from cljax.core.check import KeyLike


def per_example(view: Callable[[Any, Any], Any], key: KeyLike, examples: PyTree, *, index: Integer[ArrayLike, " B"] | None = None) -> PyTree:
    """Applies a random view to each example of a batch, with a key of its own.

    Example i gets `view(fold_in(key, index[i]), example)`: its draws hang on the key and on its index alone. So a batch in another order, or split
    over devices, gives the same views; every view of this room is made so.

    Args:
      view: `view(key, example) -> changed example`, on one example without the batch axis; it is mapped with `jax.vmap`.
      key: a PRNG key, another one for each step and for each view of an example.
      examples: an array or a tree of arrays with leading axis B.
      index: `[B]` integers, the examples' places in the data set; None is 0, 1, ..., B - 1, which is right where the batch is not split over devices
        and no example has to keep its draws.

    Returns:
      What `view` returns, with leading axis B.

    Raises:
      TypeError, ValueError: `key` is no PRNG key; `index` are not integers, or not one an example; the arrays' leading axes differ.

    >>> import jax, jax.numpy as jnp
    >>> def scaled(key, signal):
    ...     return signal * jax.random.uniform(key, minval=0.5, maxval=2.0)
    >>> signals = jnp.ones((3, 4))
    >>> views = per_example(scaled, jax.random.key(0), signals, index=jnp.array([7, 2, 7]))
    >>> bool((views[0] == views[2]).all()), bool((views[0] == views[1]).all())
    (True, False)
    """
    check.key("key", key)
    leaves = jax.tree.leaves(examples)
    if not leaves:
        raise ValueError("examples must hold at least one array, got none")
    batch = jnp.shape(leaves[0])[:1]
    if not batch or any(jnp.shape(leaf)[:1] != batch for leaf in leaves):
        raise ValueError(f"examples must have one leading axis of the same size, got shapes {[list(jnp.shape(leaf)) for leaf in leaves]}")
    index = jnp.arange(batch[0]) if index is None else index
    check.arrays(index=(index, f"{batch[0]}", "int"))
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    return jax.vmap(view)(keys, examples)
