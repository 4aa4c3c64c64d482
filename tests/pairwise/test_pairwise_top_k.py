"""pairwise.top_k against a full sort: order, ties, masks, what is not finite, gradients."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import pairwise

BOTH = pytest.mark.parametrize("implementation", ("dense", "blockwise"))


def awkward(draw, queries=9, keys=1000):
    """Inputs with many equal scores, and keys whose scores are NaN of either sign, 0 of either sign, inf and -inf."""
    queries, keys = (draw.integers(-2, 3, size=(n, 3)).astype(np.float32) for n in (queries, keys))
    keys[[700, 40, 990]] = [[np.inf, np.inf, np.inf], [np.nan, 0, 0], [-np.inf, 0, 0]]
    queries[0], queries[1] = 0, -0.0
    return queries, keys


def sorted_scores(scores, k):
    """The first k of a stable sort, NaN the largest, -inf out."""
    order = np.argsort(-np.where(np.isnan(scores), np.inf, np.minimum(scores, np.finfo(np.float32).max)), axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return found, np.where(found == -np.inf, -1, order)


@pytest.mark.parametrize("similarity", ("dot", "cosine", "sqeuclidean"))
@BOTH
def test_equals_a_full_sort_in_float64(similarity, implementation):
    draw = np.random.default_rng(0)
    queries, keys = draw.normal(size=(7, 3)).astype(np.float32), draw.normal(size=(23, 3)).astype(np.float32)
    q, k = queries.astype(np.float64), keys.astype(np.float64)
    if similarity == "cosine":
        q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    wanted = -((q[:, None] - k[None]) ** 2).sum(-1) if similarity == "sqeuclidean" else q @ k.T
    order = np.argsort(-wanted, axis=1)[:, :4]
    scores, indices = pairwise.top_k(queries, keys, 4, similarity=similarity, implementation=implementation, block_size=5)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, np.take_along_axis(wanted, order, 1), atol=1e-5)


@BOTH
def test_ties_go_to_the_lowest_index(implementation):
    _, indices = pairwise.top_k(jnp.ones((2, 3)), jnp.ones((9, 3)), 6, implementation=implementation, block_size=4)
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3, 4, 5]] * 2)


@functools.cache
def by_groups(k, length=1000, kept=None):
    """A program for blocks of 256 keys, eight groups each, that lets a query have only keys whose number it divides."""
    place = np.arange(length)
    where = (lambda row, column: column % row == 0) if kept is None else kept
    rows = np.arange(1, 10)
    return jax.jit(
        lambda queries, keys: pairwise.top_k(queries, keys, k, rows=rows, columns=place, where=where, implementation="blockwise", block_size=256)
    )


@pytest.mark.parametrize("k", (1, 4, 5, 1000))
def test_groups_of_keys_choose_what_a_stable_sort_does(k):
    """k up to half of the groups of a block goes by groups, more by all scores."""
    with np.errstate(invalid="ignore"):
        for seed in range(3):
            queries, keys = awkward(np.random.default_rng(seed))
            scores = np.where(np.arange(1000) % np.arange(1, 10)[:, None] == 0, queries @ keys.T, -np.inf)
            wanted, order = sorted_scores(scores, k)
            found, indices = by_groups(k)(queries, keys)
            np.testing.assert_array_equal(indices, order)
            np.testing.assert_array_equal(found, wanted)


@BOTH
def test_a_query_with_too_few_keys_gets_minus_one(implementation):
    scores, indices = pairwise.top_k(
        jnp.ones((2, 3)),
        jnp.ones((5, 3)),
        3,
        rows=jnp.array([0, 9]),
        columns=jnp.arange(5) // 3,
        where=jnp.equal,
        implementation=implementation,
        block_size=2,
    )
    np.testing.assert_array_equal(indices, [[0, 1, 2], [-1, -1, -1]])
    np.testing.assert_array_equal(scores, [[3, 3, 3], [-np.inf] * 3])


@BOTH
def test_nan_counts_as_the_largest(implementation):
    keys = jnp.arange(12.0)[:, None].at[2].set(jnp.nan)
    scores, indices = pairwise.top_k(jnp.ones((1, 1)), keys, 3, implementation=implementation, block_size=5)
    np.testing.assert_array_equal(indices, [[2, 11, 10]])
    assert np.isnan(scores[0, 0])


@pytest.mark.parametrize("similarity", ("dot", "cosine", "sqeuclidean"))
def test_gradients_are_those_of_the_chosen_pairs(similarity):
    draw = np.random.default_rng(1)
    queries, keys = (jnp.asarray(draw.normal(size=(n, 3)), jnp.float32) for n in (4, 9))
    weight = jnp.arange(1.0, 4)

    def every(queries, keys):
        if similarity == "cosine":
            queries, keys = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
        scores = -((queries[:, None] - keys) ** 2).sum(2) if similarity == "sqeuclidean" else queries @ keys.T
        return (jax.lax.top_k(scores, 3)[0] * weight).sum()

    def chosen(queries, keys):
        scores, _ = pairwise.top_k(queries, keys, 3, similarity=similarity, implementation="blockwise", block_size=4)
        return (scores * weight).sum()

    for found, wanted in zip(*(jax.jit(jax.grad(f, (0, 1)))(queries, keys) for f in (chosen, every)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_missing_keys_have_no_gradient():
    def total(keys):
        scores, _ = pairwise.top_k(jnp.ones((2, 3)), keys, 2, columns=jnp.zeros(4), where=lambda row, column: column > 0)
        return jnp.where(jnp.isfinite(scores), scores, 0).sum()

    assert np.all(jax.jit(jax.grad(total))(jnp.ones((4, 3))) == 0)


def test_under_jit_and_vmap():
    draw = np.random.default_rng(2)
    queries, keys = (jnp.asarray(draw.normal(size=(2, n, 3)), jnp.float32) for n in (4, 300))
    search = jax.jit(partial(pairwise.top_k, k=2, implementation="blockwise", block_size=128))
    scores, indices = jax.jit(jax.vmap(search))(queries, keys)
    for n in range(2):
        one, where = search(queries[n], keys[n])
        np.testing.assert_allclose(scores[n], one, rtol=1e-6)
        np.testing.assert_array_equal(indices[n], where)


def test_several_blocks_of_queries_and_keys_where_no_size_divides_another():
    draw = np.random.default_rng(4)
    queries, keys = (jnp.asarray(draw.integers(-3, 4, size=(n, 3)), jnp.bfloat16) for n in (601, 5000))
    wanted, order = sorted_scores(np.asarray(queries, np.float32) @ np.asarray(keys, np.float32).T, 20)
    scores, indices = pairwise.top_k(queries, keys, 20, implementation="blockwise", block_size=2100)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(scores, wanted)
    assert scores.dtype == jnp.float32


@pytest.mark.parametrize(("keys", "k"), [(1084, 17), (1084, 20), (1084, 33), (70, 2), (33, 1), (31, 1)])  # 1084: two blocks of 17 groups
def test_more_neighbours_than_a_block_has_groups(keys, k):
    draw = np.random.default_rng(0)
    q, x = (draw.standard_normal((n, 16), np.float32) for n in (9, keys))
    found = pairwise.top_k(q, x, k, implementation="blockwise")[1]
    np.testing.assert_array_equal(found, np.argsort(-(q @ x.T), axis=1, kind="stable")[:, :k])


def test_devices_find_what_one_finds():
    draw = np.random.default_rng(5)
    queries, keys = (draw.integers(-3, 4, size=(n, 3)).astype(np.float32) for n in (8, 1024))
    search = partial(pairwise.top_k, k=4, implementation="blockwise", block_size=256)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("i",))
    devices = jax.shard_map(partial(search, axis_name="i"), mesh=mesh, in_specs=(jax.P("i"), jax.P("i")), out_specs=jax.P("i"))
    for found, wanted in zip(jax.jit(devices)(queries, keys), search(queries, keys), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("k", (10, 100))
def test_a_million_keys_take_less_than_100_mb(k):
    """Of 2^32 pairs, more than int32 counts; with a mask, which takes a second block."""
    queries, keys = (jax.ShapeDtypeStruct((n, 256), jnp.float32) for n in (4096, 2**20))
    place = jax.ShapeDtypeStruct((2**20,), jnp.int32)
    search = jax.jit(lambda queries, keys, place: pairwise.top_k(queries, keys, k, columns=place, where=lambda row, column: column > 7))
    assert search.lower(queries, keys, place).compile().memory_analysis().temp_size_in_bytes < 1e8


def test_no_queries_have_no_neighbours():
    scores, indices = pairwise.top_k(jnp.ones((0, 3)), jnp.ones((5, 3)), 2)
    assert scores.shape == indices.shape == (0, 2)


def test_the_approximate_choice_finds_nearly_all():
    draw = np.random.default_rng(3)
    queries, keys = (jnp.asarray(draw.normal(size=(n, 8)), jnp.float32) for n in (16, 2000))
    exact = pairwise.top_k(queries, keys, 10)[1]
    close = pairwise.top_k(queries, keys, 10, approximate=True, implementation="blockwise", block_size=500)[1]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(exact, close, strict=True)]) > 0.9


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "k must be at least 1 and at most 5, got 6", lambda x: pairwise.top_k(x, x, 6)),
        (ValueError, "k must be at least 1 and at most 5, got 0", lambda x: pairwise.top_k(x, x, 0)),
        (TypeError, "k must be an integer, got 2.0", lambda x: pairwise.top_k(x, x, 2.0)),
        (TypeError, "where must be None or a function", lambda x: pairwise.top_k(x, x, 2, where=x > 0)),
        (ValueError, r"keys must have shape \[N, D\] with D = 3", lambda x: pairwise.top_k(x, x[:, :2], 2)),
        (ValueError, "every leaf of rows", lambda x: pairwise.top_k(x, x, 2, rows=x[:2])),
        (
            ValueError,
            "keys must have at most 2147483647 rows, .* got 2147483648",
            lambda x: jax.eval_shape(lambda keys: pairwise.top_k(x, keys, 2), jax.ShapeDtypeStruct((2**31, 3), jnp.float32)),
        ),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call(jnp.ones((5, 3)))
