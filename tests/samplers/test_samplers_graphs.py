"""Graphs: nearest neighbours, powers of the neighbourhood."""

import numpy as np
import pytest

from cljax import samplers

RNG = np.random.default_rng(0)


def dense(edges, nodes):
    found = np.zeros((nodes, nodes))
    np.add.at(found, (edges.rows, edges.columns), edges.weights)
    return found


def test_neighbours_are_the_nearest_others_of_either_node():
    x = RNG.normal(size=(30, 4)).astype(np.float32)
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    nearest = np.zeros((30, 30))
    np.put_along_axis(nearest, np.argsort(distances, axis=1)[:, :3], 1, axis=1)
    edges = samplers.knn_graph(x, 3)
    np.testing.assert_array_equal(dense(edges, 30), np.maximum(nearest, nearest.T))
    assert edges.rows.dtype == edges.columns.dtype == np.int32 and edges.weights.dtype == np.float32
    assert np.all(np.diff(edges.rows.astype(np.int64) * 30 + edges.columns) > 0)


def test_a_point_is_not_its_own_neighbour_where_others_lie_on_it():
    edges = samplers.knn_graph(np.zeros((4, 2), np.float32), 1)
    assert not np.any(edges.rows == edges.columns)


@pytest.mark.parametrize("order, cumulative", [(1, True), (3, True), (3, False)])
def test_influence_is_the_sum_or_the_power_of_the_normalised_adjacency(order, cumulative):
    rows, columns = np.array([0, 1, 1, 4, 2, 3]), np.array([1, 0, 2, 2, 2, 0])  # twice the same pair, a node with itself, node 5 alone
    a = np.eye(6)
    a[rows, columns] = a[columns, rows] = 1
    a /= a.sum(1, keepdims=True)
    powers = [np.linalg.matrix_power(a, i) for i in range(1, order + 1)]
    found = samplers.influence(rows, columns, 6, order, cumulative=cumulative)
    np.testing.assert_allclose(dense(found, 6), sum(powers) if cumulative else powers[-1], atol=1e-7)
    np.testing.assert_allclose(dense(found, 6).sum(1), order if cumulative else 1, rtol=1e-6)
    assert np.all(found.weights > 0)


def test_entries_that_fill_up_weigh_nothing():
    plain, filled = (samplers.influence(np.arange(4), np.arange(1, 5), 5, 2, multiple=m) for m in (1, 8))
    assert len(plain.rows) == 19 and len(filled.rows) == len(filled.weights) == 24
    np.testing.assert_array_equal(dense(filled, 5), dense(plain, 5))


def test_a_graph_without_edges_leaves_every_node_alone():
    none = np.zeros(0, int)
    np.testing.assert_array_equal(dense(samplers.influence(none, none, 3, 2), 3), 2 * np.eye(3))


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "k must be at least 1 and at most 3, got 4", lambda: samplers.knn_graph(np.ones((4, 2)), 4)),
        (ValueError, r"points must have shape \[N, D\]", lambda: samplers.knn_graph(np.ones(4), 1)),
        (ValueError, "columns must hold nodes from 0 to 2, got 1 to 3", lambda: samplers.influence(np.array([0, 1]), np.array([1, 3]), 3, 1)),
        (ValueError, r"columns must have shape \[E\] with E = 2", lambda: samplers.influence(np.array([0, 1]), np.array([1]), 3, 1)),
        (ValueError, "order must be at least 1", lambda: samplers.influence(np.array([0]), np.array([1]), 3, 0)),
        (TypeError, "rows must have dtype int", lambda: samplers.influence(np.array([0.5]), np.array([1]), 3, 1)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
