"""Neighbours and probes: predictions against independent classifiers, ties, traced labels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from cljax import metrics

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 6))
NAMES = np.array([-7, 3, 20, 1000])  # labels are names, not places in a table


def sample(count):
    y = RNG.integers(0, 4, count)
    return (CENTRES[y] + 0.9 * RNG.normal(size=(count, 6)) + 2).astype(np.float32), NAMES[y]


REFERENCE, REFERENCE_LABELS = sample(90)
TEST, TEST_LABELS = sample(50)
DATA = (TEST, TEST_LABELS, REFERENCE, REFERENCE_LABELS)
knn = jax.jit(metrics.knn_accuracy, static_argnames=("k", "similarity", "block_size"))
ridge = jax.jit(metrics.ridge_probe, static_argnames="num_classes")


@pytest.mark.parametrize(("k", "similarity", "block_size"), [(1, "cosine", None), (5, "cosine", 32), (5, "sqeuclidean", None)])
def test_knn_votes_as_scikit_learn_does_where_nothing_ties(k, similarity, block_size):
    def normal(x):
        x = x.astype(np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True) if similarity == "cosine" else x

    peer = KNeighborsClassifier(k).fit(normal(REFERENCE), REFERENCE_LABELS)
    votes = np.sort(peer.predict_proba(normal(TEST)), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    assert clear.sum() > 30
    expected = (peer.predict(normal(TEST)) == TEST_LABELS)[clear].mean()
    assert expected < 1
    got = knn(*DATA, k=k, similarity=similarity, where=clear, block_size=block_size)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def predicted(similarities, labels, k):
    """What knn says of one query, by asking it for each label; the similarities are those of unit vectors in the plane."""
    reference = np.stack([similarities, np.sqrt(1 - np.square(similarities))], axis=1).astype(np.float32)
    query = np.float32([[1, 0]])
    found = [label for label in sorted(set(labels)) if float(knn(query, np.array([label]), reference, np.array(labels), k=k)) == 1]
    assert len(found) == 1
    return found[0]


def test_a_tied_vote_goes_to_the_more_similar_class_then_to_the_lower_label():
    assert predicted([0.9, 0.7, 0.6, 0.5, 0.1], [8, 3, 3, 8, 5], k=4) == 8  # 1.4 against 1.3
    assert predicted([0.7, 0.7, 0.7, 0.7, 0.1], [8, 3, 3, 8, 5], k=4) == 3
    assert predicted([0.9, 0.2, 0.2, 0.1, 0.1], [8, 3, 3, 5, 5], k=3) == 3  # votes come first
    assert predicted([0.7, 0.7, 0.7, 0.7, 0.7], [9, 8, 3, 3, 9], k=2) == 8  # of equal neighbours those of the lower index are taken


def test_knn_with_traced_labels_under_vmap():
    shifted = np.stack([TEST_LABELS, np.roll(TEST_LABELS, 1)])
    got = jax.jit(jax.vmap(partial(metrics.knn_accuracy, k=3), in_axes=(None, 0, None, None)))(TEST, shifted, REFERENCE, REFERENCE_LABELS)
    np.testing.assert_allclose(got, [knn(TEST, labels, REFERENCE, REFERENCE_LABELS, k=3) for labels in shifted], atol=1e-6)


def test_knn_with_every_neighbour_one_row_zero_vectors_and_nan():
    majority = np.bincount(REFERENCE_LABELS + 7).argmax() - 7
    np.testing.assert_allclose(knn(*DATA, k=90), np.mean(np.equal(TEST_LABELS, majority)), atol=1e-6)
    assert float(knn(np.zeros((1, 6), np.float32), REFERENCE_LABELS[:1], REFERENCE, REFERENCE_LABELS, k=1)) == 1  # the first of equal ones
    assert np.isnan(knn(np.where(np.arange(50)[:, None] == 3, np.nan, TEST).astype(np.float32), *DATA[1:], k=3))
    assert np.isnan(knn(TEST, TEST_LABELS, np.where(np.arange(90)[:, None] == 3, np.nan, REFERENCE).astype(np.float32), REFERENCE_LABELS, k=3))


@pytest.mark.parametrize("penalty", [1e-3, 30.0])
def test_ridge_predicts_as_scikit_learn_does(penalty):
    peer = RidgeClassifier(alpha=penalty).fit(REFERENCE.astype(np.float64), REFERENCE_LABELS)
    says = peer.predict(TEST.astype(np.float64))
    assert 0.5 < (says == TEST_LABELS).mean() < 1
    assert float(ridge(TEST, says, REFERENCE, REFERENCE_LABELS, penalty=penalty)) == 1  # each prediction is the same
    np.testing.assert_allclose(ridge(*DATA, penalty=penalty), (says == TEST_LABELS).mean(), atol=1e-6)


def test_ridge_is_the_same_traced_or_not_and_with_any_room_for_classes():
    plain = metrics.ridge_probe(*DATA)  # counts the labels itself
    assert 0 < float(plain) < 1
    for got in (ridge(*DATA), ridge(*DATA, num_classes=7)):
        np.testing.assert_allclose(got, plain, atol=1e-6)
    got = jax.jit(jax.vmap(metrics.ridge_probe, in_axes=(None, 0, None, None)))(
        TEST, np.stack([TEST_LABELS, TEST_LABELS]), REFERENCE, REFERENCE_LABELS
    )
    np.testing.assert_allclose(got, plain, atol=1e-6)


def test_ridge_survives_a_small_penalty_and_dimensions_of_very_different_scale():
    scale = np.float32([1e3, 1e2, 10, 1, 0.1, 0.01])
    peer = RidgeClassifier(alpha=1e-3, solver="svd").fit((REFERENCE * scale).astype(np.float64), REFERENCE_LABELS)
    assert float(ridge(TEST * scale, peer.predict((TEST * scale).astype(np.float64)), REFERENCE * scale, REFERENCE_LABELS)) == 1


def test_ridge_with_fewer_rows_than_dimensions_one_class_and_nan():
    few = RidgeClassifier(alpha=1e-3).fit(REFERENCE[:4].astype(np.float64), np.arange(4))
    assert float(ridge(TEST, few.predict(TEST.astype(np.float64)), REFERENCE[:4], np.arange(4))) == 1
    assert float(ridge(TEST, np.full(50, 5), REFERENCE[:1], np.array([5]))) == 1  # one row, one class
    assert (
        float(metrics.ridge_probe(np.zeros_like(TEST), np.full(50, 3), np.zeros_like(REFERENCE), np.array([3, 3, 8] * 30))) == 1
    )  # the most frequent
    assert np.isnan(ridge(np.where(np.arange(50)[:, None] == 3, np.nan, TEST).astype(np.float32), *DATA[1:]))
    assert np.isnan(ridge(TEST, TEST_LABELS, np.where(np.arange(90)[:, None] == 3, np.nan, REFERENCE).astype(np.float32), REFERENCE_LABELS))


def test_bfloat16_embeddings_are_computed_in_float32():
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (TEST, REFERENCE)]
    rounded = [np.float32(x) for x in narrow]
    np.testing.assert_allclose(
        ridge(narrow[0], TEST_LABELS, narrow[1], REFERENCE_LABELS), ridge(rounded[0], TEST_LABELS, rounded[1], REFERENCE_LABELS)
    )
    assert metrics.linear_probe(narrow[0], TEST_LABELS, narrow[1], REFERENCE_LABELS) > 0.5


def test_linear_probe_is_logistic_regression_with_and_without_standardising():
    scale = np.float32([1, 1, 1, 0.01, 0.01, 0.01])
    x, test = (REFERENCE * scale).astype(np.float64), (TEST * scale).astype(np.float64)
    raw = LogisticRegression(C=0.1).fit(x, REFERENCE_LABELS).predict(test)
    mean, deviation = x.mean(0), x.std(0)
    even = LogisticRegression(C=0.1).fit((x - mean) / deviation, REFERENCE_LABELS).predict((test - mean) / deviation)
    assert (raw != even).any()
    for standardise, says in ((False, raw), (True, even)):
        assert metrics.linear_probe(TEST * scale, says, REFERENCE * scale, REFERENCE_LABELS, penalty=10.0, standardise=standardise) == 1


def test_macro_f1_counts_each_class_once():
    known, points = np.array([0, 0, 1, 1, 2, 2]), np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0]])
    tested, labels = np.array([[0.5], [0.6], [0.7], [10.5], [20.5]]), np.array([0, 0, 1, 1, 1])  # 0 and 1 are found, two of the latter elsewhere
    found = metrics.linear_probe(tested, labels, points, known, measure="macro_f1")
    np.testing.assert_allclose(found, (2 * 2 / (2 * 2 + 1) + 2 * 1 / (2 * 1 + 2) + 0) / 3)  # nobody is of class 2, and one is called so
    assert metrics.linear_probe(tested, labels, points, known) == 3 / 5


def test_the_threads_of_blas_are_as_many_after_a_probe_as_before():
    before = threadpoolctl.threadpool_info()
    metrics.linear_probe(*DATA)
    assert threadpoolctl.threadpool_info() == before


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k must be at least 1 and at most 90, got 91"):
        metrics.knn_accuracy(*DATA, k=91)
    with pytest.raises(ValueError, match=r"reference must have shape \[N, D\] with D = 6 as in embeddings, got \[90, 5\]"):
        metrics.knn_accuracy(TEST, TEST_LABELS, REFERENCE[:, :5], REFERENCE_LABELS, k=1)
    with pytest.raises(ValueError, match="similarity must be one of .* got 'cosinus'; did you mean 'cosine'"):
        metrics.knn_accuracy(*DATA, k=1, similarity="cosinus")
    with pytest.raises(TypeError, match="reference_labels must have dtype int"):
        metrics.ridge_probe(TEST, TEST_LABELS, REFERENCE, REFERENCE_LABELS.astype(np.float32))
    with pytest.raises(ValueError, match=r"labels must have shape \[B\] with B = 50 as in embeddings, got \[49\]"):
        metrics.linear_probe(TEST, TEST_LABELS[1:], REFERENCE, REFERENCE_LABELS)
    with pytest.raises(ValueError, match="penalty must be greater than 0"):
        metrics.ridge_probe(*DATA, penalty=0.0)
    for probe in (metrics.ridge_probe, metrics.linear_probe):
        with pytest.raises(ValueError, match=r"penalty must have shape \[\], got \[1, 1\]"):
            probe(*DATA, penalty=np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match="num_classes must be at least 4, got 3"):
        metrics.ridge_probe(*DATA, num_classes=3)
    with pytest.raises(TypeError, match="embeddings is traced, and linear_probe runs scikit-learn outside jit; ridge_probe works under jit"):
        jax.jit(metrics.linear_probe)(*DATA)
    with pytest.raises(ValueError, match="measure must be one of 'accuracy', 'macro_f1', got 'f1'"):
        metrics.linear_probe(*DATA, measure="f1")
    with pytest.raises(ValueError, match="reference must be finite"):
        metrics.linear_probe(TEST, TEST_LABELS, REFERENCE * np.float32(np.nan), REFERENCE_LABELS)
    with pytest.raises(ValueError, match=r"reference_labels must hold at least two classes, got \[3\]"):
        metrics.linear_probe(TEST, TEST_LABELS, REFERENCE, np.full(90, 3))
