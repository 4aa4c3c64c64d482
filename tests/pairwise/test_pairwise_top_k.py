"""pairwise.top_k against a full sort: order, ties, masks, what is not finite, gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import pairwise

BOTH = pytest.mark.parametrize("implementation", ("dense", "blockwise"))


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
        rows = [
            pairwise.reduce(queries, keys[n : n + 1], lambda s, *_: pairwise.Sum(s), similarity=similarity, implementation="dense") for n in range(9)
        ]
        return (jax.lax.top_k(jnp.stack(rows, axis=1), 3)[0] * weight).sum()

    def chosen(queries, keys):
        scores, _ = pairwise.top_k(queries, keys, 3, similarity=similarity, implementation="blockwise", block_size=4)
        return (scores * weight).sum()

    for found, wanted in zip(jax.grad(chosen, (0, 1))(queries, keys), jax.jit(jax.grad(every, (0, 1)))(queries, keys), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_missing_keys_have_no_gradient():
    gradient = jax.grad(
        lambda k: jnp.where(jnp.isfinite(s := pairwise.top_k(jnp.ones((2, 3)), k, 2, columns=jnp.zeros(4), where=lambda r, c: c > 0)[0]), s, 0).sum()
    )
    assert np.all(gradient(jnp.ones((4, 3))) == 0)


def test_under_jit_and_vmap():
    draw = np.random.default_rng(2)
    queries, keys = (jnp.asarray(draw.normal(size=(2, n, 3)), jnp.float32) for n in (4, 9))
    search = partial(pairwise.top_k, k=2, implementation="blockwise", block_size=4)
    scores, indices = jax.jit(jax.vmap(search))(queries, keys)
    for n in range(2):
        one, where = search(queries[n], keys[n])
        np.testing.assert_allclose(scores[n], one, rtol=1e-6)
        np.testing.assert_array_equal(indices[n], where)


def test_the_scores_are_never_held():
    queries, keys = jax.ShapeDtypeStruct((4096, 8), jnp.float32), jax.ShapeDtypeStruct((65536, 8), jnp.float32)
    compiled = jax.jit(lambda q, k: pairwise.top_k(q, k, 10)).lower(queries, keys).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 4096 * 65536 / 10


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
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call(jnp.ones((5, 3)))
