"""Ranking metrics: worked values, scikit-learn where nothing ties, and the one rule for ties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from cljax import losses, metrics

RNG = np.random.default_rng(0)
SCORES = RNG.permuted(np.tile(np.arange(12.0), (6, 1)), axis=1).astype(np.float32)  # no ties
RELEVANT = RNG.uniform(size=(6, 12)) < 0.3
RELEVANT[:, 5] = True
RELEVANT[0] = False
GRADES = RNG.integers(0, 4, (6, 12))
ALL = {name: partial(getattr(metrics, name), k=4) for name in ("recall_at_k", "mrr_at_k", "ndcg_at_k")} | {
    "average_precision": metrics.average_precision
}
compiled = {name: jax.jit(metric) for name, metric in ALL.items()}
recall_at_k, mrr_at_k, ndcg_at_k = (jax.jit(f, static_argnames="k") for f in (metrics.recall_at_k, metrics.mrr_at_k, metrics.ndcg_at_k))
average_precision = jax.jit(metrics.average_precision)


def reference(name, scores, relevance, k=4):
    """One query in float64: a list sorted by falling score, less relevant items first where scores are equal."""
    ranked = [gain for _, gain in sorted(zip(scores, relevance, strict=True), key=lambda item: (-item[0], item[1]))]
    relevant = sum(gain > 0 for gain in ranked)
    ranks = [rank for rank, gain in enumerate(ranked, 1) if gain > 0]
    if name == "recall_at_k":
        return sum(rank <= k for rank in ranks) / relevant
    if name == "mrr_at_k":
        return 1 / ranks[0] if ranks[0] <= k else 0
    if name == "average_precision":
        return sum(place / rank for place, rank in enumerate(ranks, 1)) / relevant
    dcg = lambda gains: sum(gain / np.log2(1 + rank) for rank, gain in enumerate(gains[:k], 1))  # noqa: E731
    return dcg(ranked) / dcg(sorted(ranked, reverse=True))


@pytest.mark.parametrize("name", ALL)
def test_values_follow_the_definition_with_and_without_ties(name):
    for scores in (SCORES, np.round(SCORES / 4), RNG.choice(np.float32([-0.0, 0.0, 1.0]), (6, 12))):
        for relevance in (RELEVANT, GRADES):
            values, where = compiled[name](scores, relevance.astype(np.float32))
            np.testing.assert_array_equal(where, (relevance > 0).any(axis=1))
            expected = [reference(name, s, r) if kept else 0 for s, r, kept in zip(scores, relevance, where, strict=True)]
            np.testing.assert_allclose(values, expected, atol=1e-6)


def test_ndcg_and_average_precision_equal_scikit_learn_without_ties():
    graded = [ndcg_score(r[None], s[None], k=4) for r, s in zip(GRADES, SCORES, strict=True)]
    np.testing.assert_allclose(ndcg_at_k(SCORES, GRADES, k=4).values, graded, atol=1e-6)
    precision = [average_precision_score(r, s) for r, s in zip(RELEVANT[1:], SCORES[1:], strict=True)]
    np.testing.assert_allclose(average_precision(SCORES, RELEVANT).values[1:], precision, atol=1e-6)


def test_constant_scores_get_the_worst_value_not_the_best():
    same, relevance = np.ones((2, 10), np.float32), np.zeros((2, 10), np.int32)
    relevance[:, 0] = 1  # a stable sort would keep it first
    relevance[1, 3] = 1
    assert recall_at_k(same, relevance, k=8).values.tolist() == [0, 0]
    assert mrr_at_k(same, relevance, k=9).values.tolist() == [0, pytest.approx(1 / 9)]
    np.testing.assert_allclose(mrr_at_k(same, relevance, k=10).values, [1 / 10, 1 / 9])
    np.testing.assert_allclose(ndcg_at_k(same[:1], relevance[:1], k=10).values, [1 / np.log2(11)], rtol=1e-6)
    np.testing.assert_allclose(average_precision(same, relevance).values, [1 / 10, (1 / 9 + 2 / 10) / 2], rtol=1e-6)


def test_recall_of_one_hit_among_two_and_precision_at_ranks_one_and_three():
    scores, relevance = np.float32([[3, 2, 1]]), np.array([[True, False, True]])
    assert recall_at_k(scores, relevance, k=2).values.tolist() == [0.5]
    np.testing.assert_allclose(average_precision(scores, relevance).values, [(1 + 2 / 3) / 2], rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_query_without_a_relevant_item_is_left_out_of_the_mean(name):
    found = compiled[name](SCORES, RELEVANT.astype(np.float32))
    assert isinstance(found, losses.Masked) and not found.where[0] and float(found.values[0]) == 0
    np.testing.assert_allclose(losses.mean(found), np.mean(np.asarray(found.values)[RELEVANT.any(axis=1)]), rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_padding_equals_deletion(name):
    where = np.ones((6, 12), bool)
    where[:, 8:] = False
    scores, relevance = np.where(where, SCORES, 99), np.where(where, RELEVANT, True)  # the padding would be first, and relevant
    scores[1, 9] = np.nan
    metric = compiled[name]
    got, expected = metric(scores, relevance, where=where), metric(SCORES[:, :8], RELEVANT[:, :8])
    np.testing.assert_array_equal(got.where, expected.where)
    np.testing.assert_allclose(got.values, expected.values, atol=1e-6)
    nothing = metric(scores, relevance, where=np.zeros((6, 12), bool))
    assert not nothing.where.any() and not nothing.values.any()


@pytest.mark.parametrize("name", ALL)
def test_nan_scores_surface_and_infinite_ones_rank(name):
    scores, relevance = SCORES.copy(), GRADES.astype(np.float32)
    scores[1, 2], scores[2, 3], scores[3, 4] = np.nan, np.inf, -np.inf
    values = np.asarray(compiled[name](scores, relevance).values)
    assert np.isnan(values[1]) and np.isfinite(np.delete(values, 1)).all()
    np.testing.assert_allclose(values[2:4], [reference(name, scores[i], GRADES[i]) for i in (2, 3)], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_queries_are_independent_and_order_of_items_does_not_matter(name):
    order = RNG.permutation(12)
    base = compiled[name](np.round(SCORES / 4), GRADES.astype(np.float32))
    np.testing.assert_allclose(compiled[name](np.round(SCORES / 4)[:, order], GRADES[:, order].astype(np.float32)).values, base.values, atol=1e-6)
    each = jax.jit(jax.vmap(lambda s, r: ALL[name](s[None], r[None]).values[0]))(np.round(SCORES / 4), GRADES)
    np.testing.assert_allclose(each, base.values, atol=1e-6)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k must be at least 1 and at most 12, got 13"):
        metrics.recall_at_k(SCORES, RELEVANT, 13)
    with pytest.raises(TypeError, match="k must be an integer, got 2.0"):
        metrics.ndcg_at_k(SCORES, RELEVANT, 2.0)
    with pytest.raises(TypeError, match="k must be an integer, got None"):
        metrics.recall_at_k(SCORES, RELEVANT, None)
    with pytest.raises(TypeError, match="scores must have dtype number, got complex64"):
        metrics.r_precision(SCORES.astype(np.complex64), RELEVANT)
    with pytest.raises(ValueError, match=r"relevance must have shape \[Q, N\] with N = 12 as in scores, got \[6, 11\]"):
        metrics.mrr_at_k(SCORES, RELEVANT[:, 1:], 3)
    with pytest.raises(ValueError, match=r"scores must have shape \[Q, N\], got \[12\]"):
        metrics.average_precision(SCORES[0], RELEVANT[0])
    with pytest.raises(TypeError, match="where must have dtype bool"):
        metrics.average_precision(SCORES, RELEVANT, where=jnp.ones((6, 12)))
    with pytest.raises(TypeError, match="scores must be an array, got list"):
        metrics.average_precision([[1.0, 2.0]], RELEVANT[:1, :2])
    with pytest.raises(TypeError, match="relevance must have dtype bool, int or float, got complex64"):
        metrics.average_precision(SCORES, RELEVANT.astype(np.complex64))
