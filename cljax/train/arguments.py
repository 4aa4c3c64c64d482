"""What `fit` accepts: its arguments checked, and brought into one form, before any work is done."""

import os
import re
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core import check
from cljax.train.bound import bind
from cljax.train.draws import Draws


def check_options(steps, after, name, chunk, save_seconds, folder, log, nan):
    """Raises TypeError or ValueError that names the first option that cannot be."""
    check.integer("steps", steps, at_least=0, at_most=2**31 - 1)
    check.integer("chunk", chunk, at_least=1)
    check.number("save_seconds", save_seconds, at_least=0)
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}")
    if not re.fullmatch(r"[\w-][\w .+=-]*", name):
        raise ValueError(f"name must serve as a folder's name (letters, digits, spaces and any of _-.+=), got {name!r}")
    if not isinstance(after, (tuple, list)) or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in after):
        raise TypeError(f"after must hold pairs (every, hook), as in after=((100, hook),), got {after!r}")
    for number, (every, hook) in enumerate(after):
        check.integer(f"after[{number}][0]", every, at_least=1)
        if not callable(hook):
            raise TypeError(f"after[{number}][1] must be a function, got {type(hook).__name__}")
    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path or None, got {type(folder).__name__}")
    if log is not None and not callable(log):
        raise TypeError(f"log must be a function or None, got {type(log).__name__}")
    check.choice("nan", nan, ("stop", "keep"))


def one_key(key):
    """The key as a typed one."""
    check.key("key", key)
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def check_state(state):
    """Raises unless the state is a pytree of arrays and numbers, and has one."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    if not leaves:
        raise ValueError(f"state must hold one array at least, got {state!r}")
    for path, leaf in leaves:
        is_number = isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex))
        if not is_number or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSUMm"):
            raise TypeError(f"state{jax.tree_util.keystr(path)} must be an array or a number, got {type(leaf).__name__}")


def check_alive(**trees):
    """Raises ValueError that names the first array whose buffer is gone: one that was donated to a compiled program, or deleted."""
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted():
                place = f"{name}{jax.tree_util.keystr(path)}"
                raise ValueError(f"{place} must hold its values, got an array that was deleted or donated to a program: take what that returned")


def as_arrays(batch):
    """A batch of an iterator with all its leaves as arrays: tensors of other libraries come by `__array__` or `numpy()`."""

    def array(path, leaf):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            leaf = leaf.numpy() if callable(getattr(leaf, "numpy", None)) and not hasattr(leaf, "__array__") else leaf
            leaf = np.asarray(leaf) if hasattr(leaf, "__array__") else leaf
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)) or (hasattr(leaf, "dtype") and leaf.dtype.kind in "OSUMm"):
            kind = f"dtype {leaf.dtype}" if hasattr(leaf, "dtype") else type(leaf).__name__
            raise TypeError(f"batch{jax.tree_util.keystr(path)} must be an array of numbers, got {kind}")
        return leaf

    return jax.tree_util.tree_map_with_path(array, batch)


def open_data(data):
    """How batches are drawn and from what, `(rows | Function, (values, arrays))`; `(None, None)` for an iterator of batches."""
    if isinstance(data, Draws):
        if isinstance(data.draw, int):
            return data.draw, ([], data.arrays)
        draw, values = bind("draw", data.draw, local=True)
        return draw, (values, data.arrays)
    if not hasattr(data, "__next__"):
        advice = "; make it one with iter(...)" if isinstance(data, Iterable) and not isinstance(data, (Mapping, str, jax.Array, np.ndarray)) else ""
        raise TypeError(f"data must be train.draws(arrays, draw) or an iterator of batches, got {type(data).__name__}{advice}")
    return None, None
