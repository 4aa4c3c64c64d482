"""A ring in clusters: where rows are written, when clusters begin, whom an anchor finds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core, memory

DIM, P, BATCH = 2, 3, 4
CAPACITY = 5 * BATCH + 1
ANGLES = np.deg2rad([0, 120, 240])
RNG = np.random.default_rng(0)
INIT, UPDATE = memory.cluster_memory(CAPACITY, DIM, P, restarts=3)
update = jax.jit(UPDATE, static_argnames="axis_name")
neighbours = jax.jit(memory.cluster_neighbours, static_argnames=("k", "newest", "whole"))
regroup = jax.jit(partial(memory.recluster, restarts=2))
KEY = jax.random.key(3)


def rows(number, groups):
    """Embeddings of any length in directions of three groups."""
    angle = ANGLES[groups] + 0.1 * np.random.default_rng(number).normal(size=len(groups))
    return np.float32((1 + number % 3) * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def groups_of(number):
    return np.arange(number * BATCH, (number + 1) * BATCH) % P


@pytest.fixture(scope="module")
def states():
    """The state after each of eight batches: five fit, the sixth starts the clusters, the seventh begins anew."""
    state, found = INIT(jax.random.key(0)), []
    for number in range(8):
        state = update(state, rows(number, groups_of(number)), KEY, number * BATCH + np.arange(BATCH))
        found.append(state)
    return found


def test_the_capacity_is_whole_batches_and_one_row():
    assert memory.cluster_capacity(200, 512) == 8193 and memory.cluster_capacity(500, 1024) == 20481
    assert memory.cluster_capacity(12, 128, scale=40) == 513


def test_batches_fill_the_ring_and_the_first_that_does_not_fit_starts_the_clusters(states):
    first = INIT(jax.random.key(0))
    np.testing.assert_allclose(np.linalg.norm(first.keys, axis=1), 1, rtol=1e-6)
    for number in range(5):
        state = states[number]
        assert int(state.pointer) == (number + 1) * BATCH and not state.started
        np.testing.assert_array_equal(state.keys[number * BATCH : (number + 1) * BATCH], rows(number, groups_of(number)))
        np.testing.assert_array_equal(state.keys[(number + 1) * BATCH :], first.keys[(number + 1) * BATCH :])
        assert not state.labels.any() and not state.centres.any()
    sixth, seventh = states[5], states[6]
    assert bool(sixth.started) and int(sixth.pointer) == 0
    np.testing.assert_array_equal(sixth.keys[:-1], states[4].keys[:-1])
    np.testing.assert_array_equal(sixth.keys[-1], rows(5, groups_of(5))[0])  # the one row that is left
    np.testing.assert_array_equal(seventh.keys[:BATCH], rows(6, groups_of(6)))
    np.testing.assert_array_equal(seventh.keys[BATCH:], sixth.keys[BATCH:])
    assert int(seventh.pointer) == BATCH
    assert seventh.ids[:BATCH].tolist() == [24, 25, 26, 27] and seventh.ids[-1] == 20 and seventh.ids[BATCH] == 4
    assert np.flatnonzero(seventh.newest).tolist() == [0, 1, 2, 3] and np.flatnonzero(sixth.newest).tolist() == [CAPACITY - 1]


def test_labels_stay_with_their_rows_and_are_those_of_the_transport(states):
    before, after = states[6], states[7]
    names = np.asarray(before.labels)
    groups = np.argmax(np.asarray(before.keys) @ np.stack([np.cos(ANGLES), np.sin(ANGLES)]), axis=1)
    assert len({(name, group) for name, group in zip(names, groups, strict=True)}) == P  # one name a group
    np.testing.assert_array_equal(np.delete(after.labels, slice(4, 8)), np.delete(before.labels, slice(4, 8)))
    z, c = rows(7, groups_of(7)).astype(float), np.asarray(before.centres, float)
    z, c = z / np.linalg.norm(z, axis=1, keepdims=True), c / np.linalg.norm(c, axis=1, keepdims=True)
    plan = core.sinkhorn(np.linalg.norm(c[:, None] - z, axis=2).astype(np.float32), 0.1, iterations=10, tolerance=0.0).plan
    np.testing.assert_array_equal(after.labels[4:8], np.argmax(plan, axis=0))


def test_centres_are_the_means_of_their_rows_and_move_by_the_momentum(states):
    before, after = states[6], states[7]
    means = np.stack([np.asarray(after.keys, float)[np.asarray(after.labels) == j].mean(axis=0) for j in range(P)])
    np.testing.assert_allclose(after.centres, means, atol=1e-5)
    slow = memory.cluster_memory(CAPACITY, DIM, P, momentum=0.75).update
    found = jax.jit(slow)(before, rows(7, groups_of(7)), KEY).centres
    np.testing.assert_allclose(found, 0.25 * means + 0.75 * np.asarray(before.centres), atol=1e-5)


def test_a_cluster_without_rows_keeps_its_centre(states):
    state = states[6]._replace(labels=jnp.zeros(CAPACITY, jnp.int32), centres=jnp.array([[1.0, 0], [0, 5], [-7, -7]]))
    found = jax.jit(memory.cluster_memory(CAPACITY, DIM, P, epsilon=1e-3, iterations=1).update)(state, np.ones((BATCH, 2), np.float32), KEY)
    empty = np.setdiff1d(np.arange(P), np.unique(found.labels))
    assert len(empty)
    np.testing.assert_array_equal(found.centres[empty], state.centres[empty])


def test_neighbours_are_the_nearest_of_the_nearest_cluster_and_not_those_just_written(states):
    state, anchors = states[7], rows(7, groups_of(7))
    unit = np.asarray(state.keys, float) / np.linalg.norm(state.keys, axis=1, keepdims=True)
    centre = np.asarray(state.centres, float) / np.linalg.norm(state.centres, axis=1, keepdims=True)
    found, newest = neighbours(state, anchors, 2), neighbours(state, anchors, 2, newest=True)
    whole = neighbours(state, anchors, 2, whole=True)
    for i, anchor in enumerate(anchors / np.linalg.norm(anchors, axis=1, keepdims=True)):
        same = np.asarray(state.labels) == np.argmax(centre @ anchor)
        for got, kept in ((found, same & ~np.asarray(state.newest)), (newest, same), (whole, ~np.asarray(state.newest))):
            expected = np.argsort(np.where(kept, -(unit @ anchor), np.inf), kind="stable")[:2]
            assert got.indices[i].tolist() == expected.tolist()
            np.testing.assert_array_equal(got.keys[i], state.keys[expected])
            np.testing.assert_array_equal(got.ids[i], state.ids[expected])
        assert newest.ids[i, 0] == 28 + i  # the anchor itself


def test_a_place_within_the_cluster_is_not_a_place_in_the_memory(states):
    """The released code takes the one for the other: the rows that it finds have nothing to do with the anchor."""
    state, anchors = states[7], rows(7, groups_of(7))
    found = np.asarray(neighbours(state, anchors, 2).indices)
    within = np.cumsum(np.asarray(state.labels)[None] == np.asarray(state.labels)[found[:, 0], None], axis=1) - 1
    wrong = np.take_along_axis(within, found, axis=1)
    unit = np.asarray(state.keys) / np.linalg.norm(state.keys, axis=1, keepdims=True)
    anchors = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    similar, unrelated = (np.einsum("bd,bkd->bk", anchors, unit[index]) for index in (found, wrong))
    assert similar.min() > 0.9 and abs(unrelated.mean()) < 0.6 and unrelated.min() < 0


def test_a_small_cluster_is_searched_with_all_others_and_so_is_a_memory_without_clusters(states):
    state, anchors = states[7], rows(7, groups_of(7))
    many = np.bincount(np.asarray(state.labels)[~np.asarray(state.newest)], minlength=P).max()
    for k in (int(many), 15):
        assert neighbours(state, anchors, k).indices.tolist() == neighbours(state, anchors, k, whole=True).indices.tolist()
    young = states[3]
    assert neighbours(young, anchors, 2).indices.tolist() == neighbours(young, anchors, 2, whole=True).indices.tolist()


def test_clusters_are_made_anew_only_where_there_are_some_and_none_would_be_empty(states):
    wrong = states[7]._replace(labels=jnp.zeros(CAPACITY, jnp.int32), centres=jnp.ones((P, DIM)))
    found = regroup(KEY, wrong)
    groups = np.argmax(np.asarray(found.keys) @ np.stack([np.cos(ANGLES), np.sin(ANGLES)]), axis=1)
    assert len(set(zip(np.asarray(found.labels).tolist(), groups.tolist(), strict=True))) == P
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1, atol=0.05)  # means of unit vectors
    alike = wrong._replace(keys=jnp.ones((CAPACITY, DIM)))
    for state in (alike, states[3]):
        new = regroup(KEY, state)
        np.testing.assert_array_equal(new.labels, state.labels)
        np.testing.assert_array_equal(new.centres, state.centres)


def test_no_gradient_passes_zero_vectors_are_finite_and_nan_surfaces(states):
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(UPDATE(states[6], z, KEY).keys) + jnp.sum(memory.cluster_neighbours(states[6], z, 2).keys)))
    np.testing.assert_array_equal(gradient(rows(7, groups_of(7))), 0)
    zero = update(states[6], np.zeros((BATCH, DIM), np.float32), KEY, np.arange(BATCH))
    assert np.isfinite(zero.keys).all() and np.isfinite(zero.centres).all()
    assert np.isnan(update(states[6], np.full((BATCH, DIM), np.nan, np.float32), KEY, np.arange(BATCH)).keys).any()


def test_memories_are_stacked_by_vmap(states):
    pair = jax.tree.map(lambda x, y: jnp.stack([x, y]), states[4], states[6])  # one is about to start, the other has clusters
    batch = rows(7, groups_of(7))
    found = jax.jit(jax.vmap(UPDATE, in_axes=(0, None, None, None)))(pair, batch, KEY, np.arange(BATCH))
    for i, state in enumerate((states[4], states[6])):
        alone = update(state, batch, KEY, np.arange(BATCH))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(np.float64(x[i]), np.float64(y), atol=1e-5), found, alone)


@pytest.mark.parametrize("checked", [True, False])
def test_four_devices_keep_the_memory_of_one(states, checked):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P(), jax.P("data")), out_specs=jax.P(), check_vma=checked)
    spread = jax.jit(jax.shard_map(partial(UPDATE, axis_name="data"), mesh=mesh, **specs))
    for state in (states[4], states[6]):
        got, expected = spread(state, rows(7, groups_of(7)), KEY, np.arange(BATCH)), update(state, rows(7, groups_of(7)), KEY, np.arange(BATCH))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(np.float64(x), np.float64(y), atol=1e-5), got, expected)


@pytest.mark.errors
def test_bad_input_is_named(states):
    for error, text, call in (
        (ValueError, "clusters must be at least 1 and at most 5, got 6", lambda: memory.cluster_memory(5, 2, 6)),
        (ValueError, "epsilon must be greater than 0", lambda: memory.cluster_memory(5, 2, 2, epsilon=0.0)),
        (ValueError, "momentum must be at least 0 and at most 1", lambda: memory.cluster_memory(5, 2, 2, momentum=2.0)),
        (ValueError, "scale must be at least 1", lambda: memory.cluster_capacity(5, 2, scale=0)),
        (TypeError, "key must be a PRNG key", lambda: INIT(0)),
        (TypeError, "key must be a PRNG key", lambda: UPDATE(states[0], rows(0, groups_of(0)), None)),
        (ValueError, r"keys must have shape \[B, 2\], got \[4, 3\]", lambda: UPDATE(states[0], np.ones((4, 3), np.float32), KEY)),
        (ValueError, r"ids must have shape \[B\] with B = 4", lambda: UPDATE(states[0], rows(0, groups_of(0)), KEY, np.arange(3))),
        (ValueError, "axis_name='data' is not mapped here", lambda: UPDATE(states[0], rows(0, groups_of(0)), KEY, axis_name="data")),
        (
            ValueError,
            r"state.ids must have shape \[7\], got \[21\]",
            lambda: memory.cluster_memory(7, 2, 3).update(states[0], rows(0, groups_of(0)), KEY),
        ),
        (ValueError, "k must be at least 1 and at most 21, got 22", lambda: memory.cluster_neighbours(states[0], rows(0, groups_of(0)), 22)),
        (ValueError, r"anchors must have shape \[B, 2\]", lambda: memory.cluster_neighbours(states[0], np.ones((4, 3), np.float32), 2)),
        (ValueError, "whole must be one of True, False", lambda: memory.cluster_neighbours(states[0], rows(0, groups_of(0)), 2, whole="yes")),
        (ValueError, "restarts must be at least 1", lambda: memory.recluster(KEY, states[0], restarts=0)),
    ):
        with pytest.raises(error, match=text):
            call()
