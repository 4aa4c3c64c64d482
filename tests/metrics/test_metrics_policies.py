"""What a policy is worth against the best one in closed form; the noise of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import metrics

R, BETA, UNIFORM = np.float32([2.5, 2, 1]), 0.5, np.zeros(3, np.float32)
BEST = np.float32([0.705385, 0.259496, 0.035119])
RNG = np.random.default_rng(0)


def test_the_three_armed_bandit():
    policies = np.log(np.float32([BEST, [1 / 3] * 3, [0.193990, 0.250139, 0.555871], [0.811548, 0.167525, 0.020927], [0.424169, 0.352706, 0.223125]]))
    reference, rewards = np.broadcast_to(UNIFORM, (5, 3)), np.broadcast_to(R, (5, 3))
    value, regret = (jax.jit(f)(policies, reference, rewards, beta=BETA) for f in (metrics.kl_regularised_value, metrics.regret))
    np.testing.assert_allclose(value[:2], [2.125200, 1.833333], atol=1.1e-6)
    np.testing.assert_allclose(regret, [0, 2.125200 - 1.833333, 0.637793, 0.014817, 0.152531], atol=2e-6)
    np.testing.assert_allclose(value[0], BETA * np.log(np.exp(R / BETA).mean()), atol=1e-6)


def test_value_and_regret_against_sums_in_float64():
    policy, reference, rewards = RNG.normal(size=(3, 4, 5)) * 2
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (policy, reference))
    value = (p * (rewards - 0.3 * np.log(p / q))).sum(1)
    inputs = [np.float32(x) for x in (policy, reference, rewards)]
    np.testing.assert_allclose(metrics.kl_regularised_value(*inputs, beta=0.3), value, rtol=1e-5)
    np.testing.assert_allclose(metrics.regret(*inputs, beta=0.3), 0.3 * np.log((q * np.exp(rewards / 0.3)).sum(1)) - value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics.kl_regularised_value(*inputs, beta=0), (p * rewards).sum(1), rtol=1e-5)


def test_actions_that_are_never_taken_count_nothing_and_nan_shows():
    sure = np.float32([0, -np.inf, -np.inf])
    np.testing.assert_allclose(metrics.kl_regularised_value(sure, UNIFORM, R, beta=BETA), 2.5 - 0.5 * np.log(3), rtol=1e-6)
    np.testing.assert_allclose(metrics.regret(sure, UNIFORM, R, beta=BETA), -BETA * np.log(BEST[0]), rtol=1e-5)
    assert metrics.kl_regularised_value(UNIFORM, sure, R, beta=BETA) == -np.inf
    np.testing.assert_allclose(metrics.kl_regularised_value(sure, sure, R, beta=BETA), 2.5)
    for spoilt in ((R * np.nan, UNIFORM, R), (UNIFORM, UNIFORM, np.float32([0, np.nan, 0]))):
        assert np.isnan(metrics.regret(*spoilt, beta=BETA)) and np.isnan(metrics.kl_regularised_value(*spoilt, beta=BETA))


def test_the_variance_of_a_gradient_is_that_of_all_parameters():
    tree = {"w": np.float32(RNG.normal(size=(50, 2, 3))), "b": np.float32(RNG.normal(size=50))}
    flat = np.concatenate([tree["b"][:, None], tree["w"].reshape(50, -1)], axis=1).astype(np.float64)
    np.testing.assert_allclose(jax.jit(metrics.grad_variance)(tree), flat.var(axis=0, ddof=1).sum(), rtol=1e-5)
    true = {"w": np.ones((2, 3), np.float32), "b": np.float32(2)}
    expected = np.square(flat - np.array([2] + [1] * 6)).sum(axis=1).mean()
    np.testing.assert_allclose(metrics.grad_variance(tree, true), expected, rtol=1e-5)
    one = jax.tree.map(lambda x: x[:1], tree)
    np.testing.assert_allclose(metrics.grad_variance(one, true), np.square(flat[0] - np.array([2] + [1] * 6)).sum(), rtol=1e-5)


@pytest.mark.errors
@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: metrics.regret(UNIFORM, UNIFORM, R, beta=0.0), ValueError, "beta must be greater than 0, got 0.0"),
        (lambda: metrics.kl_regularised_value(UNIFORM, UNIFORM, R, beta=-1.0), ValueError, "beta must be at least 0, got -1.0"),
        (lambda: metrics.regret(UNIFORM, UNIFORM, R[:2], beta=0.5), ValueError, r"rewards must have shape \[..., A\] with A = 3 as in policy"),
        (lambda: metrics.regret(UNIFORM, UNIFORM, R[None], beta=0.5), ValueError, r"rewards must have the shape of policy, \[3\], got \[1, 3\]"),
        (lambda: metrics.grad_variance(jnp.ones((1, 3))), ValueError, "the number of estimates must be at least 2, got 1"),
        (lambda: metrics.grad_variance({"a": jnp.ones(3), "b": jnp.ones(2)}), ValueError, "gradients must have the same leading axis"),
        (lambda: metrics.grad_variance({}), ValueError, "gradients must hold one array at least"),
        (
            lambda: metrics.grad_variance(jnp.ones((2, 3)), jnp.ones(2)),
            ValueError,
            r"mean must have the shapes of gradients without the first axis, \[\[3\]\]",
        ),
        (lambda: metrics.grad_variance({"a": jnp.ones(3)}, jnp.ones(())), ValueError, "mean must have the structure of gradients"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
