"""A rate that rises and falls: worked numbers, under jit with a traced rate, and what optax makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cljax import train


def test_it_rises_and_falls_in_lines():
    rates = [float(train.rise_and_fall(0.1, warm_up=2, steps=6)(t)) for t in range(8)]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.1, 0.075, 0.05, 0.025, 0, 0], atol=1e-7)
    np.testing.assert_allclose([train.rise_and_fall(0.1, warm_up=0, steps=4)(t) for t in range(5)], [0.1, 0.075, 0.05, 0.025, 0], atol=1e-7)
    np.testing.assert_allclose([train.rise_and_fall(1, warm_up=4, steps=2)(t) for t in range(6)], [0.25, 0.5, 0.75, 1, 1, 0])
    np.testing.assert_allclose([train.rise_and_fall(1, warm_up=2, steps=2)(t) for t in range(4)], [0.5, 1, 1, 0], atol=1e-7)
    np.testing.assert_allclose([train.rise_and_fall(0.1, warm_up=2)(t) for t in (0, 1, 99)], [0.05, 0.1, 0.1], rtol=1e-6)
    assert train.rise_and_fall(0.1, warm_up=0)(0) == np.float32(0.1)


def test_a_traced_rate_serves_an_optimiser():
    @jax.jit
    def second_update(rate):
        optimiser, weight = optax.sgd(train.rise_and_fall(rate, warm_up=2, steps=6)), jnp.zeros(1)
        state = optimiser.init(weight)
        _, state = optimiser.update(jnp.ones(1), state)
        return optimiser.update(jnp.ones(1), state)[0]

    np.testing.assert_allclose(second_update(0.1), [-0.1], rtol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("rate", "changed", "kind", "complaint"),
    [
        (-1.0, {}, ValueError, "rate must be at least 0"),
        (1.0, {"steps": -1}, ValueError, "steps must be at least 0, got -1"),
        (1.0, {"warm_up": -1}, ValueError, "warm_up must be at least 0, got -1"),
        (1.0, {"warm_up": 1.5}, TypeError, "warm_up must be an integer"),
    ],
)
def test_bad_input_is_named(rate, changed, kind, complaint):
    with pytest.raises(kind, match=complaint):
        train.rise_and_fall(rate, **{"warm_up": 2, "steps": 6} | changed)
