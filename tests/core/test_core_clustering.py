"""k-means: against scikit-learn, empty clusters, masks, restarts, under vmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core
from cljax.core import clustering

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MIDDLES = np.array([[0.0, 0], [6, 0], [0, 6], [6, 6]])
POINTS = (MIDDLES[np.arange(60) % 4] + RNG.normal(size=(60, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def four():
    return jax.jit(partial(core.kmeans, k=4, restarts=5))


def check_is_a_minimum(points, found):
    """Every point is with the nearest centre, every centre is the mean of its points."""
    points, centres, labels = np.float64(points), np.float64(found.centres), np.asarray(found.labels)
    distances = ((points[:, None] - centres) ** 2).sum(-1)
    np.testing.assert_allclose(distances[np.arange(len(points)), labels], distances.min(1), atol=1e-3)
    for label in range(len(centres)):
        np.testing.assert_allclose(centres[label], points[labels == label].mean(0), atol=1e-4)
    np.testing.assert_allclose(found.inertia, distances.min(1).sum(), rtol=1e-4)
    np.testing.assert_array_equal(found.sizes, np.bincount(labels, minlength=len(centres)))


def test_groups_are_found_as_scikit_learn_finds_them(four):
    from sklearn.cluster import KMeans

    found = four(KEY, POINTS)
    check_is_a_minimum(POINTS, found)
    reference = KMeans(4, n_init=5, random_state=0).fit(POINTS)
    np.testing.assert_allclose(found.inertia, reference.inertia_, rtol=1e-4)
    ours, theirs = (np.array(sorted(map(tuple, np.round(centres, 2)))) for centres in (np.asarray(found.centres), reference.cluster_centers_))
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_it_stays_exact_far_from_the_origin(four):
    check_is_a_minimum(POINTS + 1000, four(KEY, POINTS + 1000))


def test_more_restarts_are_never_worse_and_seeds_lie_apart():
    once, often = (jax.jit(jax.vmap(partial(core.kmeans, points=POINTS, k=4, restarts=n))) for n in (1, 5))
    keys = jax.random.split(KEY, 20)
    assert np.all(np.asarray(often(keys).inertia) <= np.asarray(once(keys).inertia) + 1e-3)
    seeds = jax.jit(jax.vmap(lambda key: clustering._seeds(key, jnp.array(POINTS), jnp.ones(60, bool), 4)))(keys)
    groups = np.argmin(((np.asarray(seeds)[:, :, None] - MIDDLES) ** 2).sum(-1), axis=-1)
    assert np.mean([len(set(row)) for row in groups]) > 3.4  # of 2.7 for seeds drawn evenly


def test_a_cluster_without_points_goes_on_at_the_farthest_one():
    start = np.float32([[0, 0], [100, 100], [101, 101], [6, 0]])
    found = jax.jit(partial(core.kmeans, k=4))(KEY, POINTS, centres=start)
    check_is_a_minimum(POINTS, found)
    assert np.min(found.sizes) > 0


def test_given_centres_are_gone_on_from():
    start = np.float32(MIDDLES[[2, 0, 3, 1]] + 0.5)
    found = jax.jit(partial(core.kmeans, k=4))(KEY, POINTS, centres=start)
    np.testing.assert_allclose(found.centres, start - 0.5, atol=0.7)


def test_fewer_different_points_than_clusters_leave_some_empty():
    points = np.repeat(np.float32([[1, 2], [5, 5]]), 4, axis=0)
    found = jax.jit(partial(core.kmeans, k=3))(KEY, points)
    assert found.inertia < 1e-6 and sorted(np.asarray(found.sizes)) == [0, 4, 4] and np.isfinite(found.centres).all()


def test_points_that_do_not_count_change_nothing(four):
    where = np.arange(60) < 50
    poisoned = np.where(where[:, None], POINTS, np.nan)
    found = jax.jit(partial(core.kmeans, k=4, restarts=5))(KEY, poisoned, where=where)
    check_is_a_minimum(POINTS[:50], found._replace(labels=found.labels[:50]))
    assert np.all(np.asarray(found.labels[50:]) == -1)
    assert np.isnan(four(KEY, poisoned).inertia)  # while a NaN that counts comes to light


def test_one_cluster_and_as_many_as_points():
    one, all_of_them = (jax.jit(partial(core.kmeans, k=k))(KEY, POINTS[:3]) for k in (1, 3))
    np.testing.assert_allclose(one.centres[0], POINTS[:3].mean(0), rtol=1e-5)
    assert all_of_them.inertia < 1e-6 and sorted(np.asarray(all_of_them.labels)) == [0, 1, 2]


def test_nothing_has_a_gradient_and_bfloat16_is_computed_in_float32():
    gradient = jax.jit(jax.grad(lambda x: core.kmeans(KEY, x, 2).inertia))(POINTS[:8])
    assert np.all(np.asarray(gradient) == 0)
    assert jax.eval_shape(lambda x: core.kmeans(KEY, x, 2), jnp.asarray(POINTS, jnp.bfloat16)).centres.dtype == jnp.float32


def test_it_runs_under_shard_map():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    own = jax.shard_map(lambda x: core.kmeans(KEY, x, 2).inertia[None], mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    np.testing.assert_allclose(jax.jit(own)(POINTS)[1], core.kmeans(KEY, POINTS[15:30], 2).inertia, rtol=1e-4)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "k must be at least 1 and at most 60, got 61", lambda: core.kmeans(KEY, POINTS, 61)),
        (ValueError, r"points must have shape \[N, D\], got \[60\]", lambda: core.kmeans(KEY, POINTS[:, 0], 2)),
        (ValueError, r"centres must have shape \[3, D\], got \[2, 2\]", lambda: core.kmeans(KEY, POINTS, 3, centres=POINTS[:2])),
        (ValueError, "restarts must be at least 1, got 0", lambda: core.kmeans(KEY, POINTS, 2, restarts=0)),
        (TypeError, "iterations must be an integer", lambda: core.kmeans(KEY, POINTS, 2, iterations=2.0)),
        (TypeError, "where must have dtype bool", lambda: core.kmeans(KEY, POINTS, 2, where=np.ones(60))),
        (TypeError, "key must be a PRNG key", lambda: core.kmeans(0, POINTS, 2)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
