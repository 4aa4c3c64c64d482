"""A memory that is grouped: embeddings of past batches in clusters of equal size, where an anchor finds others like itself."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32, Integer, Num

from cljax import pairwise
from cljax.core import check, kmeans, safe_normalize, sinkhorn
from cljax.core.check import KeyLike
from cljax.memory.pair import Memory, gather, unit_gaussian


class ClusterState(NamedTuple):
    """The state of a `cluster_memory`.

    Attributes:
      keys: float32 `[capacity, D]`, as they were given.
      ids: int32 `[capacity]`, which example each row is; -1 where it was not said.
      labels: int32 `[capacity]`, the cluster of each row; 0 before there are clusters.
      newest: `[capacity]` booleans, the rows of the last update.
      centres: float32 `[P, D]`, the mean of each cluster's rows.
      pointer: int32, the row that is written next.
      started: whether there are clusters.
    """

    keys: Float[Array, "capacity D"]
    ids: Int32[Array, " capacity"]
    labels: Int32[Array, " capacity"]
    newest: Bool[Array, " capacity"]
    centres: Float[Array, "P D"]
    pointer: Int[Array, ""]
    started: Bool[Array, ""]


class Neighbours(NamedTuple):
    """Rows of a memory that are near each of several anchors.

    Attributes:
      keys: float32 `[B, k, D]`, the nearest first.
      indices: int32 `[B, k]`, their rows.
      ids: int32 `[B, k]`, the examples that they are.
    """

    keys: Float[Array, "B k D"]
    indices: Int32[Array, "B k"]
    ids: Int32[Array, "B k"]


def cluster_capacity(clusters: int, batch: int, *, scale: int = 40) -> int:
    r"""The capacity of a `cluster_memory` as published, $(\lfloor s P / b \rfloor + 1) b + 1$ for P clusters and b rows an update.

    Args:
      clusters: P.
      batch: b, the rows of an update: both views of all examples.
      scale: s, about how many rows a cluster has.

    Returns:
      The number of rows: whole batches, and one row.

    Raises:
      TypeError, ValueError: a number is not an integer above 0.

    >>> cluster_capacity(200, 512)
    8193
    """
    for name, value in (("clusters", clusters), ("batch", batch), ("scale", scale)):
        check.integer(name, value, at_least=1)
    return (scale * clusters // batch + 1) * batch + 1


def cluster_memory(
    capacity: int,
    dim: int,
    clusters: int,
    *,
    epsilon: Num[ArrayLike, ""] = 0.1,
    iterations: int = 10,
    momentum: Num[ArrayLike, ""] = 0.0,
    restarts: int = 10,
) -> Memory:
    r"""A ring of past embeddings in P clusters, each row assigned as it comes in (DyCE).

    Once the first batch no longer fits, k-means on the unit sphere makes clusters. From then on each batch is assigned by optimal transport, of the
    cost $\lVert z_i / \lVert z_i \rVert - c_j / \lVert c_j \rVert \rVert$, every cluster getting an equal share, and put over the oldest rows;
    then $c_j \leftarrow (1 - \mu)\, \mathrm{mean}_{i: l_i = j}\, z_i + \mu c_j$ (a cluster without rows keeps its centre). A batch that reaches the
    end of the ring fills it, its rest is dropped, and the next one begins at the first row. With P = 1 it is a plain ring.

    Args:
      capacity: the number of rows; see `cluster_capacity`.
      dim: the width D of a row.
      clusters: P, at most `capacity`.
      epsilon: of the transport.
      iterations: of the transport.
      momentum: mu, from 0 to 1.
      restarts: of k-means.

    Returns:
      `Memory(init, update)`:
      `init(key) -> ClusterState` with unit Gaussian rows and no clusters;
      `update(state, keys, key, ids=None, axis_name=None) -> ClusterState` with keys `[B, D]`, which get no gradient, a PRNG key for the first
      clustering, the same on every device, and ids `[B]`, integers that say which examples the rows are. With `axis_name` the rows of all devices are
      put in, in the order of the devices, and the state is the same on every device.
      `recluster` makes new clusters of all rows, `cluster_neighbours` finds rows.

    Raises:
      TypeError, ValueError: a size is not an integer above 0, another number lies outside its range; arrays of other shapes or kinds; `axis_name` is
      not mapped.

    Reference:
      Poulakakis-Daktylidis & Jamali-Rad, "BECLR: Batch Enhanced Contrastive Few-Shot Learning", ICLR 2024, algorithm 1. The released code, in its
      published settings, gives the transport the cost with the other sign, which sends rows to far clusters; here they go to near ones.

    >>> init, update = cluster_memory(5, 2, 2, restarts=2)
    >>> state = init(jax.random.key(0))
    >>> for _ in range(3):
    ...     state = update(state, jnp.array([[1.0, 0.1], [-1.0, 0.1]]), jax.random.key(1))
    >>> bool(state.started), int(state.pointer), bool((state.labels[0] == state.labels[2]) & (state.labels[0] != state.labels[1]))
    (True, 0, True)
    """
    for name, value in (("capacity", capacity), ("dim", dim), ("iterations", iterations), ("restarts", restarts)):
        check.integer(name, value, at_least=1)
    check.integer("clusters", clusters, at_least=1, at_most=capacity)
    check.positive("epsilon", epsilon)
    check.number("momentum", momentum, at_least=0, at_most=1)

    def init(key: KeyLike) -> ClusterState:
        check.key("key", key)
        numbers, no = jnp.zeros(capacity, jnp.int32), jnp.zeros(capacity, bool)
        centres = jnp.zeros((clusters, dim))
        return ClusterState(unit_gaussian(key, capacity, dim), numbers - 1, numbers, no, centres, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def update(
        state: ClusterState, keys: Float[ArrayLike, "B D"], key: KeyLike, ids: Integer[ArrayLike, " B"] | None = None, axis_name: str | None = None
    ) -> ClusterState:
        _check_state(state, capacity, dim, clusters)
        check.arrays(keys=(keys, f"B {dim}"), ids=(ids, "B?", "int"))
        check.key("key", key)
        check.axis("axis_name", axis_name)
        ids = jnp.full(len(keys), -1, jnp.int32) if ids is None else jnp.asarray(ids).astype(jnp.int32)
        keys = gather(lax.stop_gradient(jnp.asarray(keys)).astype(state.keys.dtype), axis_name)
        fits = state.pointer + len(keys) < capacity
        state = lax.cond(state.started | fits, lambda state: state, lambda state: _grouped(key, state, restarts)[0], state)
        plan = sinkhorn(_distances(state.centres, keys), epsilon, iterations=iterations, tolerance=0.0).plan
        labels = jnp.where(state.started, jnp.argmax(plan, axis=0), 0).astype(jnp.int32)
        slots = state.pointer + jnp.arange(len(keys))  # beyond the end nothing is written
        written = {"keys": keys, "ids": gather(ids, axis_name), "labels": labels}
        new = state._replace(**{name: getattr(state, name).at[slots].set(rows, mode="drop") for name, rows in written.items()})
        means, counts = _means(new.keys, new.labels, clusters)
        moved = jnp.where((counts > 0)[:, None], (1 - momentum) * means + momentum * state.centres, state.centres)
        newest = jnp.zeros(capacity, bool).at[slots].set(True, mode="drop")
        pointer = jnp.where(fits, state.pointer + len(keys), 0)
        return new._replace(newest=newest, centres=jnp.where(state.started, moved, state.centres).astype(state.centres.dtype), pointer=pointer)

    return Memory(init, update)


def recluster(key: KeyLike, state: ClusterState, *, restarts: int = 10) -> ClusterState:
    """New clusters of all rows of a `cluster_memory`, by k-means on the unit sphere; nothing changes where there are none yet or one would be empty.

    Args:
      key: a PRNG key.
      state: of a `cluster_memory`.
      restarts: of k-means.

    Returns:
      The state with other labels and centres.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    >>> init, update = cluster_memory(5, 2, 2)
    >>> state = update(init(jax.random.key(0)), jnp.ones((2, 2)), jax.random.key(1))
    >>> bool(recluster(jax.random.key(2), state).started)
    False
    """
    check.key("key", key)
    check.integer("restarts", restarts, at_least=1)
    new, sizes = _grouped(key, state, restarts)
    taken = state.started & jnp.all(sizes > 0)
    return jax.tree.map(lambda new, old: jnp.where(taken, new, old), new, state)


def cluster_neighbours(state: ClusterState, anchors: Float[ArrayLike, "B D"], k: int, *, newest: bool = False, whole: bool = False) -> Neighbours:
    r"""The k rows most similar to each anchor, by cosine, in the cluster whose centre is most similar to it.

    Where the cluster has no more than k rows, the whole memory is searched. The rows of the last update, which hold the anchor itself and its other
    view if they were put in first, are left out, as if they were not there.

    Args:
      state: of a `cluster_memory`.
      anchors: `[B, D]`; they get no gradient.
      k: at most as many rows as there are besides those of the last update.
      newest: whether the rows of the last update are searched too, as the released code does.
      whole: whether the whole memory is searched for all anchors: plain nearest neighbours, as NNCLR's.

    Returns:
      `Neighbours`. Before there are clusters the whole memory is one.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Poulakakis-Daktylidis & Jamali-Rad (BECLR), ICLR 2024, section 3.1, where the released code takes the place of a row within its cluster for its
      place in the memory, which finds unrelated rows; Dwibedi et al., "With a Little Help from My Friends" (NNCLR), ICCV 2021.

    >>> init, update = cluster_memory(5, 2, 2, restarts=2)
    >>> state = init(jax.random.key(0))
    >>> for i in range(3):
    ...     state = update(state, jnp.array([[1.0, 0.1 * i], [-1.0, 0.1]]), jax.random.key(1), ids=jnp.array([i, 7]))
    >>> cluster_neighbours(state, jnp.array([[1.0, 0.1]]), 1).ids.tolist()
    [[1]]
    """
    _check_state(state, *state.keys.shape, len(state.centres))
    capacity, dim = state.keys.shape
    check.arrays(anchors=(anchors, f"B {dim}"))
    check.integer("k", k, at_least=1, at_most=capacity)
    for name, value in (("newest", newest), ("whole", whole)):
        check.choice(name, value, (True, False))
    anchors = lax.stop_gradient(jnp.asarray(anchors)).astype(state.keys.dtype)
    there = jnp.ones(capacity, bool) if newest else ~state.newest
    own = jnp.argmin(_distances(state.centres, anchors), axis=0)
    members = jax.ops.segment_sum(there.astype(jnp.int32), state.labels, len(state.centres))
    alone = jnp.full(len(anchors), whole) | (members[own] <= k) | ~state.started
    rows, columns = {"label": own, "whole": alone}, {"label": state.labels, "there": there}
    _, indices = pairwise.top_k(anchors, state.keys, k, similarity="cosine", rows=rows, columns=columns, where=_searched)
    return Neighbours(state.keys[indices], indices, state.ids[indices])


def _searched(row, column):
    return column["there"] & (row["whole"] | (row["label"] == column["label"]))


def _distances(centres, keys):
    """`[P, B]`, between unit vectors; products of unit vectors lose what is below 1e-3, which moves nobody."""
    cosine = jnp.matmul(safe_normalize(centres), safe_normalize(keys).T, precision=lax.Precision.HIGHEST)
    return jnp.sqrt(jnp.maximum(2 - 2 * cosine, 0))


def _grouped(key, state, restarts):
    """The state with clusters from k-means, and their sizes."""
    found = kmeans(key, safe_normalize(state.keys), len(state.centres), restarts=restarts)
    return state._replace(labels=found.labels, centres=found.centres, started=jnp.ones_like(state.started)), found.sizes


def _means(keys, labels, clusters):
    counts = jax.ops.segment_sum(jnp.ones(len(keys)), labels, clusters)
    return jax.ops.segment_sum(keys, labels, clusters) / jnp.maximum(counts, 1)[:, None], counts


def _check_state(state, capacity, dim, clusters):
    vectors = {name: (getattr(state, name), f"{capacity}", kind) for name, kind in (("ids", "int"), ("labels", "int"), ("newest", "bool"))}
    arrays = vectors | {"keys": (state.keys, f"{capacity} {dim}"), "centres": (state.centres, f"{clusters} {dim}")}
    check.arrays(**{f"state.{name}": value for name, value in arrays.items()})
