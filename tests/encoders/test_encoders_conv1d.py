"""The convolutional net of signals: against convolution by hand, dropout, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders

KEY = jax.random.key(0)
MODEL = encoders.ConvNet1D((4, 6), (5, 3), dropout=0.5)
SIGNALS = np.random.default_rng(0).normal(size=(3, 16, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(KEY, SIGNALS)


def by_hand(variables, signals, pool):
    hidden = signals.astype(np.float64)
    for i, width in enumerate((5, 3)):
        layer = jax.tree.map(np.float64, variables["params"][f"Conv_{i}"])
        length = hidden.shape[1] - width + 1
        hidden = sum(hidden[:, j : j + length] @ layer["kernel"][j] for j in range(width)) + layer["bias"]
        hidden = np.maximum(hidden, 0)
    return hidden.max(1) if pool == "max" else hidden.mean(1)


@pytest.mark.parametrize("pool", ("max", "mean"))
def test_embeddings_equal_convolution_by_hand(variables, pool):
    found = jax.jit(MODEL.clone(pool=pool).apply)(variables, SIGNALS)
    assert found.dtype == jnp.float32 and MODEL.features == 6
    np.testing.assert_allclose(found, by_hand(variables, SIGNALS, pool), atol=1e-5)


def test_a_signal_without_channels_has_one(variables):
    one = jax.eval_shape(MODEL.init, KEY, SIGNALS[..., 0])
    assert one["params"]["Conv_0"]["kernel"].shape == (5, 1, 4)


def test_dropout_needs_training_and_keeps_the_mean_of_what_it_drops(variables):
    model = MODEL.clone(channels=(4, 6), pool="mean")
    draw = jax.jit(jax.vmap(lambda key: model.apply(variables, SIGNALS, train=True, rngs={"dropout": key})))
    first = encoders.ConvNet1D((4,), (5,), pool="mean", dropout=0.5)
    part = {"params": {"Conv_0": variables["params"]["Conv_0"]}}
    several = jax.jit(jax.vmap(lambda key: first.apply(part, SIGNALS, train=True, rngs={"dropout": key})))(jax.random.split(KEY, 400))
    np.testing.assert_allclose(several.mean(0), first.apply(part, SIGNALS), atol=0.05)
    found = draw(jax.random.split(KEY, 2))
    assert not np.allclose(found[0], found[1])
    np.testing.assert_array_equal(model.apply(variables, SIGNALS), model.apply(variables, SIGNALS, rngs={"dropout": KEY}))


def test_bfloat16_unit_length_and_nan(variables):
    wide, narrow = MODEL.apply(variables, SIGNALS), MODEL.clone(dtype=jnp.bfloat16).apply(variables, SIGNALS)
    assert narrow.dtype == jnp.float32 and 1e-6 < np.abs(narrow - wide).max() < 0.1
    unit = MODEL.clone(normalise=True).apply(variables, SIGNALS)
    np.testing.assert_allclose(unit, wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=1e-6)
    broken = SIGNALS.copy()
    broken[2] = np.nan
    found = np.asarray(MODEL.apply(variables, broken))
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found[:2], wide[:2], atol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "widths must be one for each of the 2 channels, got 1", lambda: encoders.ConvNet1D((4, 6), (5,))),
        (TypeError, "channels must be a sequence of integers, at least one", lambda: encoders.ConvNet1D((), ())),
        (ValueError, "channels must be at least 1, got 0", lambda: encoders.ConvNet1D((0, 6), (5, 3))),
        (ValueError, "pool must be one of 'max', 'mean', got 'min'", lambda: encoders.ConvNet1D(pool="min")),
        (ValueError, "dropout must be at least 0 and at most 1, got 1.5", lambda: encoders.ConvNet1D(dropout=1.5)),
        (ValueError, r"signals must have at least 7 samples for convolutions of widths \(5, 3\), got 6", lambda: MODEL.init(KEY, SIGNALS[:, :6])),
        (ValueError, r"signals must have shape \[B, T\] or \[B, T, C\]", lambda: MODEL.init(KEY, SIGNALS[0, 0])),
        (TypeError, "signals must have dtype float", lambda: MODEL.init(KEY, SIGNALS.astype(int))),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
