"""Functions with bound values, taken apart into what a compiled program traces and what it is keyed by."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Bound(NamedTuple):
    """A function with bound values: calling `function(values, *args)` calls the original on `args`."""

    function: "Function"
    values: list


class Function(NamedTuple):
    """What a program is keyed by: equal wherever the function, the structure of its bound values and the static ones are, whoever bound them.

    Attributes:
      function: the function.
      structure: the structure of `(args, keywords)`.
      static: for each leaf `(type, value)`, as 1 and True are equal but not their programs; None where the value is traced.
    """

    function: Callable
    structure: Any
    static: tuple

    def __call__(self, values, *args):
        values = iter(values)
        bound, keywords = jax.tree.unflatten(self.structure, [next(values) if kept is None else kept[1] for kept in self.static])
        return self.function(*map(_close, bound), *args, **{name: _close(value) for name, value in keywords.items()})


def bind(name, function, local=False):
    """Takes a top-level function, or a `functools.partial` of one, apart.

    Arrays, Python floats and floats of configs are traced, all else is static; so it is inside of partials that are themselves bound.

    Args:
      name: the argument's name, for errors.
      function: the function.
      local: accept a function that is defined inside another, whose program nothing else can share.

    Raises:
      TypeError: not a function, or a static value is not hashable.
      ValueError: a function defined inside another, a lambda, or an object's method.
    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    inner, bound, keywords = function, (), {}
    while isinstance(inner, functools.partial):
        inner, bound, keywords = inner.func, (*inner.args, *bound), {**inner.keywords, **keywords}
    written = getattr(inner, "__qualname__", None)
    if not local and (written is None or "<" in written or inspect.ismethod(inner)):
        raise ValueError(
            f"{name} must be a top-level function or a functools.partial of one, got {written or f'an object of {type(inner).__name__}'}: what is "
            "made anew in each run (a function inside another, a lambda, a method) would compile anew in each; bind values by functools.partial"
        )
    leaves, structure = jax.tree_util.tree_flatten_with_path(_open((bound, keywords)))
    for path, leaf in leaves:
        try:
            hash(None if is_traced(leaf) else leaf)
        except TypeError:
            raise TypeError(f"{name} binds {_place(path)}, a {type(leaf).__name__}: bound values must be arrays, floats or hashable") from None
    try:
        hash(structure)
    except TypeError as error:
        raise TypeError(f"{name} binds a pytree whose structure is not hashable: {error}") from None
    static = tuple(None if is_traced(leaf) else (type(leaf), leaf) for _, leaf in leaves)
    return Bound(Function(inner, structure, static), [leaf for _, leaf in leaves if is_traced(leaf)])


def is_traced(value):
    """Whether a bound value becomes an argument of the compiled program; integers and booleans, numpy's too, often give shapes and stay static."""
    return isinstance(value, (jax.Array, np.ndarray, float, complex, np.inexact))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["args", "keywords"], meta_fields=["func"])
@dataclasses.dataclass(frozen=True)
class _Partial:
    """A `functools.partial` as a pytree: two that bind the same values to the same function are equal, which those of functools are not."""

    func: Callable
    args: tuple
    keywords: dict


def _open(tree):
    def opened(leaf):
        return _Partial(leaf.func, _open(leaf.args), _open(leaf.keywords)) if type(leaf) is functools.partial else leaf

    return jax.tree.map(opened, tree)


def _close(tree):
    def closed(leaf):
        return functools.partial(leaf.func, *_close(leaf.args), **_close(leaf.keywords)) if isinstance(leaf, _Partial) else leaf

    return jax.tree.map(closed, tree, is_leaf=lambda leaf: isinstance(leaf, _Partial))


def _place(path):
    """Where a bound value stands: `[0]['widths']` for an entry of the first positional one."""
    return jax.tree_util.keystr(path[1:]) or "a value"
