"""The accuracy of classes, each counting alike."""

import jax
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from cljax import metrics

accuracy = jax.jit(metrics.balanced_accuracy, static_argnames="classes")


def test_it_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 200, p=[0.7, 0.15, 0.1, 0.05, 0])  # nothing is of the last
    predictions = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 4, 200))
    np.testing.assert_allclose(accuracy(predictions, labels, 5), balanced_accuracy_score(labels, predictions), rtol=1e-6)
    assert float(accuracy(labels, labels, 5)) == 1 and abs(np.mean(predictions == labels) - accuracy(predictions, labels, 5)) > 1e-3


def test_without_examples_there_is_none():
    assert np.isnan(accuracy(np.zeros(0, int), np.zeros(0, int), 3))


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="labels must have shape"):
        metrics.balanced_accuracy(np.zeros(3, int), np.zeros(2, int), 3)
    with pytest.raises(TypeError, match="predictions must have dtype int"):
        metrics.balanced_accuracy(np.zeros(3, np.float32), np.zeros(3, int), 3)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        metrics.balanced_accuracy(np.zeros(3, int), np.zeros(3, int), 0)
