"""Views of signals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import views

KEY = jax.random.key(0)
SIGNALS = np.random.default_rng(0).normal(size=(64, 50, 3)).astype(np.float32)


@pytest.mark.parametrize("view", (views.jitter, views.scaling))
def test_an_examples_draws_hang_on_its_index_alone_and_the_dtype_is_kept(view):
    run = jax.jit(lambda signals, index: view(KEY, signals, index=index))
    whole = run(SIGNALS, np.arange(64))
    np.testing.assert_allclose(run(SIGNALS[::-1].copy(), np.arange(64)[::-1].copy()), whole[::-1], rtol=1e-6)
    assert jax.eval_shape(run, jnp.asarray(SIGNALS, jnp.bfloat16), np.arange(64)).dtype == jnp.bfloat16
    broken = SIGNALS.copy()
    broken[3] = np.nan
    found = np.asarray(run(broken, np.arange(64)))
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, axis=0)).all()


def test_jitter_adds_independent_noise_of_the_deviation_given():
    noise = np.asarray(views.jitter(KEY, SIGNALS, deviation=0.2) - SIGNALS)
    np.testing.assert_allclose(noise.std((0, 1)), 0.2, rtol=0.05)
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(views.jitter(KEY, SIGNALS, deviation=0.0), SIGNALS)


def test_scaling_has_one_factor_a_channel():
    factors = np.asarray(views.scaling(KEY, SIGNALS, deviation=0.3) / SIGNALS)
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape), rtol=1e-4)
    np.testing.assert_allclose((factors[:, 0].mean(), factors[:, 0].std()), (1, 0.3), atol=0.06)


@pytest.mark.errors
@pytest.mark.parametrize("view", (views.jitter, views.scaling))
def test_bad_input_is_named(view):
    with pytest.raises(ValueError, match="deviation must be at least 0, got -1"):
        view(KEY, SIGNALS, deviation=-1)
    with pytest.raises(ValueError, match=r"signals must have shape \[B, T, C\]"):
        view(KEY, SIGNALS[0])
    with pytest.raises(TypeError, match="signals must have dtype float"):
        view(KEY, SIGNALS.astype(int))
