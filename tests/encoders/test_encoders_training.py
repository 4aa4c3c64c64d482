"""A model in training: the running averages go from pass to pass, the parameters stay, and a chain is put together of its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
MODEL = encoders.Chain([encoders.MLP((4,), 5, last_batch_norm=True), encoders.ProjectionHead(4, 2)])
VARIABLES = jax.jit(MODEL.init)(jax.random.key(0), X)


def test_running_averages_go_from_pass_to_pass():
    once, first = encoders.apply_in_training(MODEL, VARIABLES, X)
    (_, twice), second = encoders.apply_in_training(MODEL, first, 2 * X, stop=(1, 2))
    expected, changed = MODEL.apply(VARIABLES, X, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(once, expected)
    jax.tree.map(np.testing.assert_array_equal, first, VARIABLES | changed)
    expected, changed = MODEL.apply(first, 2 * X, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(twice, expected)
    jax.tree.map(np.testing.assert_array_equal, second, first | changed)
    assert not jax.tree.all(jax.tree.map(np.array_equal, first["batch_stats"], VARIABLES["batch_stats"]))


def test_without_batch_normalisation_the_variables_stay():
    model = encoders.MLP((4,), 2)
    variables = jax.jit(model.init)(jax.random.key(0), X)
    z, after = encoders.apply_in_training(model, variables, X)
    np.testing.assert_array_equal(z, model.apply(variables, X))
    jax.tree.map(np.testing.assert_array_equal, after, variables)


def test_a_chain_of_parts_is_the_parts_one_after_the_other():
    parts = [module.init(jax.random.key(i), x) for i, (module, x) in enumerate(zip(MODEL.modules, (X, jnp.zeros((1, 5))), strict=True))]
    chained = encoders.chained(*parts)
    assert jax.tree.structure(chained) == jax.tree.structure(VARIABLES)
    expected = MODEL.modules[1].apply(parts[1], MODEL.modules[0].apply(parts[0], X))
    np.testing.assert_allclose(MODEL.apply(chained, X), expected, atol=1e-6)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match='variables must be a dict with "params"'):
        encoders.apply_in_training(MODEL, VARIABLES["params"], X)
    with pytest.raises(TypeError, match="parts must be dicts of variables"):
        encoders.chained(VARIABLES, 3)
