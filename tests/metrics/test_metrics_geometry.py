"""Geometry of embeddings, against the worked numbers of the paper's specification and float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, metrics

ANGLES = np.deg2rad([0, 30, 90, 180])
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
NEGATIVES = np.float32([0.5, 0.2, -0.4])
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 5)).astype(np.float32), RNG.integers(0, 4, 30)
tolerance, alignment = jax.jit(metrics.tolerance), jax.jit(metrics.alignment)
relative_penalty, penalty_entropy = jax.jit(metrics.relative_penalty), jax.jit(metrics.penalty_entropy)


def reference_tolerance(x, y):
    x = np.asarray(x, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = (y[:, None] == y[None]) & ~np.eye(len(y), dtype=bool)
    return (x @ x.T)[pairs].mean()


def test_uniformity_of_four_points_on_the_circle():
    np.testing.assert_allclose(metrics.uniformity(CIRCLE), -2.068807, atol=2e-6)
    np.testing.assert_allclose(metrics.uniformity(7 * CIRCLE), -2.068807, atol=2e-6)  # normalised


def test_tolerance_is_conditional_on_the_class():
    np.testing.assert_allclose(tolerance(CIRCLE, np.array([0, 0, 1, 1])), 0.433013, atol=1e-6)


def test_tolerance_follows_float64_whatever_the_labels_and_lengths():
    np.testing.assert_allclose(tolerance(X, Y), reference_tolerance(X, Y), atol=1e-6)
    np.testing.assert_allclose(tolerance(X * 9, Y - 100), reference_tolerance(X, Y), atol=1e-6)
    stacked = jax.vmap(tolerance)(np.stack([X, X[::-1]]), np.stack([Y, Y]))
    np.testing.assert_allclose(stacked, [reference_tolerance(X, Y), reference_tolerance(X[::-1], Y)], atol=1e-6)


def test_tolerance_with_a_mask_equals_deletion():
    where = RNG.uniform(size=30) < 0.6
    x = np.where(where[:, None], X, 1e3).astype(np.float32)
    np.testing.assert_allclose(tolerance(x, Y, where), reference_tolerance(X[where], Y[where]), atol=1e-6)


def test_tolerance_without_a_pair_is_zero_zero_vectors_count_and_nan_surfaces():
    assert float(tolerance(CIRCLE[:1], np.array([0]))) == 0
    assert float(tolerance(CIRCLE, np.arange(4))) == 0
    np.testing.assert_allclose(tolerance(CIRCLE * np.float32([[0], [1], [1], [1]]), np.zeros(4, int)), (0.5 - 0.866025 + 0) * 2 / 12, atol=1e-6)
    assert np.isnan(tolerance(CIRCLE * np.float32([[np.nan], [1], [1], [1]]), np.array([0, 0, 1, 1])))


def test_alignment_is_the_mean_of_the_loss():
    a, b = X[:15], X[15:]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in np.float64([a, b])]
    distance = np.linalg.norm(unit[0] - unit[1], axis=1)
    np.testing.assert_allclose(alignment(a, b), (distance**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(alignment(a, b, power=1.0), distance.mean(), rtol=1e-5)
    np.testing.assert_allclose(alignment(a, b, where=np.arange(15) < 4), (distance[:4] ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(1 - alignment(a, b) / 2, (unit[0] * unit[1]).sum(1).mean(), atol=1e-5)


@pytest.mark.parametrize(
    ("temperature", "penalty", "entropy"),
    [
        (0.1, [0.952462, 0.047420, 0.000118], 0.192024),
        (0.3, [0.705385, 0.259496, 0.035119], 0.713866),
        (0.5, [0.583393, 0.320173, 0.096434], 0.904580),
        (1.0, [0.465682, 0.344986, 0.189332], 1.038147),
    ],
)
def test_relative_penalty_and_its_entropy(temperature, penalty, entropy):
    np.testing.assert_allclose(relative_penalty(NEGATIVES, temperature), penalty, atol=1e-6)
    np.testing.assert_allclose(penalty_entropy(NEGATIVES, temperature), entropy, atol=2e-6)
    more = np.concatenate([NEGATIVES, [-np.inf]]).astype(np.float32)  # a negative that is none
    np.testing.assert_allclose(relative_penalty(more, temperature), [*penalty, 0], atol=1e-6)
    np.testing.assert_allclose(penalty_entropy(more, temperature), entropy, atol=2e-6)


def test_relative_penalty_is_the_ratio_of_the_gradients_of_the_loss():
    scores = jnp.concatenate([jnp.array([0.8]), NEGATIVES])  # the positive and the negatives
    gradient = jax.grad(lambda s: -jax.nn.log_softmax(s / 0.3)[0])(scores)
    np.testing.assert_allclose(relative_penalty(NEGATIVES, 0.3), gradient[1:] / -gradient[0], rtol=1e-5)


def test_entropy_goes_from_zero_to_log_m_and_does_not_overflow():
    entropy = jax.jit(jax.vmap(metrics.penalty_entropy, in_axes=(None, 0)))(NEGATIVES, np.float32([1e-4, 0.005, 0.1, 1, 1e4]))
    np.testing.assert_allclose(entropy[jnp.array([0, 1, 4])], [0, 0, 1.098612], atol=1e-5)
    assert (np.diff(entropy) >= 0).all()


def test_a_temperature_for_each_anchor():
    negatives = np.stack([NEGATIVES, NEGATIVES])
    np.testing.assert_allclose(penalty_entropy(negatives, np.float32([0.1, 1.0])), [0.192024, 1.038147], atol=2e-6)
    assert np.isnan(penalty_entropy(np.float32([[np.nan, 0]]), 1.0)).all()


def test_profile_of_the_nearest_others():
    x = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    np.testing.assert_allclose(metrics.topk_similarity_profile(X, k=7), np.sort(similarity)[:, ::-1][:, :7].mean(0), atol=1e-6)
    np.testing.assert_allclose(metrics.topk_similarity_profile(np.ones((3, 2), np.float32), k=2), [1, 1], atol=1e-6)  # only oneself is left out


def test_entropy_of_the_highest_scores():
    scores = RNG.normal(size=(4, 9)).astype(np.float32)
    top = np.sort(scores.astype(np.float64), axis=1)[:, ::-1][:, :5] / 0.7
    p = np.exp(top) / np.exp(top).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(metrics.softmax_entropy(scores, k=5, temperature=0.7), -(p * np.log(p)).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(metrics.softmax_entropy(np.float32([2, 2, 2, -np.inf])), np.log(3), atol=1e-6)


def test_contrast_accuracy_is_that_of_the_nearest_and_a_tie_is_none():
    a, b = np.float32([[1, 0], [0.6, 0.8], [0, 1]]), np.float32([[0.8, 0.6], [0, 2], [-1, 1]])
    accuracy = jax.jit(metrics.contrast_accuracy)
    assert accuracy(a, b).tolist() == [1, 0, 0] and accuracy(b, b).tolist() == [1, 1, 1]
    assert accuracy(np.ones_like(a), b).tolist() == [1, 0, 0]  # not that of the longest, the second
    assert accuracy(a, np.ones_like(b)).tolist() == [0, 0, 0] and accuracy(a[:1], b[:1]).tolist() == [1]
    mesh = jax.make_mesh((5,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    near = X[:15] + RNG.normal(size=X[:15].shape).astype(np.float32)
    spread = jax.shard_map(partial(metrics.contrast_accuracy, axis_name="data"), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    np.testing.assert_array_equal(jax.jit(spread)(X[:15], near), accuracy(X[:15], near))
    near[4, 0] = np.nan
    assert np.isnan(accuracy(X[:15], near)).all() and np.isnan(accuracy(near, X[:15])).tolist() == [i == 4 for i in range(15)]


def test_contrast_entropy_is_that_of_the_softmax_over_cosines():
    a, b = RNG.normal(size=(2, 12, 5))
    cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T / 0.2
    p = np.exp(cosines) / np.exp(cosines).sum(1, keepdims=True)
    a, b = np.float32(a), np.float32(b)
    expected, entropy = -(p * np.log(p)).sum(1), jax.jit(partial(metrics.contrast_entropy, temperature=0.2))
    np.testing.assert_allclose(entropy(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(entropy(a, np.ones_like(b)), np.log(12), rtol=1e-6)
    assert "HIGHEST" in str(jax.make_jaxpr(entropy)(a, b))  # on accelerators a product is rounded otherwise, and the temperature magnifies that
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    local = partial(metrics.contrast_entropy, temperature=0.2, axis_name="data")
    spread = jax.shard_map(local, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    np.testing.assert_allclose(jax.jit(spread)(a, b), expected, rtol=1e-5)


length_bias = jax.jit(metrics.length_bias)


def test_length_bias_is_a_correlation_over_the_pairs_that_count():
    similarity, a, b = RNG.normal(size=50).astype(np.float32), RNG.integers(1, 30, 50), RNG.integers(1, 30, 50)
    where = RNG.uniform(size=50) < 0.5
    expected = [np.corrcoef(similarity[kept], -np.abs(a - b)[kept])[0, 1] for kept in (where, np.ones(50, bool))]
    np.testing.assert_allclose(length_bias(np.where(where, similarity, np.nan), a, b, where=where), expected[0], atol=1e-6)
    np.testing.assert_allclose(length_bias(similarity, a, b, where=np.ones(50, bool)), expected[1], atol=1e-6)
    np.testing.assert_allclose(metrics.length_bias(1000 + similarity, a, b), expected[1], atol=1e-3)


def test_length_bias_of_what_does_not_vary_is_zero_and_nan_surfaces():
    every = np.ones(50, bool)
    assert float(length_bias(np.full(50, 0.3, np.float32), np.arange(50), np.arange(50)[::-1], where=every)) == 0
    assert float(length_bias(np.arange(50, dtype=np.float32), np.arange(50), np.arange(50) + 3, where=every)) == 0
    assert float(length_bias(np.arange(50, dtype=np.float32), np.arange(50), np.arange(50) + 3, where=~every)) == 0
    assert np.isnan(length_bias(np.full(50, np.nan, np.float32), np.arange(50), np.arange(50)[::-1], where=every))


def test_uniformity_is_the_function_of_the_losses():
    assert metrics.uniformity is losses.uniformity


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"labels must have shape \[B\] with B = 4 as in embeddings, got \[3\]"):
        metrics.tolerance(CIRCLE, np.arange(3))
    with pytest.raises(TypeError, match="labels must have dtype int"):
        metrics.tolerance(CIRCLE, np.ones(4, np.float32))
    with pytest.raises(ValueError, match="k must be at least 1 and at most 3, got 4"):
        metrics.topk_similarity_profile(CIRCLE, k=4)
    with pytest.raises(ValueError, match="temperature must be greater than 0, got 0.0"):
        metrics.relative_penalty(NEGATIVES, 0.0)
    with pytest.raises(ValueError, match="k must be at least 1 and at most 3, got 4"):
        metrics.softmax_entropy(NEGATIVES, k=4)
    with pytest.raises(ValueError, match=r"other_lengths must have shape \[P\] with P = 3 as in similarity, got \[2\]"):
        metrics.length_bias(NEGATIVES, np.arange(3), np.arange(2))
    with pytest.raises(ValueError, match=r"temperature must be a scalar or have shape \[\], got \[3\]"):
        metrics.penalty_entropy(NEGATIVES, np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"b must have shape \[B, D\] with B = 4 as in a, got \[3, 2\]"):
        metrics.alignment(CIRCLE, CIRCLE[:3])
    with pytest.raises(TypeError, match="where must have dtype bool"):
        metrics.alignment(CIRCLE, CIRCLE, where=np.ones(4, np.float32))
