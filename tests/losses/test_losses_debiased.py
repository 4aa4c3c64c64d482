"""Decoupled, debiased and hard-negative InfoNCE: worked numbers, what they reduce to, and the clamp at low temperature."""

import jax
import jax.numpy as jnp
import numpy as np

from cljax import losses

EYE = np.eye(2, dtype=np.float32)
A, B = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
QUICKLY = {"xla_backend_optimization_level": 0}


def compiled(function, *arguments):
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def test_worked_numbers_of_two_orthogonal_examples():
    """Each anchor has one positive of cosine 1 and two negatives of cosine 0."""

    def found(a):
        prior = dict(temperature=1.0, positive_prior=0.1)
        yield losses.decoupled_info_nce(a, a, temperature=1.0)
        yield losses.decoupled_info_nce(a, a, temperature=0.5, positive_weights=np.float32([1, 2]))
        yield losses.debiased_info_nce(a, a, **prior)
        yield losses.hard_negative_info_nce(a, a, concentration=2.0, **prior)
        yield losses.debiased_info_nce(a, a, temperature=1.0, positive_prior=0.5)

    plain, weighted, debiased, hard, floor = compiled(lambda a: list(found(a)), EYE)
    e = np.e
    np.testing.assert_allclose(plain, np.log(2) - 1, rtol=1e-6)
    np.testing.assert_allclose(weighted, np.log(2) - np.array([2, 4, 2, 4]), rtol=1e-6)
    np.testing.assert_allclose(debiased, np.log1p((2 - 0.2 * e) / 0.9 / e), rtol=1e-6)
    np.testing.assert_allclose(hard, debiased, rtol=1e-6)  # equal negatives weigh the same
    np.testing.assert_allclose(floor, np.log1p(2 / e / e), rtol=1e-6)  # (2 - e) / 0.5 is below 2 / e


def test_without_a_prior_and_concentration_it_is_nt_xent():
    def found(a, b, zero):
        how = dict(temperature=0.1)
        yield losses.nt_xent(a, b, **how), losses.debiased_info_nce(a, b, positive_prior=0.0, **how)
        yield losses.nt_xent(a, b, **how), losses.hard_negative_info_nce(a, b, positive_prior=zero, concentration=zero, **how)
        prior = dict(positive_prior=0.05, **how)
        yield losses.debiased_info_nce(a, b, **prior), losses.hard_negative_info_nce(a, b, concentration=zero, **prior)
        own = losses.nt_xent(a, b, **how)  # -log p, of which the decoupled loss is the log-odds
        yield own, jax.nn.softplus(losses.decoupled_info_nce(a, b, **how))

    for one, other in compiled(lambda *arrays: list(found(*arrays)), A, B, np.float32(0)):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


def test_the_gradient_of_a_decoupled_positive_does_not_fade():
    """However well the positive is picked, its similarity has the slope -1 / temperature (each of two anchors)."""
    keys, slope = np.float32([[1, 0], [-1, 0]]), lambda loss: jax.grad(lambda s: loss(s * keys, keys, temperature=0.05, similarity="dot").sum())
    decoupled, plain = compiled(lambda s: (slope(losses.decoupled_info_nce)(s), slope(losses.nt_xent)(s)), np.float32(1))
    assert decoupled < -4 / 0.05 and abs(plain) < 1e-6


def test_values_and_gradients_are_finite_at_temperature_one_hundredth():
    """Nothing overflows, on either side of the clamp and where all embeddings are equal."""
    options = dict(temperature=0.01, positive_prior=0.1)

    def found(a, b):
        total = lambda a, b: losses.hard_negative_info_nce(a, b, concentration=1.0, **options).sum() + losses.debiased_info_nce(a, b, **options).sum()  # noqa: E731
        return jax.value_and_grad(total, argnums=(0, 1))(a, b)

    apart = np.float32([[1, 0], [-1, 0], [0, 1], [0, -1], [0.6, 0.8]])
    for a, b in ((A, B), (A, A), (np.ones_like(A), np.ones_like(A)), (np.pad(apart, ((0, 0), (0, 2))),) * 2, (np.zeros_like(A), B)):
        value, gradients = compiled(found, a, b)
        assert np.isfinite(value) and value >= 0
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_at_the_floor_no_gradient_goes_to_the_negatives():
    """The floor holds where the positives expected among the negatives outweigh them: the gradient is that of two numbers, s / tau and the floor."""

    def found(a, b):
        both = jnp.concatenate([a, b])
        loss = lambda both: losses.debiased_info_nce(both[:5], both[5:], temperature=0.5, positive_prior=0.9).sum()  # noqa: E731
        alone = lambda both: 2 * jax.nn.softplus(jnp.log(8.0) - 2 - 2 * -losses.negative_cosine(both[:5], both[5:], stop_gradient=False)).sum()  # noqa: E731
        return jax.value_and_grad(loss)(both), jax.value_and_grad(alone)(both)

    (value, gradient), (expected, slope) = compiled(found, A, A + 0.1 * B)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
