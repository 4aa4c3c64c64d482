"""Training by an objective: the step that is written by hand, variables that are not trained, devices, one program for all rates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cljax import encoders, losses, train
from cljax.train.minimise import _step

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
MODEL = encoders.MLP((6,), 3, batch_norm=True, axis_name="data")
DATA = train.draws({"x": X}, 8)
quiet = partial(train.fit, progress=False)
TRACES = []


def squares(model, scale, variables, batch, key):
    TRACES.append(scale)
    z, variables = encoders.apply_in_training(model, variables, batch["x"])
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(batch["index"])
    error = scale * (z - batch["x"][:, :3] - 0.01 * noise[:, None]) ** 2
    return losses.mean(error.mean(axis=1), axis_name="data"), {"largest": losses.mean(z.max(axis=1), axis_name="data")}, variables


def plain(variables, batch, key):
    return losses.mean((batch["x"] @ variables["params"] - 1) ** 2, axis_name="data"), {}


def adam(rate):
    return optax.adam(rate)


def begun():
    return jax.jit(MODEL.init)(KEY, X[:1])


def trained(scale=1.0, rate=0.05, **options):
    how = dict(optimiser=partial(adam, rate), steps=5, fit=quiet) | options
    return train.minimise(KEY, partial(squares, MODEL, scale), begun(), DATA, **how)


def by_hand(state, batch, key):
    def objective(params):
        loss, metrics, variables = squares(MODEL, 1.0, state["averages"] | {"params": params}, batch, key)
        return loss, (metrics, {"batch_stats": variables["batch_stats"]})

    (loss, (metrics, averages)), grads = jax.value_and_grad(objective, has_aux=True)(state["params"])
    params, opt = train.descend(optax.adam(0.05), grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "averages": averages, "opt": opt}, {"loss": loss, **metrics}


def test_it_is_the_step_that_is_written_by_hand():
    variables = begun()
    state = {"params": variables["params"], "averages": {"batch_stats": variables["batch_stats"]}, "opt": optax.adam(0.05).init(variables["params"])}
    state, expected = quiet(KEY, state, by_hand, DATA, steps=5)
    found, history = trained()
    assert set(history) == set(expected) == {"loss", "largest"} and set(found) == {"params", "batch_stats"}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), (found["params"], history), (state["params"], expected))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found["batch_stats"], state["averages"]["batch_stats"])
    moved = jax.tree.map(lambda new, old: not np.allclose(new, old), found, variables)
    assert all(jax.tree.leaves(moved))


def test_parameters_alone_and_hooks_of_its_state():
    def seen(key, state):
        return state, {"size": jnp.sum(state["variables"]["params"] ** 2)}

    how = dict(optimiser=partial(adam, 0.1), steps=40, after=((20, seen),), name="line", fit=quiet)
    found, history = train.minimise(KEY, plain, {"params": jnp.zeros(4)}, DATA, **how)
    assert set(found) == {"params"} and history["loss"].shape == (40,) and history["size"].shape == (2,)
    np.testing.assert_allclose(history["size"][-1], np.sum(np.square(found["params"])), rtol=1e-6)
    assert history["loss"][-3:].mean() < history["loss"][0]


def test_four_devices_take_the_step_of_one():
    variables, after = begun(), []
    state = {"variables": variables, "opt": adam(0.1).init(variables["params"])}
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        step = partial(_step, partial(squares, MODEL, 1.0), partial(adam, 0.1))
        after.append(jax.jit(jax.shard_map(step, mesh=mesh, **specs))(state, {"x": X[:8], "index": np.arange(8) + 3}, KEY))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), *after)


def test_rates_and_bound_floats_share_a_program_and_a_population_traces():
    trained()
    before = len(TRACES)
    found, _ = trained(scale=0.5, rate=0.01)
    assert len(TRACES) == before

    def of_rate(rate):
        return train.minimise(KEY, partial(squares, MODEL, 0.5), begun(), DATA, optimiser=partial(adam, rate), steps=5, fit=quiet)[0]

    several = jax.vmap(of_rate)(jnp.array([0.05, 0.01]))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one[1], two, rtol=1e-3, atol=1e-5), several, found)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("changed", "kind", "complaint"),
    [
        (dict(objective=3), TypeError, "objective must be a function, got int"),
        (dict(optimiser=optax.sgd(0.1)), TypeError, "optimiser must be a function, got GradientTransformation"),
        (dict(variables=[1]), TypeError, "variables must be a dict, got list"),
        (dict(variables={"weights": 1}), ValueError, "variables must hold 'params', which are trained, got 'weights'"),
    ],
)
def test_bad_input_is_named(changed, kind, complaint):
    given = dict(objective=plain, variables={"params": jnp.zeros(4)}, optimiser=partial(adam, 0.1)) | changed
    with pytest.raises(kind, match=complaint):
        train.minimise(KEY, data=DATA, steps=1, fit=quiet, **given)


def loss_alone(variables, batch, key):
    return losses.mean(batch["x"][:, 0] * variables["params"], axis_name="data")


@pytest.mark.errors
def test_an_objective_without_metrics_is_named():
    with pytest.raises(ValueError, match=r"objective must give \(loss, metrics\) or \(loss, metrics, variables\), got"):
        train.minimise(KEY, loss_alone, {"params": jnp.zeros(())}, DATA, optimiser=partial(adam, 0.1), steps=1, fit=quiet)


def test_kernels_are_those_that_multiply():
    params = begun()["params"]
    found = train.decay_mask(params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    chosen = {jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(found) if leaf}
    assert chosen == {f"['Dense_{i}']['kernel']" for i in (0, 1)} and not any(jax.tree.leaves(train.decay_mask([1.0, {"bias": 2.0}])))
    decay = optax.add_decayed_weights(0.5, mask=train.decay_mask)
    update, _ = decay.update(jax.tree.map(jnp.zeros_like, params), decay.init(params), params)
    np.testing.assert_allclose(update["Dense_0"]["kernel"], 0.5 * params["Dense_0"]["kernel"])
    assert not np.any(update["BatchNorm_0"]["scale"])
