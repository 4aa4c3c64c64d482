"""What a loss asks of a score matrix: reductions of a value along its rows or its columns."""

import dataclasses
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from cljax.core import check

_reduction = partial(jax.tree_util.register_dataclass, data_fields=["value", "where"], meta_fields=["axis"])


@_reduction
@dataclasses.dataclass(frozen=True)
class LogSumExp:
    r"""$\log \sum \exp(\text{value})$ over keys (`axis=1`, gives `[B]`) or over queries (`axis=0`, gives `[N]`); -inf where nothing is kept.

    Attributes:
      value: `[b, n]` floats, or what broadcasts to that.
      where: None (all), or booleans that broadcast to `[b, n]`: what is False is left out.
      axis: the axis that is reduced.
    """

    value: Any
    where: Any = None
    axis: int = 1


@_reduction
@dataclasses.dataclass(frozen=True)
class Sum:
    """The sum over keys (`axis=1`, gives `[B]`) or over queries (`axis=0`, gives `[N]`); 0 where nothing is kept. Attributes as in `LogSumExp`."""

    value: Any
    where: Any = None
    axis: int = 1


@_reduction
@dataclasses.dataclass(frozen=True)
class Max:
    """The maximum over keys (`axis=1`) or over queries (`axis=0`) and where it stands: `(values, indices)`, both `[B]` or both `[N]`.

    The index is global and the first on ties; the gradient goes to the entry at that index alone. NaN propagates. Where nothing is kept the value is
    -inf, the index 0 and the gradient 0. Attributes as in `LogSumExp`.
    """

    value: Any
    where: Any = None
    axis: int = 1


@runtime_checkable
class TermFn(Protocol):
    """The function that a user gives to `reduce`: elementwise maths on one block of the scores."""

    def __call__(self, scores, row, column, params) -> Any:
        """Names what is reduced.

        Args:
          scores: float32 `[b, n]`, a block of the similarities.
          row: the same block of `rows`, each leaf `[b, 1, ...]`.
          column: the same block of `columns`, each leaf `[1, n, ...]`.
          params: as given to `reduce`.

        Returns:
          A tree whose leaves are `LogSumExp`, `Sum` and `Max`.
        """


def reductions(found, shape):
    """What a `TermFn` returned for a block of this shape, checked: the reductions as a list, and the structure of their tree."""
    leaves, structure = jax.tree.flatten(found, is_leaf=_is_reduction)
    for leaf in leaves:
        if not _is_reduction(leaf):
            raise TypeError(f"terms must return a tree of LogSumExp, Sum and Max, got {type(leaf).__name__}")
        if leaf.axis not in (0, 1):
            raise ValueError(f"{type(leaf).__name__}.axis must be 1 (over keys) or 0 (over queries), got {leaf.axis!r}")
        for name in ("value", "where"):
            given = np.shape(getattr(leaf, name)) if getattr(leaf, name) is not None else ()
            if not check.broadcasts(given, shape):
                raise ValueError(f"{type(leaf).__name__}.{name} must broadcast to the block of scores {list(shape)}, got {list(given)}")
    return leaves, structure


def _is_reduction(node):
    return isinstance(node, LogSumExp | Sum | Max)
