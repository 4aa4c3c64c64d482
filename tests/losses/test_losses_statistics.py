"""Entropies, statistics of features and predictions of a target: worked numbers, and the batches at which they usually break."""

import jax
import jax.numpy as jnp
import numpy as np

from cljax import losses

f32 = np.float32
LOGITS = f32([[2, 0, -1], [0, 1, 0], [0.5, 0.5, 3]])
FEATURES = f32([[1, 2, 0], [0, 1, 1], [2, 0, 1], [1, 1, 3]])
QUICKLY = {"xla_backend_optimization_level": 0}


def compiled(function, *arguments):
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def close(found, expected, atol=1.1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_entropy_and_information_maximisation():
    def found(logits):
        average = jnp.log(jax.nn.softmax(logits).mean(axis=0))
        sure = 50 * jnp.eye(3)[jnp.array([0, 1, 2, 0, 1, 2])]
        together = [losses.info_max(x) for x in (logits, sure, 0 * sure + 1)]
        return losses.mean(losses.entropy(logits)), losses.entropy(average), *together

    each, marginal, both, sure, equal = compiled(found, LOGITS)
    close([each, marginal, both], [0.668050, 1.083610, -0.415560])  # 3e-5 above the released code's, which adds 1e-5 inside the logarithm
    close([sure, equal], [-np.log(3), 0])


def test_entropy_of_cosines_to_anchors():
    u, anchors = f32([[1, 0], [0.6, 0.8], [2**-0.5, 2**-0.5]]), f32([[1, 0], [0, 1]])
    close(compiled(lambda u: losses.mean(losses.entropy(u @ anchors.T)), u), 0.654507)
    close(compiled(lambda u: losses.entropy(0 * u @ anchors.T), u), np.log(2))


def test_entropy_of_impossible_classes_has_finite_gradients():
    def found(logits):
        where = np.array([[True, False, True], [False, False, False], [True, True, True]])
        total = lambda x: jnp.sum(losses.entropy(x)) + jnp.sum(losses.entropy(x, where=where))  # noqa: E731
        return losses.entropy(logits), losses.entropy(logits, where=where), jax.grad(total)(logits)

    plain, masked, gradient = compiled(found, f32([[0, -np.inf, 0], [-np.inf, 0, -np.inf], [-1000, 0, 1000]]))
    close(plain, [np.log(2), 0, 0])
    close(masked, [np.log(2), 0, 0])
    assert np.isfinite(gradient).all()


def test_information_maximisation_of_classes_that_nobody_uses_has_finite_gradients():
    gradient = compiled(jax.grad(losses.info_max), f32([[0, 500, -500], [0, 400, -400]]))
    assert np.isfinite(gradient).all()


def test_covariance_of_features():
    def found(x):
        constant = jnp.ones_like(x)
        diagonal = f32([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
        return losses.covariance(x), losses.covariance(3 * x), losses.covariance(constant), losses.covariance(diagonal), losses.covariance(x[:1])

    plain, scaled, constant, diagonal, one_row = compiled(found, FEATURES)
    close([plain, plain / 2], [0.148148, 0.074074])  # VICReg's form, and the mean over entries beside the diagonal
    close(scaled, 81 * 0.1481481, atol=1e-5)
    close([constant, diagonal, one_row], 0)


def test_collapsed_features_have_the_largest_variance_loss_and_finite_gradients():
    def found(x):
        return jax.value_and_grad(losses.variance)(x), jax.value_and_grad(losses.barlow_twins)(x, x), jax.value_and_grad(losses.variance)(x[:1])

    for value, gradient in compiled(found, np.ones((4, 3), f32)):
        assert np.isfinite(value) and np.isfinite(gradient).all() and not gradient.any()
        assert value in (f32(0.99), 3)


def test_features_far_from_the_origin_have_the_same_statistics():
    def found(x):
        return losses.variance(x, target=2.0), losses.covariance(x), losses.barlow_twins(x, x)

    np.testing.assert_allclose(compiled(found, FEATURES + 1000), compiled(found, FEATURES), rtol=1e-4, atol=1e-6)


def test_barlow_twins_of_equal_uncorrelated_views_is_zero():
    x = f32([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    same, turned = compiled(lambda x: (losses.barlow_twins(x, 3 * x + 1), losses.barlow_twins(x, x[:, ::-1], off_diagonal_weight=0.5)), x)
    close(same, 0)
    close(turned, 2 + 0.5 * 2, atol=1e-4)  # the two features changed places


def test_no_gradient_goes_to_the_target_of_a_prediction():
    def found(p, z):
        loss = lambda p, z, **options: losses.mean(losses.negative_cosine(p, z, **options))  # noqa: E731
        stopped, free = (jax.grad(lambda p, z, o=o: loss(p, z, **o), argnums=(0, 1))(p, z) for o in ({}, {"stop_gradient": False}))
        return 1 + loss(p, z), 1 + loss(5 * p, z / 3), losses.negative_cosine(p[:, None], z[:, None]).shape, stopped, free

    value, scaled, shape, stopped, free = compiled(found, f32([[1, 0], [1, 1]]), f32([[0, 2], [3, 3]]))
    close([value, scaled], 0.5)
    assert shape == (2, 1)
    assert not stopped[1].any() and free[1].any()
    close(stopped[0], free[0])


def test_a_prediction_of_zero_has_no_gradient():
    value, gradient = compiled(jax.value_and_grad(lambda p: losses.negative_cosine(p, LOGITS).sum()), 0 * LOGITS)
    assert value == 0 and not gradient.any()
