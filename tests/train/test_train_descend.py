"""One step of an optimiser gives the same parameters in every mode of several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from cljax import train

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
SGD = optax.sgd(0.5)


def update(params, x, axis_name="data"):
    def objective(params):  # a global mean, reduced over the axis, as `losses.mean` gives
        total = jnp.sum(jnp.square(x @ params["w"]))
        return total / len(X) if axis_name is None else lax.psum(total, axis_name) / len(X)

    grads = jax.grad(objective)(params)
    return train.descend(SGD, grads, params, SGD.init(params), axis_name=axis_name)[0]["w"]


def test_every_mode_descends_by_the_true_gradient():
    w = np.array([1.0, -2.0, 0.5])
    expected = w - 0.5 * 2 * X.T.astype(np.float64) @ (X @ w) / len(X)
    params, mesh = {"w": jnp.asarray(w, jnp.float32)}, jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    results = [update(params, jnp.asarray(X), axis_name=None)]
    for check in (True, False):
        mapped = jax.shard_map(update, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P(), check_vma=check)
        results.append(jax.jit(mapped)(params, X))
    local = X.reshape(4, 2, 3)
    results += list(jax.vmap(update, (None, 0), axis_name="data")(params, local))
    results += list(jax.pmap(update, in_axes=(None, 0), axis_name="data", devices=jax.devices()[:4])(params, local))
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert len(results) == 11


def test_parameters_keep_their_dtype():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    params, state = train.descend(SGD, {"w": jnp.ones(3, jnp.float32)}, params, SGD.init(params))
    assert params["w"].dtype == jnp.bfloat16 and params["w"].tolist() == [0.5] * 3


@pytest.mark.errors
def test_what_cannot_descend_is_named():
    params = {"w": jnp.ones(3)}
    with pytest.raises(TypeError, match="optimiser must be an optax.GradientTransformation, got float"):
        train.descend(0.1, params, params, None)
    with pytest.raises(ValueError, match="axis_name='data' is not mapped here"):
        train.descend(SGD, params, params, SGD.init(params), axis_name="data")
