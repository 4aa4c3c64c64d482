"""Agreement of similarities with scores."""

import jax
import numpy as np
import pytest
from scipy.stats import spearmanr

from cljax import metrics

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 40, 8)).astype(np.float32)
SCORES = RNG.integers(0, 6, 40)  # many ties


@pytest.mark.parametrize("similarity", ["cosine", "dot", "sqeuclidean"])
def test_sts_spearman_is_that_of_scipy_ties_included(similarity):
    a, b = A.astype(np.float64), B.astype(np.float64)
    a[:5], b[:5] = a[0], b[0]  # equal similarities too
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    expected = {"cosine": (a * b).sum(1) / lengths, "dot": (a * b).sum(1), "sqeuclidean": -((a - b) ** 2).sum(1)}[similarity]
    got = jax.jit(lambda a, b, y: metrics.sts_spearman(a, b, y, similarity=similarity))(np.float32(a), np.float32(b), SCORES)
    np.testing.assert_allclose(got, spearmanr(expected, SCORES).statistic, atol=1e-6)


def test_sts_spearman_sees_order_alone():
    unit = np.eye(2, dtype=np.float32)[np.zeros(5, int)]
    angles = np.linspace(0, 3, 5)
    other = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    np.testing.assert_allclose(metrics.sts_spearman(unit, 7 * other, np.exp(-angles)), 1, atol=1e-6)
    np.testing.assert_allclose(metrics.sts_spearman(unit, other, angles**3), -1, atol=1e-6)


def test_sts_spearman_of_collapsed_embeddings_is_zero_and_nan_surfaces():
    same = np.ones((4, 3), np.float32)
    assert metrics.sts_spearman(same, same, np.arange(4)) == 0
    assert metrics.sts_spearman(np.zeros((4, 3), np.float32), same, np.arange(4)) == 0
    assert metrics.sts_spearman(A[:1], B[:1], np.array([2.0])) == 0
    assert np.isnan(metrics.sts_spearman(A, np.where(np.arange(40)[:, None] == 3, np.nan, B), SCORES))


def test_sts_spearman_of_many_pairs_keeps_its_digits():
    x = RNG.normal(size=(20000, 2)).astype(np.float32)
    y = x[:, 0] + RNG.normal(size=20000)
    got = metrics.sts_spearman(x, np.tile(np.float32([1, 0]), (20000, 1)), y, similarity="dot")
    np.testing.assert_allclose(got, spearmanr(x[:, 0], np.float32(y)).statistic, atol=1e-5)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((A, B[:, :4], SCORES), {}, ValueError, r"b must have shape \[B, D\] with D = 8 as in a"),
        ((A, B, SCORES[:9]), {}, ValueError, r"scores must have shape \[B\] with B = 40 as in a"),
        ((A, B, SCORES), dict(similarity="angle"), ValueError, "similarity must be one of"),
    ],
)
def test_sts_spearman_says_what_is_wrong(arguments, options, error, message):
    with pytest.raises(error, match=message):
        metrics.sts_spearman(*arguments, **options)
