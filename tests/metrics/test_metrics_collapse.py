"""Signs of collapse, clusters, hubs: worked numbers, float64, and the degenerate inputs that hide a fault."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest
from scipy.stats import skew

from cljax import metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype(np.float32) * np.float32([3, 1, 1, 0.1, 0.01]) + 1
WHERE = RNG.uniform(size=24) < 0.7
SPOILT = np.where(WHERE[:, None], X, np.nan).astype(np.float32)
effective_rank = jax.jit(metrics.effective_rank, static_argnames="centre")
isotropy = jax.jit(metrics.isotropy)


def rank(x, centre=False):
    values = np.linalg.svd(np.float64(x) - np.float64(x).mean(0) * centre, compute_uv=False)
    share = values[values > 0] / values.sum()
    return np.exp(-(share * np.log(share)).sum())


def cosine_pairs(x):
    unit = np.float64(x) / np.maximum(np.linalg.norm(np.float64(x), axis=1, keepdims=True), 1e-300)
    products = unit @ unit.T
    return products.sum() - np.trace(products), len(x) * (len(x) - 1)


@pytest.mark.parametrize("centre", (False, True))
def test_effective_rank_is_the_exponential_of_an_entropy(centre):
    np.testing.assert_allclose(effective_rank(X, centre=centre), rank(X, centre), rtol=1e-5)
    np.testing.assert_allclose(effective_rank(7 * X[:3].T, centre=centre), rank(X[:3].T, centre), rtol=1e-5)  # any length
    np.testing.assert_allclose(effective_rank(SPOILT, centre=centre, where=WHERE), rank(X[WHERE], centre), rtol=1e-5)


def test_effective_rank_of_equal_axes_of_one_direction_and_of_nothing():
    np.testing.assert_allclose(effective_rank(np.eye(5, dtype=np.float32)[np.arange(24) % 4]), 4, rtol=1e-5)
    np.testing.assert_allclose(effective_rank(np.ones((24, 5), np.float32)), 1, atol=1e-3)  # equal embeddings
    assert float(effective_rank(np.zeros((24, 5), np.float32))) == 1
    assert np.isnan(effective_rank(SPOILT))


def test_isotropy_of_the_worked_texts_and_of_their_corpus():
    texts = np.float32([[[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], [[3, 4], [4, 3], [1, 1], [np.nan, 0]]])
    there = np.array([[True] * 4, [True] * 3 + [False]])
    each = [float(isotropy(t[None], where=w[None])) for t, w in zip(texts, there, strict=True)]
    np.testing.assert_allclose(each, [1.033333, 0.020034], atol=1e-6)
    np.testing.assert_allclose(isotropy(texts, where=there), 0.695567, atol=1e-6)  # long texts weigh more


def test_isotropy_is_one_minus_the_mean_cosine():
    sheared = np.float32([[3, 1], [4, 1], [3, 2], [5, 1.5]])
    np.testing.assert_allclose(1 - metrics.isotropy(sheared), 0.976396, atol=1e-6)
    np.testing.assert_allclose(1 - metrics.isotropy(sheared - sheared.mean(0)), -0.308009, atol=1e-6)
    cosine, pairs = cosine_pairs(X[WHERE])
    np.testing.assert_allclose(isotropy(SPOILT, where=WHERE), 1 - cosine / pairs, atol=1e-6)
    assert abs(float(isotropy(np.ones((24, 5), np.float32)))) < 1e-5 and np.isnan(isotropy(SPOILT))
    assert float(isotropy(X, where=np.arange(24) < 1)) == 1  # no pair


def test_collapse_watch_says_what_a_collapse_looks_like():
    watch = jax.jit(metrics.collapse_watch)
    unit = X[WHERE] / np.linalg.norm(X[WHERE], axis=1, keepdims=True)
    cosine, pairs = cosine_pairs(unit)
    expected = {"std": unit.std(0).mean(), "mean_cosine": cosine / pairs, "effective_rank": rank(X[WHERE])}
    found = watch(SPOILT, where=WHERE)
    assert found.keys() == expected.keys() and all(np.shape(value) == () for value in found.values())
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-4)
    same = watch(np.ones((24, 5), np.float32), where=np.ones(24, bool))
    np.testing.assert_allclose([same["std"], same["mean_cosine"], same["effective_rank"]], [0, 1, 1], atol=1e-3)


def test_collapse_watch_looks_at_the_rows_of_all_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    local = partial(metrics.collapse_watch, axis_name="data")
    spread = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P()))
    found, expected = spread(X), metrics.collapse_watch(X)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_cluster_accuracy_is_that_of_the_best_matching():
    labels = RNG.integers(0, 4, 200)
    names = np.array([2**31, -(2**31), 7, 5])
    assert metrics.cluster_accuracy(names[labels], labels + 2**40) == 1  # names do not matter
    clusters = RNG.integers(0, 4, 200)
    best = max(np.mean(np.array(matching)[clusters] == labels) for matching in itertools.permutations(range(4)))
    np.testing.assert_allclose(metrics.cluster_accuracy(clusters, labels), best)
    assert metrics.cluster_accuracy(np.array([0] * 5 + [1] * 4), np.array([0] * 3 + [1] * 2 + [0] * 4)) == 6 / 9  # the largest of each: 3 + 0


def test_clusters_are_called_by_the_classes_of_the_best_matching():
    clusters, labels = np.array([5, 5, 7, 7, 7, 9]), np.array([0, 0, 1, 1, 0, 1])
    assert metrics.match_clusters(clusters, labels).tolist() == [0, 0, 1, 1, 1, -1]
    assert metrics.match_clusters(clusters, labels, unmatched=8)[-1] == 8
    assert metrics.match_clusters(np.uint8([0, 0, 3]), np.uint8([9, 9, 1])).tolist() == [9, 9, 1]
    rng = np.random.default_rng(3)
    clusters, labels = rng.integers(0, 6, 50), rng.integers(0, 4, 50)
    found = metrics.match_clusters(clusters, labels)
    assert np.mean(found == labels) == metrics.cluster_accuracy(clusters, labels)
    named = {cluster: set(found[clusters == cluster].tolist()) for cluster in range(6)}
    assert all(len(names) == 1 for names in named.values()) and sorted(min(names) for names in named.values()) == [-1, -1, 0, 1, 2, 3]


def test_cluster_accuracy_of_one_cluster_one_class_and_singletons():
    labels = np.repeat(np.arange(4), [5, 3, 1, 1])
    assert metrics.cluster_accuracy(np.zeros(10, int), labels) == 0.5  # the most frequent class
    assert metrics.cluster_accuracy(np.arange(10), labels) == 0.4  # one cluster a class
    assert metrics.cluster_accuracy(np.arange(10) % 2, np.full(10, 2**31 - 1)) == 0.5


@pytest.mark.parametrize("own", (True, False))
def test_hubness_is_the_skewness_of_how_often_a_key_is_found(own):
    queries, keys = X, X if own else RNG.normal(size=(31, 5)).astype(np.float32)
    distance = ((queries[:, None].astype(np.float64) - keys) ** 2).sum(-1)
    if own:
        np.fill_diagonal(distance, np.inf)
    times = np.bincount(np.argsort(distance, axis=1)[:, :4].ravel(), minlength=len(keys))
    found = jax.jit(partial(metrics.hubness, k=4, similarity="sqeuclidean"))(queries, None if own else keys)
    np.testing.assert_allclose(found, skew(times), rtol=1e-4)


def test_hubness_of_a_constant_scorer_is_large_and_of_even_neighbours_zero():
    angles = 2 * np.pi * np.arange(24) / 24
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert float(metrics.hubness(ring, ring, k=1)) == 0
    assert float(metrics.hubness(np.ones((24, 2), np.float32), np.ones((24, 2), np.float32), k=1)) > 4  # all find the first
    assert np.isnan(metrics.hubness(np.where(np.arange(24)[:, None] == 2, np.nan, ring).astype(np.float32), ring, k=1))


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"embeddings must have shape \[B, D\], got \[24\]", lambda: metrics.effective_rank(X[:, 0])),
        (ValueError, "embeddings must have at least one row", lambda: metrics.collapse_watch(X[:0])),
        (TypeError, "embeddings must have dtype float, got int32", lambda: metrics.effective_rank(X.astype(np.int32))),
        (ValueError, r"where must have shape \[24\] as embeddings, got \[2, 24\]", lambda: metrics.isotropy(X, where=np.ones((2, 24), bool))),
        (ValueError, "axis_name='data' is not mapped here", lambda: metrics.collapse_watch(X, axis_name="data")),
        (ValueError, r"clusters must not be empty, got shape \[0\]", lambda: metrics.cluster_accuracy(np.arange(0), np.arange(0))),
        (ValueError, r"labels must have shape \[N\] with N = 3 as in clusters", lambda: metrics.cluster_accuracy(np.arange(3), np.arange(4))),
        (ValueError, "unmatched must be no label, got 1", lambda: metrics.match_clusters(np.arange(3), np.arange(3), unmatched=1)),
        (TypeError, "clusters is traced", lambda: jax.jit(metrics.cluster_accuracy)(np.arange(3), np.arange(3))),
        (TypeError, "labels must have dtype int", lambda: metrics.cluster_accuracy(np.arange(3), np.ones(3))),
        (ValueError, "k must be at least 1 and at most 23, got 24", lambda: metrics.hubness(X, k=24)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
