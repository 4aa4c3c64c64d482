"""Kernel pooling against a float64 reference, values and gradients; padding and zero vectors change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import retrieval

CENTRES, DEVIATIONS = np.array([1.0, 0.7, 0.4, 0.1]), np.array([0.02, 0.1, 0.1, 0.1])
pool = jax.jit(retrieval.kernel_pooling)


def reference(queries, documents, weights, where):
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    cosines = np.einsum("bqd,bmtd->bmqt", unit(np.float64(queries)), unit(np.float64(documents)))
    near = np.exp(-((cosines[..., None] - CENTRES) ** 2) / (2 * DEVIATIONS**2)) * where[:, :, None, :, None]
    features = np.stack([np.log1p(near.sum(axis=3)), near.max(axis=3)], axis=-1).reshape(*near.shape[:3], 8)
    return np.einsum("bq,bmqf->bmf", weights / weights.sum(axis=1, keepdims=True), features)


def test_kernels_count_equal_and_similar_tokens():
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    found = pool(vectors[None, [0, 3]], vectors[None, None, [0, 0, 1, 2]], np.ones((1, 2)), np.array([[[True, True, True, False]]]))[0, 0]
    cosines = np.array([[1.0, 1.0, 0.6], [-1.0, -1.0, -0.6]])
    near = np.exp(-((cosines[..., None] - CENTRES) ** 2) / (2 * DEVIATIONS**2))
    expected = np.stack([np.log1p(near.sum(axis=1)), near.max(axis=1)], axis=-1).reshape(2, 8).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isclose(found[0], np.log(3) / 2, atol=1e-5) and np.isclose(found[1], 0.5)  # one of two tokens stands there twice


@pytest.fixture(scope="module")
def pairs():
    draw = np.random.default_rng(0)
    queries, documents = draw.normal(size=(3, 5, 6)).astype(np.float32), draw.normal(size=(3, 4, 7, 6)).astype(np.float32)
    documents[:, :, 0] = queries[:, None, 0] * 2
    return queries, documents, draw.uniform(0.1, 2, (3, 5)).astype(np.float32), np.arange(7) < draw.integers(1, 8, (3, 4, 1))


def test_it_is_its_definition_in_float64(pairs):
    np.testing.assert_allclose(pool(*pairs), reference(*pairs), rtol=2e-3, atol=2e-4)
    queries, documents, weights, where = pairs
    direction = np.random.default_rng(1).normal(size=queries.shape)
    total = lambda queries: jnp.sum(jnp.sin(retrieval.kernel_pooling(queries, documents, weights, where)[..., 2:]))  # noqa: E731
    slope = np.sum(jax.jit(jax.grad(total))(queries) * direction)
    step = 1e-5
    sides = [np.sum(np.sin(reference(queries + sign * step * direction, documents, weights, where)[..., 2:])) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (sides[0] - sides[1]) / (2 * step), rtol=2e-3)


def test_padding_changes_nothing_and_gradients_are_finite(pairs):
    queries, documents, weights, where = pairs
    padded = pool(
        np.pad(queries, ((0, 0), (0, 2), (0, 0))), np.pad(documents, ((0, 0), (0, 0), (0, 3), (0, 0))), np.pad(weights, ((0, 0), (0, 2))),
        np.pad(where, ((0, 0), (0, 0), (0, 3))),
    )  # fmt: skip
    np.testing.assert_allclose(padded, pool(*pairs), atol=1e-6)
    total = lambda *inputs: jnp.sum(retrieval.kernel_pooling(*inputs, where & False))  # noqa: E731
    for grads in jax.jit(jax.grad(total, argnums=(0, 1, 2)))(0 * queries, 0 * documents, 0 * weights):
        assert np.all(np.isfinite(grads))
    assert np.all(pool(queries, documents, 0 * weights, where) == 0)


@pytest.mark.errors
def test_bad_input_is_named(pairs):
    queries, documents, weights, where = pairs
    for arguments, options, error, message in (
        ((queries, documents, weights, where.astype(float)), {}, TypeError, "where must have dtype bool"),
        ((queries, documents[..., :5], weights, where), {}, ValueError, "documents must have shape"),
        (pairs, {"centres": (1.0,)}, ValueError, "centres and deviations must be as many, one at least, got 1 and 4"),
        (pairs, {"centres": (1.0,), "deviations": (0.0,)}, ValueError, "deviations must be greater than 0"),
    ):
        with pytest.raises(error, match=message):
            retrieval.kernel_pooling(*arguments, **options)
