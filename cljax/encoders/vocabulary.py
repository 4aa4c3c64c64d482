"""Tokens that a model learns to know after it was trained."""

from typing import Any

import jax.numpy as jnp

from cljax.core import check


def add_tokens(module: Any, params: Any, count: int) -> tuple[Any, Any]:
    """A model of texts with more tokens, numbered from its former `vocab_size` on: each begins as the mean of all others.

    So they stand in the midst of what the model knows, and not where another scale of random numbers would put them.

    Args:
      module: with `vocab_size` and a table `tokens` `[V, D]` among its parameters: a `TextTransformer`, such as `load_pretrained` gives.
      params: its variables, `{"params": ...}`; they are left as they are.
      count: how many.

    Returns:
      `(module, params)`; for texts of the former tokens they give the same.

    Raises:
      TypeError, ValueError: count is no integer from 0 on; params have no such table of `vocab_size` rows.

    >>> import jax
    >>> from cljax import encoders
    >>> model, ids = encoders.TextTransformer(5, 8, layers=1, heads=2, max_length=4), jnp.array([[1, 4]])
    >>> larger, params = add_tokens(model, jax.jit(model.init)(jax.random.key(0), ids), 2)
    >>> larger.vocab_size, params["params"]["tokens"].shape
    (7, (7, 8))
    """
    check.integer("count", count, at_least=0)
    table = params["params"].get("tokens")
    if table is None or len(table) != module.vocab_size:
        given = "none" if table is None else list(jnp.shape(table))
        raise ValueError(f"params must have a table tokens of vocab_size={module.vocab_size} rows, got {given}")
    added = jnp.broadcast_to(jnp.mean(table, axis=0), (count, table.shape[1]))
    return module.clone(vocab_size=len(table) + count), params | {"params": params["params"] | {"tokens": jnp.concatenate([table, added])}}
