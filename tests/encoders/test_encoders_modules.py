"""Encoders: shapes, precision, and the values that their formulas give."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cljax import encoders
from cljax.encoders.initialise import lecun_normal

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(size=(3, 8, 8)).astype(np.float32)
ALL = [encoders.MLP((16, 12), 5), encoders.ProjectionHead(16, 5), encoders.ConvNet((8, 12), 5)]


def inputs_of(model):
    return IMAGES.reshape(3, 64) if isinstance(model, encoders.ProjectionHead) else IMAGES


@cache
def variables_of(model):
    return jax.jit(model.init)(KEY, inputs_of(model))


def apply(model, variables, x):
    return np.asarray(jax.jit(model.apply)(variables, x))


def test_mlp_is_relu_layers_and_a_linear_one():
    model = ALL[0]
    layers = [jax.tree.map(np.float64, variables_of(model)["params"][f"Dense_{i}"]) for i in range(3)]
    assert [layer["kernel"].shape for layer in layers] == [(64, 16), (16, 12), (12, 5)]
    hidden = IMAGES.reshape(3, 64).astype(np.float64)
    for layer in layers[:-1]:
        hidden = np.maximum(hidden @ layer["kernel"] + layer["bias"], 0)
    expected = hidden @ layers[-1]["kernel"] + layers[-1]["bias"]
    assert (expected < 0).any()  # no ReLU at the end
    for x in (IMAGES, IMAGES[..., None], IMAGES.reshape(3, 64)):
        np.testing.assert_allclose(model.apply(variables_of(model), x), expected, atol=1e-5)


def test_mlp_without_hidden_layers_is_linear():
    assert list(jax.eval_shape(encoders.MLP((), 5).init, KEY, IMAGES)["params"]) == ["Dense_0"]


def test_head_keeps_leading_axes():
    model = ALL[1]
    x = np.random.default_rng(1).normal(size=(2, 3, 64)).astype(np.float32)
    layers = [jax.tree.map(np.float64, variables_of(model)["params"][f"Dense_{i}"]) for i in range(2)]
    expected = np.maximum(x @ layers[0]["kernel"] + layers[0]["bias"], 0) @ layers[1]["kernel"] + layers[1]["bias"]
    np.testing.assert_allclose(model.apply(variables_of(model), x), expected, atol=1e-5)


def test_conv_net_equals_convolution_by_hand():
    model = encoders.ConvNet((2,), 5)
    params = jax.tree.map(np.float64, variables_of(model)["params"])
    padded = np.pad(IMAGES.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    patches = np.stack([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], -1)
    hidden = patches @ params["Conv_0"]["kernel"].reshape(9, 2)  # two channels: two groups
    hidden = (hidden - hidden.mean((1, 2), keepdims=True)) / np.sqrt(hidden.var((1, 2), keepdims=True) + 1e-6)
    hidden = np.maximum(hidden * params["GroupNorm_0"]["scale"] + params["GroupNorm_0"]["bias"], 0).mean((1, 2))
    np.testing.assert_allclose(apply(model, variables_of(model), IMAGES), hidden @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 9, 7), (2, 9, 7, 3)])
def test_conv_net_takes_images_of_any_shape_and_halves_them(shape):
    model = encoders.ConvNet((8, 16, 24), 5)
    variables = jax.eval_shape(model.init, KEY, jnp.ones(shape))
    out, seen = jax.eval_shape(lambda v, x: model.apply(v, x, capture_intermediates=True), variables, jnp.ones(shape))
    assert out.shape == (2, 5)
    assert variables["params"]["Conv_0"]["kernel"].shape == (3, 3, shape[3] if len(shape) == 4 else 1, 8)
    assert [seen["intermediates"][f"Conv_{i}"]["__call__"][0].shape for i in range(3)] == [(2, 9, 7, 8), (2, 5, 4, 16), (2, 3, 2, 24)]


def test_first_weights_are_those_of_lecun_normal():
    got = lecun_normal(KEY, (2, 32, 64))
    np.testing.assert_allclose(np.std(got), 1 / np.sqrt(64), rtol=0.05)
    np.testing.assert_allclose(got.reshape(64, 64), nn.initializers.lecun_normal()(KEY, (64, 64)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", ALL, ids=lambda model: type(model).__name__)
def test_bfloat16_is_computed_in_but_neither_kept_nor_given_out(model):
    x, variables = inputs_of(model), variables_of(model)
    narrow = model.clone(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(narrow.init, KEY, x))} == {jnp.dtype(jnp.float32)}
    wide, got = apply(model, variables, x), apply(narrow, variables, x)
    assert got.dtype == wide.dtype == np.float32
    assert 1e-6 < np.abs(got - wide).max() < 0.05 * np.abs(wide).max() + 0.02


@pytest.mark.parametrize("model", ALL, ids=lambda model: type(model).__name__)
def test_embeddings_are_unit_vectors_only_where_asked(model):
    x, variables = inputs_of(model), variables_of(model)
    raw, unit = apply(model, variables, x), apply(model.clone(normalise=True), variables, x)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("model", ALL, ids=lambda model: type(model).__name__)
def test_a_row_hangs_on_nothing_else_in_the_batch_and_nan_surfaces(model):
    x, variables = inputs_of(model).copy(), variables_of(model)
    clean = apply(model, variables, x)
    x[2] = np.nan
    together = apply(model, variables, x)
    np.testing.assert_allclose(together[:2], clean[:2], atol=1e-6)
    assert np.isnan(together[2]).all()
    np.testing.assert_allclose(apply(model, variables, x[:1]), clean[:1], atol=1e-5)


@pytest.mark.parametrize("model", ALL, ids=lambda model: type(model).__name__)
def test_zero_inputs_give_finite_gradients(model):
    x, unit = np.zeros_like(inputs_of(model)), model.clone(normalise=True)
    gradients = jax.jit(jax.grad(lambda variables: jnp.sum(unit.apply(variables, x)[:, 0])))(variables_of(model))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_encoder_and_head_make_one_module_that_vmaps():
    model = encoders.Chain([encoders.MLP((8,), 6), encoders.ProjectionHead(6, 4)])
    variables = jax.jit(model.init)(KEY, IMAGES)
    each = jax.jit(jax.vmap(lambda image: model.apply(variables, image[None])[0]))(IMAGES)
    np.testing.assert_allclose(each, apply(model, variables, IMAGES), atol=1e-6)


@pytest.mark.parametrize("model", [*ALL, encoders.Autoencoder((6,), 5)], ids=lambda model: type(model).__name__)
def test_an_empty_batch_has_no_embeddings(model):
    x = inputs_of(model)[:0]
    found = jax.eval_shape(lambda x: model.apply(variables_of(model), x), x)
    assert found.shape == (0, 5) and found.dtype == jnp.float32


@pytest.mark.parametrize("model", ALL, ids=lambda model: type(model).__name__)
def test_an_encoder_names_its_width_and_is_a_static_value(model):
    assert model.features == 5
    assert hash(model) == hash(model.clone()) and model == model.clone()


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(TypeError, match="widths must be a sequence of integers, got 128"):
        encoders.MLP(128, 32)
    with pytest.raises(ValueError, match="widths must be at least 1, got 0"):
        encoders.MLP((0,), 32)
    with pytest.raises(TypeError, match="features must be an integer, got 3.5"):
        encoders.MLP((4,), 3.5)
    with pytest.raises(ValueError, match="width must be at least 1, got -1"):
        encoders.ProjectionHead(-1, 4)
    with pytest.raises(ValueError, match="channels must name at least one convolution"):
        encoders.ConvNet((), 4)
    model = encoders.MLP((4,), 3)
    with pytest.raises(ValueError, match=r"inputs must have shape \[B, \.\.\.\] .* got \[4\]"):
        model.init(KEY, jnp.ones(4))
    with pytest.raises(TypeError, match="inputs must have dtype float, got uint8"):
        model.init(KEY, jnp.ones((2, 4), jnp.uint8))
    with pytest.raises(ValueError, match=r"images must have shape \[B, H, W\] or \[B, H, W, C\], got \[2, 4\]"):
        encoders.ConvNet((4,), 3).init(KEY, jnp.ones((2, 4)))
