"""A network applied to more rows than its activations have room for."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import check


def in_parts(function: Callable[..., Any], *arrays: Any, size: int = 256, **named: Any) -> Any:
    """`function(*arrays, **named)`, of `size` rows at a time: the activations of no more are held.

    Equal to calling it once wherever what it gives for a row depends on that row alone, as a network in evaluation does. Under `jax.jit` one loop,
    and one more call where `size` doesn't divide the rows. Outside of compiled code it is called for one part after the other, so that nothing
    compiles anew each time: give it a function that is compiled, or made of such, as `decoding.generate` is.

    Args:
      function: of trees of arrays with a leading axis N, to a tree of arrays with that axis, such as `functools.partial(model.apply, params)`.
      *arrays: the trees.
      size: rows of a part.
      **named: trees of arrays that it takes by name, such as the `mask=` and `index=` of `decoding.generate`.

    Returns:
      What `function` returns.

    Raises:
      TypeError, ValueError: the arrays have no rows in common, or size is no integer above 0.

    >>> import jax.numpy as jnp
    >>> in_parts(lambda x, y: {"sum": x + y}, jnp.arange(5), y=jnp.ones(5), size=2)["sum"].tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    check.integer("size", size, at_least=1)
    both = jax.tree.map(jnp.asarray, (arrays, named))
    shapes = [leaf.shape for leaf in jax.tree.leaves(both)]
    rows = {shape[0] if shape else None for shape in shapes}
    if len(rows) != 1 or None in rows:
        raise ValueError(f"arrays must have one leading axis in common, got shapes {', '.join(map(str, map(list, shapes))) or 'of none'}")
    count = rows.pop()
    whole = count // size * size

    def of(part):
        return function(*part[0], **part[1])

    if count <= size:
        return of(both)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in [jnp.zeros(()), *jax.tree.leaves(both)]):  # zeros are traced inside of compiled code
        starts = range(0, count, size)
        found = [of(jax.tree.map(partial(lax.slice_in_dim, start_index=start, limit_index=min(start + size, count)), both)) for start in starts]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)
    parts = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), both)
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), lax.map(of, parts))
    if whole == count:
        return found
    rest = of(jax.tree.map(lambda leaf: leaf[whole:], both))
    return jax.tree.map(lambda *ends: jnp.concatenate(ends), found, rest)


def in_lists(function: Callable[..., Any], *arrays: Any) -> Any:
    """A network of texts `[N, L]` applied to lists of them, `[..., L]`: the axes before the last are one to it, and are there again in what it gives.

    Args:
      function: of arrays `[N, L]`, to a tree of arrays `[N, ...]`, such as `functools.partial(model.apply, params)`.
      *arrays: `[..., L]` each, such as ids and mask of the candidates of each query.

    Returns:
      What `function` returns, `[..., ...]`.

    Raises:
      ValueError: arrays that differ in the axes before the last.

    >>> import jax.numpy as jnp
    >>> in_lists(lambda ids, mask: jnp.sum(ids * mask, axis=1), jnp.ones((2, 3, 4)), jnp.ones((2, 3, 4), bool)).shape
    (2, 3)
    """
    leads = {jnp.shape(array)[:-1] for array in arrays}
    if len(leads) != 1:
        raise ValueError(
            f"arrays must have the axes before the last in common, got {', '.join(str(list(jnp.shape(array))) for array in arrays) or 'none'}"
        )
    lead = leads.pop()
    found = function(*(jnp.reshape(array, (-1, jnp.shape(array)[-1])) for array in arrays))
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), found)


def embed(model: Any, variables: Any, *inputs: Any, size: int = 256) -> Any:
    """`model.apply(variables, *inputs)` as one compiled call, of `size` rows at a time: the embeddings of a collection.

    Args:
      model: a Linen module, or what has its `apply` and can be hashed; as in evaluation, `train` is not given.
      variables: what it is applied with.
      *inputs: trees of arrays with leading axis N, such as images, or ids and mask of texts.
      size: rows of a part.

    Returns:
      What `apply` returns, with leading axis N.

    Raises:
      TypeError, ValueError: as `in_parts`.

    >>> import jax.numpy as jnp
    >>> from cljax import encoders
    >>> model, images = encoders.MLP((64,), 16), jnp.ones((600, 8, 8))
    >>> embed(model, model.init(jax.random.key(0), images[:1]), images).shape
    (600, 16)
    """
    return _embed(model, variables, inputs, size)


@partial(jax.jit, static_argnums=(0, 3))
def _embed(model, variables, inputs, size):
    return in_parts(partial(model.apply, variables), *inputs, size=size)
