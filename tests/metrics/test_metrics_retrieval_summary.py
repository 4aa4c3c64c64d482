"""The summary of a search with one answer a query: worked numbers, and the ranking metrics themselves as the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import metrics, pairwise

RNG = np.random.default_rng(0)
summary = jax.jit(metrics.retrieval_summary, static_argnames=("recall", "ndcg"))


def test_worked_numbers():
    scores = np.float32([[9, 7, 8, 1], [5, 5, 5, 5], [1, 2, 3, 4]])
    found = summary(scores, np.array([1, 2, 3]), recall=(1, 3), ndcg=(3,))
    assert set(found) == {"R@1", "R@3", "nDCG@3", "MRR"}
    assert found["R@1"].tolist() == [0, 0, 1] and found["R@3"].tolist() == [1, 0, 1]  # a constant scorer has its answer last
    np.testing.assert_allclose(found["MRR"], [1 / 3, 1 / 4, 1], rtol=1e-6)
    np.testing.assert_allclose(found["nDCG@3"], [1 / 2, 0, 1], rtol=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_what_the_ranking_metrics_say(ties):
    scores, answers = RNG.normal(size=(40, 25)).astype(np.float32), RNG.integers(0, 25, 40)
    scores = np.round(scores) if ties else scores
    relevance, found = np.arange(25) == answers[:, None], summary(scores, answers, recall=(1, 5, 10), ndcg=(10,))
    for k in (1, 5, 10):
        np.testing.assert_allclose(found[f"R@{k}"], metrics.recall_at_k(scores, relevance, k).values)
    np.testing.assert_allclose(found["nDCG@10"], metrics.ndcg_at_k(scores, relevance, 10).values, rtol=1e-5)
    np.testing.assert_allclose(found["MRR"], metrics.mrr_at_k(scores, relevance, 25).values, rtol=1e-6)


def test_of_a_list_what_it_lacks_counts_nothing():
    queries, keys, answers = RNG.normal(size=(30, 4)).astype(np.float32), RNG.normal(size=(50, 4)).astype(np.float32), RNG.integers(0, 50, 30)
    scores, indices = pairwise.top_k(queries, keys, 7)
    part, whole = summary(scores, answers, indices), summary(queries @ keys.T, answers)
    there = np.asarray(indices == answers[:, None]).any(axis=1)
    assert 0 < there.sum() < 30
    for name in part:
        np.testing.assert_allclose(part[name], np.where(there, whole[name], 0), rtol=1e-6)  # a list shorter than 10 has an R@10


def test_a_nan_is_seen_and_narrow_scores_are_taken():
    scores = jnp.array([[1.0, jnp.nan], [1.0, 0.0]], jnp.bfloat16)
    found = summary(scores, jnp.array([0, 0]), ndcg=(5,))
    assert all(np.isnan(values[0]) and values[1] == 1 and values.dtype == jnp.float32 for values in found.values())


@pytest.mark.errors
@pytest.mark.parametrize(
    ("changed", "kind", "complaint"),
    [
        ({"answers": np.array([0, 1, 2])}, ValueError, r"answers must have shape \[Q\] with Q = 2 as in scores, got \[3\]"),
        ({"answers": np.array([0.0, 1.0])}, TypeError, "answers must have dtype int"),
        ({"indices": np.zeros((2, 4), int)}, ValueError, r"indices must have shape \[Q, N\]"),
        ({"recall": (0,)}, ValueError, "recall must be at least 1, got 0"),
        ({"ndcg": (1.5,)}, TypeError, "ndcg must be an integer"),
    ],
)
def test_bad_input_is_named(changed, kind, complaint):
    with pytest.raises(kind, match=complaint):
        metrics.retrieval_summary(**{"scores": np.ones((2, 3), np.float32), "answers": np.array([0, 1])} | changed)
