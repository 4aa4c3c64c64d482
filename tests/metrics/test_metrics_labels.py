"""R-precision and MAP@R, ranking by labels, few-shot tasks: definitions in plain loops, ties, one class, equal embeddings."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, metrics, samplers

RNG = np.random.default_rng(0)
LABELS = np.array([2**31 - 1, -(2**31), 3, 3])[RNG.permutation(np.repeat(np.arange(4), [7, 5, 3, 6]))]
LABELS[4] = 77  # alone
X = RNG.normal(size=(21, 3)).astype(np.float32)
METRICS = {"r_precision": metrics.r_precision, "average_precision_at_r": metrics.average_precision_at_r}
compiled = {name: jax.jit(metric) for name, metric in METRICS.items()}


def reference(name, scores, relevance):
    """One query in float64: a list sorted by falling score, irrelevant items first where scores are equal."""
    ranked = [gain > 0 for _, gain in sorted(zip(scores, relevance, strict=True), key=lambda item: (-item[0], item[1]))]
    r = sum(ranked)
    if name == "r_precision":
        return sum(ranked[:r]) / r
    return sum(sum(ranked[:i]) / i for i in range(1, r + 1) if ranked[i - 1]) / r


@pytest.mark.parametrize("name", METRICS)
def test_values_follow_the_definition_with_ties_and_padding(name):
    relevance, where = RNG.uniform(size=(6, 12)) < 0.4, RNG.uniform(size=(6, 12)) < 0.8
    relevance[0] = False
    for scores in (RNG.normal(size=(6, 12)), RNG.integers(0, 3, (6, 12)), np.ones((6, 12))):
        found = compiled[name](np.where(where, scores, np.nan).astype(np.float32), relevance, where=where)
        for i in range(6):
            kept = relevance[i][where[i]]
            assert found.where[i] == kept.any()
            np.testing.assert_allclose(found.values[i], reference(name, scores[i][where[i]], kept) if kept.any() else 0, atol=1e-6)


def test_constant_scores_get_the_worst_value_and_nan_surfaces():
    relevance = np.arange(12)[None] < np.arange(1, 7)[:, None]  # one to six relevant ones, first in place
    for metric in compiled.values():
        np.testing.assert_array_equal(metric(np.ones((6, 12), np.float32), relevance, where=np.ones((6, 12), bool)).values, 0)
        assert np.isnan(metric(np.full((6, 12), np.nan, np.float32), relevance, where=np.ones((6, 12), bool)).values).all()


def test_worked_lists():
    scores, relevance = -np.arange(10, dtype=np.float32)[None], np.isin(np.arange(10), [0, 2, 3, 9])[None]
    assert metrics.r_precision(scores, relevance).values.tolist() == [0.75]
    np.testing.assert_allclose(metrics.average_precision_at_r(scores, relevance).values, [(1 + 2 / 3 + 3 / 4) / 4], rtol=1e-6)


@pytest.mark.parametrize("similarity", ("cosine", "sqeuclidean"))
def test_ranking_by_label_leaves_the_query_out(similarity):
    q = X.astype(np.float64)
    scores = -((q[:, None] - q) ** 2).sum(-1)
    if similarity == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        scores = q @ q.T
    for name, metric in METRICS.items():
        found = jax.jit(partial(metrics.label_retrieval, metric, similarity=similarity, block_size=8))(X, LABELS)  # 8 does not divide 21
        assert not found.where[4] and found.where.sum() == 20
        for i in np.flatnonzero(found.where):
            others = np.arange(21) != i
            np.testing.assert_allclose(found.values[i], reference(name, scores[i][others], LABELS[others] == LABELS[i]), atol=1e-6)


def test_ranking_by_label_among_a_reference():
    found = metrics.label_retrieval(partial(metrics.recall_at_k, k=1), X[:2], np.array([5, 6]), X[:4], np.array([5, 6, 5, 7]))
    assert found.values.tolist() == [0.5, 1.0] and found.where.all()


def test_one_class_is_always_right_and_equal_embeddings_are_never():
    by_label = jax.jit(partial(metrics.label_retrieval, metrics.average_precision_at_r))
    np.testing.assert_allclose(by_label(X, np.full(21, 2**31 - 1)).values, 1)
    same = by_label(np.ones_like(X), LABELS)
    assert float(losses.mean(same)) == 0 and same.where.sum() == 20  # chance would be above


EPISODES = samplers.few_shot_episodes(jax.random.key(0), np.arange(60) % 5, ways=3, shots=2, queries=(4, 1, 2), episodes=90)
POINTS = (RNG.normal(size=(60, 4)) + 2 * np.eye(5, 4)[np.arange(60) % 5]).astype(np.float32)
few_shot_accuracy = jax.jit(metrics.few_shot_accuracy, static_argnames="classify")


def test_few_shot_accuracy_is_that_of_the_nearest_centroid_in_each_task():
    found = np.asarray(few_shot_accuracy(POINTS, *EPISODES))
    assert found.shape == (90,) and 0.4 < found.mean() < 1
    x = POINTS.astype(np.float64)
    for episode in range(90):
        centroids = x[np.asarray(EPISODES.support[episode])].mean(axis=1)
        distance = np.linalg.norm(x[np.asarray(EPISODES.queries[episode])][:, None] - centroids, axis=2)
        np.testing.assert_allclose(found[episode], np.mean(distance.argmin(axis=1) == np.asarray(EPISODES.ways)), atol=1e-6)


def test_a_query_that_is_no_number_is_of_no_way():
    support = jnp.arange(6.0).reshape(3, 2, 1)
    assert metrics.nearest_centroid(support, jnp.array([[4.4], [jnp.nan], [0.6]])).tolist() == [2, -1, 0]


def by_first_dimension(support, queries):
    return jnp.argmin(jnp.abs(queries[:, :1] - support[:, :, 0].mean(axis=1)), axis=1)


def test_a_classifier_of_ones_own_and_separate_classes():
    line = np.arange(60, dtype=np.float32)[:, None] % 5 * np.float32([1, 0])
    np.testing.assert_array_equal(few_shot_accuracy(line, *EPISODES, classify=by_first_dimension), 1)


def test_equal_embeddings_are_classified_by_chance_and_nan_surfaces():
    balanced = np.asarray(few_shot_accuracy(np.ones_like(POINTS), *EPISODES))
    np.testing.assert_allclose(balanced, 4 / 7, atol=1e-6)  # all are given to the first way, which has four of seven queries
    spoilt = np.asarray(few_shot_accuracy(np.where(np.arange(60)[:, None] == 0, np.nan, POINTS).astype(np.float32), *EPISODES))
    used = (np.asarray(EPISODES.support) == 0).any(axis=(1, 2)) | (np.asarray(EPISODES.queries) == 0).any(axis=1)
    np.testing.assert_array_equal(np.isnan(spoilt), used)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "reference and reference_labels must be given together", lambda: metrics.label_retrieval(metrics.r_precision, X, LABELS, X)),
        (TypeError, "metric must be a function", lambda: metrics.label_retrieval("map", X, LABELS)),
        (TypeError, "labels must have dtype int", lambda: metrics.label_retrieval(metrics.r_precision, X, LABELS.astype(np.float32))),
        (ValueError, "block_size must be at least 1", lambda: metrics.label_retrieval(metrics.r_precision, X, LABELS, block_size=0)),
        (ValueError, r"relevance must have shape \[Q, N\]", lambda: metrics.r_precision(X, LABELS)),
        (TypeError, "classify must be a function", lambda: metrics.few_shot_accuracy(POINTS, *EPISODES, classify="svm")),
        (ValueError, r"ways must have shape \[Q\] with Q = 7", lambda: metrics.few_shot_accuracy(POINTS, *EPISODES[:2], np.arange(3))),
        (
            ValueError,
            "what classify returns must have shape",
            lambda: metrics.few_shot_accuracy(POINTS, *EPISODES, classify=lambda s, q: q.argmin(0)),
        ),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
