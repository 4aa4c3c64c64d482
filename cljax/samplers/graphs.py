"""Who is near whom in a graph: lists of weighted neighbours, made outside of jit, as their number hangs on the data."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Integer

from cljax import pairwise
from cljax.core import check


class Edges(NamedTuple):
    """The entries of a sparse matrix, numpy arrays in the order of rows and columns.

    Attributes:
      rows: int32 `[E]`, nodes.
      columns: int32 `[E]`, a neighbour of each.
      weights: float32 `[E]`; 0 for entries that only fill up.
    """

    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray


def knn_graph(points: Float[ArrayLike, "N D"], k: int, *, similarity: Literal["dot", "cosine", "sqeuclidean"] = "sqeuclidean") -> Edges:
    """The graph of nearest neighbours: two nodes are joined where one is among the k nearest others of the other.

    Args:
      points: `[N, D]`, a node each.
      k: neighbours, at most N - 1; of equally near ones the first.
      similarity: as in `pairwise.top_k`.

    Returns:
      `Edges` in both directions, of weight 1; none from a node to itself.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> edges = knn_graph(np.array([[0.0], [1.0], [5.0]]), 1)
    >>> edges.rows.tolist(), edges.columns.tolist()
    ([0, 1, 1, 2], [1, 0, 2, 1])
    """
    total = check.arrays(points=(points, "N D"))["N"]
    check.integer("k", k, at_least=1, at_most=total - 1)
    index = np.arange(total, dtype=np.int32)
    _, nearest = pairwise.top_k(points, points, k, similarity=similarity, rows=index, columns=index, where=_others)
    return _edges(_matrix(np.repeat(index, k), np.asarray(nearest).ravel(), total))


def influence(
    rows: Integer[ArrayLike, " E"], columns: Integer[ArrayLike, " E"], nodes: int, order: int, *, cumulative: bool = True, multiple: int = 1
) -> Edges:
    r"""How much of each node reaches another in some steps of a random walk that may stand still.

    With $A$ the adjacency, 1 on the diagonal too, each row divided by its sum: $S = A + A^2 + \ldots + A^r$, whose rows sum to r, or $S = A^r$ alone.

    Args:
      rows, columns: `[E]` nodes that are joined; each pair is taken in both directions, once.
      nodes: N.
      order: r.
      cumulative: whether the powers up to r are summed.
      multiple: the number of entries is filled up to a multiple of this, with entries of weight 0, so that devices can share them.

    Returns:
      `Edges`, as `losses.meta_node_contrast` takes them.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; a node that is not in [0, N).

    Reference: "Efficient block contrastive learning via parameter-free meta-node approximation", 2022 (arXiv 2209.14067).

    >>> edges = influence(np.array([0, 1]), np.array([1, 2]), 3, 1)
    >>> edges.rows.tolist(), edges.columns.tolist(), edges.weights.round(2).tolist()
    ([0, 0, 1, 1, 1, 2, 2], [0, 1, 0, 1, 2, 1, 2], [0.5, 0.5, 0.33000001311302185, 0.33000001311302185, 0.33000001311302185, 0.5, 0.5])
    """
    check.arrays(rows=(rows, "E", "int"), columns=(columns, "E", "int"))
    for name, value in (("nodes", nodes), ("order", order), ("multiple", multiple)):
        check.integer(name, value, at_least=1)
    for name, value in (("rows", rows), ("columns", columns)):
        if np.size(value) and not 0 <= np.min(value) <= np.max(value) < nodes:
            raise ValueError(f"{name} must hold nodes from 0 to {nodes - 1}, got {np.min(value)} to {np.max(value)}")
    here = np.arange(nodes)
    joined = _matrix(np.concatenate([np.asarray(rows), here]), np.concatenate([np.asarray(columns), here]), nodes)
    walk = joined.multiply(1 / joined.sum(axis=1).reshape(-1, 1)).tocsr()
    power = found = walk
    for _ in range(order - 1):
        power = power @ walk
        found = found + power if cumulative else power
    return _edges(found, multiple)


def _others(row, column):
    return row != column


def _matrix(rows, columns, nodes):
    """The adjacency in both directions, with ones."""
    import scipy.sparse

    both = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    found = scipy.sparse.coo_array((np.ones(len(both[0])), both), shape=(nodes, nodes)).tocsr()
    found.data[:] = 1
    return found


def _edges(matrix, multiple=1):
    matrix = matrix.tocsr().sorted_indices().tocoo()
    rows, columns = matrix.coords
    fill = -len(rows) % multiple
    return Edges(
        *(np.append(nodes, np.full(fill, nodes[-1] if fill else 0)).astype(np.int32) for nodes in (rows, columns)),
        np.append(matrix.data, np.zeros(fill)).astype(np.float32),
    )
