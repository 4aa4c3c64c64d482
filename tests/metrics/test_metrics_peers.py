"""Ranking metrics beside scikit-learn's, query by query: the same where no scores are equal, never above it where some are."""

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from cljax import metrics

RNG = np.random.default_rng(5)
Q, N = 40, 25
SCORES = RNG.permuted(np.tile(np.arange(float(N)), (Q, 1)), axis=1).astype(np.float32)  # none equal
GRADES = RNG.integers(0, 5, (Q, N)) * (RNG.random((Q, N)) < 0.4)
GRADES[:, 0] = 1  # in every list something is relevant, and
GRADES[:, 1] = 0  # something is not

ndcg_at_k = jax.jit(metrics.ndcg_at_k, static_argnames="k")
average_precision = jax.jit(metrics.average_precision)


def theirs(scores, k=None):
    if k is None:
        return [average_precision_score(row > 0, score) for row, score in zip(GRADES, scores, strict=True)]
    return [ndcg_score(row[None], score[None], k=k) for row, score in zip(GRADES, scores, strict=True)]


@pytest.mark.parametrize("k", [1, 10, N])
def test_ndcg_is_that_of_scikit_learn(k):
    values, where = ndcg_at_k(SCORES, GRADES, k=k)
    np.testing.assert_allclose(values, theirs(SCORES, k), rtol=1e-5, atol=1e-6)
    assert where.all()


def test_average_precision_is_that_of_scikit_learn():
    values, where = average_precision(SCORES, GRADES)
    np.testing.assert_allclose(values, theirs(SCORES), rtol=1e-5)
    assert where.all()


def test_tied_scores_count_against_where_scikit_learn_averages_them():
    """It takes the mean over the orders of tied items (nDCG), or their precision as one step (average precision)."""
    tied = np.floor(SCORES / 5)
    for ours, reference in ((ndcg_at_k(tied, GRADES, k=10).values, theirs(tied, 10)), (average_precision(tied, GRADES).values, theirs(tied))):
        assert np.all(np.asarray(ours) <= np.array(reference) + 1e-6)
        assert np.mean(ours) < np.mean(reference) - 0.02


def test_a_scorer_that_says_the_same_of_all_gets_less_than_scikit_learn_gives():
    constant = np.zeros_like(SCORES)
    relevant = (GRADES > 0).sum(axis=1)
    np.testing.assert_allclose(theirs(constant), relevant / N, rtol=1e-6)  # the share that is relevant, as at random
    worst = [np.mean(np.arange(1, n + 1) / np.arange(N - n + 1, N + 1)) for n in relevant]
    np.testing.assert_allclose(average_precision(constant, GRADES).values, worst, rtol=1e-5)
