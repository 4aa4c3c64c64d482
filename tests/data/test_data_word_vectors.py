"""Word vectors: the factors of a matrix that numpy decomposes."""

import numpy as np
import pytest

from cljax import data


def test_word_vectors_are_the_factors_of_the_pointwise_mutual_information():
    draw = np.random.default_rng(0)
    ids = draw.integers(1, 12, (60, 4))
    where = draw.random(ids.shape) < 0.9
    present = np.zeros((60, 12))
    present[np.nonzero(where)[0], ids[where]] = 1
    together = (present.T @ present) * (1 - np.eye(12))
    degree = together.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.maximum(0, np.nan_to_num(np.log(together * degree.sum() / np.outer(degree, degree)), neginf=0))
    values, vectors = np.linalg.eigh(information)
    largest = np.argsort(-np.abs(values))[:5]
    expected = (vectors[:, largest] * np.abs(values[largest])) @ vectors[:, largest].T
    got = data.ppmi_vectors(ids, where, 12, 5)
    np.testing.assert_allclose(got @ got.T, expected, atol=1e-8)


@pytest.mark.parametrize("texts", [0, 2])
def test_words_that_stand_with_no_other_have_zeros(texts):
    assert not data.ppmi_vectors(np.zeros((texts, 3), int), np.ones((texts, 3), bool), 5, 2).any()


@pytest.mark.errors
def test_bad_input_is_named():
    ids, where = np.zeros((2, 3), int), np.ones((2, 3), bool)
    for arguments, error, message in (
        ((ids, where, 5, 5), ValueError, "features must be at least 1 and at most 4, got 5"),
        ((ids, where[:, :2], 5, 2), ValueError, "where must have shape"),
        ((ids.astype(float), where, 5, 2), TypeError, "ids must have dtype int"),
    ):
        with pytest.raises(error, match=message):
            data.ppmi_vectors(*arguments)
