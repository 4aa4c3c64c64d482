"""Heads with batch normalisation, and encoder and head as one module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cljax import encoders

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
HEAD = encoders.ProjectionHead(4, 3, layers=3, batch_norm=True, last_batch_norm=True)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(HEAD.init)(KEY, X)


def normalised(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def test_a_head_of_three_layers_normalises_each(variables):
    params = jax.tree.map(np.float64, variables["params"])
    assert {name: sorted(layer) for name, layer in params.items()} == {
        "Dense_0": ["kernel"],
        "BatchNorm_0": ["bias", "scale"],
        "Dense_1": ["kernel"],
        "BatchNorm_1": ["bias", "scale"],
        "Dense_2": ["kernel"],
    }
    hidden = X.astype(np.float64)
    for i in range(2):
        hidden = np.maximum(normalised(hidden @ params[f"Dense_{i}"]["kernel"]), 0)
    got, updated = HEAD.apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(got, normalised(hidden @ params["Dense_2"]["kernel"]), atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["BatchNorm_0"]["mean"], 0.1 * (X @ params["Dense_0"]["kernel"]).mean(0), atol=1e-6)


def test_a_fresh_head_stands_behind_an_encoder_as_a_chain_would_draw_it():
    encoder, head = encoders.MLP((4,), 3, batch_norm=True), encoders.MLP((), 2)
    learnt = jax.tree.map(lambda leaf: leaf + 1, jax.jit(encoder.init)(KEY, X))
    model, found = encoders.with_head(KEY, encoder, learnt, head)
    drawn = jax.jit(model.init)(KEY, X)
    assert jax.tree.structure(drawn) == jax.tree.structure(found) and model.features == 2
    jax.tree.map(np.testing.assert_array_equal, found["params"]["modules_1"], drawn["params"]["modules_1"])
    jax.tree.map(np.testing.assert_array_equal, {kind: tree["modules_0"] for kind, tree in found.items()}, learnt)


def test_without_training_the_averages_count_and_a_row_hangs_on_itself(variables):
    np.testing.assert_allclose(HEAD.apply(variables, X[:1]), HEAD.apply(variables, X)[:1], atol=1e-6)


def test_without_batch_normalisation_training_changes_nothing():
    for model in (encoders.MLP((4,), 3), encoders.ProjectionHead(4, 3)):
        params = jax.jit(model.init)(KEY, X)
        assert list(params) == ["params"]
        np.testing.assert_array_equal(model.apply(params, X, train=True), model.apply(params, X))


def test_a_perceptron_may_normalise_too():
    shapes = jax.eval_shape(encoders.MLP((4, 2), 3, batch_norm=True).init, KEY, X)
    assert sorted(shapes["batch_stats"]) == ["BatchNorm_0", "BatchNorm_1"]
    assert sorted(shapes["params"]["Dense_2"]) == ["bias", "kernel"]


def test_a_chain_gives_training_to_those_that_know_of_it_and_stops_where_asked():
    model = encoders.Chain([encoders.MLP((4,), 5), nn.Dense(5), HEAD])
    variables = jax.jit(model.init)(KEY, X)
    parts = [{kind: tree[f"modules_{i}"] for kind, tree in variables.items() if f"modules_{i}" in tree} for i in range(3)]
    representation = nn.Dense(5).apply(parts[1], encoders.MLP((4,), 5).apply(parts[0], X))
    np.testing.assert_allclose(model.apply(variables, X, stop=2), representation, atol=1e-6)
    middle, last, given = model.apply(variables, X, stop=(2, 3, 0))
    np.testing.assert_array_equal(middle, model.apply(variables, X, stop=2))
    np.testing.assert_array_equal(last, model.apply(variables, X))
    np.testing.assert_array_equal(given, X)
    got, updated = model.apply(variables, X, train=True, mutable=["batch_stats"])
    expected, alone = HEAD.apply(parts[2], representation, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), updated["batch_stats"]["modules_2"], alone["batch_stats"])
    assert model.features == 3


def test_weight_normalisation_parts_direction_and_length():
    head = encoders.WeightNormHead(3)
    params = jax.jit(head.init)(KEY, X)["params"]
    np.testing.assert_allclose(params["length"], np.linalg.norm(params["direction"], axis=0), rtol=1e-6)
    np.testing.assert_allclose(head.apply({"params": params}, X), X @ params["direction"], atol=1e-5)  # at first a linear layer
    other = {"direction": 7 * params["direction"], "length": np.float32([1, 2, 0]), "bias": np.float32([0, 1, 2])}
    expected = X @ (params["direction"] / np.linalg.norm(params["direction"], axis=0)) * other["length"] + other["bias"]
    np.testing.assert_allclose(head.apply({"params": other}, X), expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: head.apply({"params": p}, X).sum()))(other | {"direction": 0 * params["direction"]})
    assert all(np.isfinite(leaf).all() for leaf in gradient.values())
    assert head.apply({"params": other}, jnp.asarray(X, jnp.bfloat16)).dtype == jnp.float32


def test_modules_with_lists_are_static_values():
    for a, b in [
        (encoders.MLP([4, 2], 3), encoders.MLP((4, 2), 3)),
        (encoders.ResNet([1, 1]), encoders.ResNet((1, 1))),
        (encoders.ConvNet([4], 3), encoders.ConvNet((4,), 3)),
        (encoders.Chain([HEAD]), encoders.Chain((HEAD,))),
    ]:
        assert a == b and hash(a) == hash(b)


@pytest.mark.errors
def test_bad_input_is_named(variables):
    with pytest.raises(ValueError, match="batch normalisation in training needs at least two rows, got 1"):
        HEAD.apply(variables, X[:1], train=True, mutable=["batch_stats"])
    with pytest.raises(ValueError, match="batch normalisation in training needs at least two rows, got 1"):
        jax.vmap(lambda row: HEAD.apply(variables, row[None], train=True, mutable=["batch_stats"])[0])(X)
    with pytest.raises(ValueError, match="axis_name='data' is not mapped here"):
        HEAD.clone(axis_name="data").apply(variables, X, train=True, mutable=["batch_stats"])
    with pytest.raises(TypeError, match="train must be True or False"):
        HEAD.apply(variables, X, train=jnp.bool_(True))
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        encoders.ProjectionHead(4, 3, layers=0)
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        encoders.WeightNormHead(0)
    with pytest.raises(ValueError, match="modules must be a sequence of Linen modules, at least one"):
        encoders.Chain([])
    with pytest.raises(TypeError, match="modules must be Linen modules, got function"):
        encoders.Chain([HEAD, lambda x: x])
