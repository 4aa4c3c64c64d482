"""Last values and curves of a training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import study

HISTORY = {"accuracy": np.array([0.5, 0.75]), "loss": np.array([2.0, 1.0, 0.5])}


def test_the_last_value_and_the_curve_of_every_metric():
    found = study.over_steps(HISTORY)
    assert list(found) == ["accuracy", "loss", "accuracy over steps", "loss over steps"]
    assert found["loss"] == 0.5 and found["loss over steps"].tolist() == [2, 1, 0.5]


def test_what_was_before_begins_the_curves_and_says_which():
    found = study.over_steps(HISTORY, before={"accuracy": 0.25})
    assert set(found) == {"accuracy", "accuracy over steps"}
    assert found["accuracy"] == 0.75 and found["accuracy over steps"].tolist() == [0.25, 0.5, 0.75]
    untrained = study.over_steps({}, before={"accuracy": jnp.float32(0.25)})
    assert untrained["accuracy"] == 0.25 and untrained["accuracy over steps"].tolist() == [0.25]


def test_a_population_is_traced():
    found = jax.vmap(lambda value: study.over_steps({"loss": jnp.stack([value, value + 1])}, {"loss": value}))(jnp.arange(3.0))
    assert found["loss"].tolist() == [1, 2, 3] and found["loss over steps"].shape == (3, 3)


def test_a_metric_of_every_step_becomes_means_over_parts():
    rng = np.random.default_rng(0)
    history = {"loss": rng.normal(size=57), "few": np.array([3.0, 1.0]), "other": np.ones(57)}
    found = study.thinned(history, ("loss", "few"))
    assert list(found) == ["loss", "few"] and found["few"].tolist() == [3, 1]
    np.testing.assert_allclose(found["loss"], [history["loss"][5 * i : 5 * i + 5].mean() for i in range(10)])  # the last seven steps are in none
    assert study.thinned({"loss": jnp.arange(6.0)}, ["loss"], points=3)["loss"].tolist() == [0.5, 2.5, 4.5]


@pytest.mark.errors
def test_a_metric_that_cannot_be_cut_into_parts_is_named():
    with pytest.raises(ValueError, match="names must be one of 'accuracy', 'loss', got 'los'"):
        study.thinned(HISTORY, ["los"])
    with pytest.raises(ValueError, match="history must hold a number a step, of one step at least, got 'loss' of shape .2, 3."):
        study.thinned({"loss": np.ones((2, 3))}, ["loss"])
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        study.thinned(HISTORY, ["loss"], points=0)


@pytest.mark.errors
def test_a_metric_that_is_missing_is_named():
    with pytest.raises(ValueError, match="history must have 'recall' of before, it has 'accuracy', 'loss'"):
        study.over_steps(HISTORY, before={"recall": 0.5})
