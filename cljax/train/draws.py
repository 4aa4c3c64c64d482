"""Batches as a pure function of the key and the step, drawn from arrays that live on the device."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from cljax.core import check, shuffled

DATA_STREAM = 2**32 - 1  # folded into the run's key where a step's number would be: no run has so many steps


@dataclasses.dataclass(frozen=True)
class Draws:
    """The arrays that batches are drawn from, and how: see `draws`."""

    arrays: Any
    draw: Callable | int


def draws(arrays: PyTree, draw: Callable | int) -> Draws:
    r"""Batches drawn from arrays inside of the compiled program, the `data` of `train.fit`.

    With an int `b`, step $t$ gets the entries $tb, \dots, tb + b - 1$ of an endless sequence: a keyed permutation of all rows for each epoch, one
    after the other (`core.permutation`, evaluated at these positions). So each epoch shows each row once, also where `b` does not divide the number
    of rows or exceeds it.

    Args:
      arrays: a dict of arrays, or of trees of them, with the same leading axis. With a function for `draw`, any pytree of arrays.
      draw: the rows of a batch, or a function `draw(key, arrays, t) -> batch` of the step's key, the arrays and the step's number $t$ (a traced
        int32). Values are bound to it by `functools.partial`; a function that is made anew each time compiles anew each time.

    Returns:
      What `train.fit` takes. A batch of an int is `{name: [b, ...], "index": [b]}`, the rows drawn and their int32 row numbers.

    Raises:
      TypeError: `arrays` are not arrays, or `draw` is neither a function nor an int.
      ValueError: no arrays, unequal leading axes, an array named "index", or fewer than one row a batch.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        if not isinstance(leaf, (jax.Array, np.ndarray)) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSUMm"):
            kind = f"dtype {leaf.dtype}" if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise TypeError(f"arrays{jax.tree_util.keystr(path)} must be an array of numbers, got {kind}")
    if not callable(draw):
        check.integer("draw", draw, at_least=1, at_most=2**30)
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays must be a dict of arrays where draw is an int, got {type(arrays).__name__}")
        if not arrays or "index" in arrays:
            raise ValueError('arrays must hold one array at least, and none named "index" (a batch gets its row numbers under that name)')
        leaves = jax.tree_util.tree_leaves_with_path(dict(arrays))
        rows = {jax.tree_util.keystr(path, simple=True, separator="/"): (*np.shape(leaf), 0)[0] for path, leaf in leaves}
        if min(rows.values(), default=0) < 1 or len(set(rows.values())) > 1:
            raise ValueError(f"arrays must have the same leading axis, of one row at least, got rows {rows}")
        draw = int(draw)
    return Draws(jax.tree.map(jnp.asarray, arrays), draw)


def epochs(key, arrays, batch, t):
    """The batch of step `t`: rows of the endless sequence of permutations that `key` stands for."""
    index = shuffled(key, len(jax.tree.leaves(arrays)[0]), batch, t)
    return jax.tree.map(lambda array: array[index], dict(arrays)) | {"index": index}
