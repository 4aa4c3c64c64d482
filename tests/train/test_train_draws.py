"""Batches drawn inside of a compiled program."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import train

module = importlib.import_module("cljax.train.draws")  # `cljax.train.draws` is the function


@pytest.mark.parametrize("size, batch", [(6, 3), (5, 12)])
def test_each_epoch_shows_each_row_once_in_another_order(size, batch):
    data = {"x": jnp.arange(100, 100 + size)}
    batches = jax.jit(jax.vmap(lambda t: module.epochs(jax.random.key(3), data, batch, t)))(jnp.arange(2 * size))
    assert batches["index"].shape == (2 * size, batch) and np.array_equal(batches["x"], batches["index"] + 100)
    epochs = np.asarray(batches["index"]).reshape(-1, size)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (2 * batch, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > batch


def test_rows_may_be_trees():
    data = {"x": {"a": jnp.arange(5), "b": jnp.arange(10).reshape(5, 2)}, "y": jnp.arange(5) + 7}
    batch = module.epochs(jax.random.key(0), train.draws(data, 3).arrays, 3, 0)
    np.testing.assert_array_equal(batch["x"]["a"], batch["index"])
    np.testing.assert_array_equal(batch["x"]["b"][:, 1], 2 * batch["index"] + 1)
    np.testing.assert_array_equal(batch["y"], batch["index"] + 7)


@pytest.mark.errors
def test_what_cannot_be_drawn_from_is_named():
    x = np.zeros((4, 2))
    for arrays, draw, error, text in [
        ({"x": x}, 0, ValueError, "draw must be at least 1 .* got 0"),
        ({"x": x}, 2.0, TypeError, "draw must be an integer, got 2.0"),
        ({"x": x}, None, TypeError, "draw must be an integer, got None"),
        ({"x": x, "y": x[:3]}, 2, ValueError, "same leading axis, .* got rows {'x': 4, 'y': 3}"),
        ({"x": {"a": x, "b": x[:3]}}, 2, ValueError, "same leading axis, .* got rows {'x/a': 4, 'x/b': 3}"),
        ({"x": {}}, 2, ValueError, "same leading axis, of one row at least"),
        ({"x": x, "index": x}, 2, ValueError, 'none named "index"'),
        ({}, 2, ValueError, "arrays must hold one array at least"),
        ((x, x), 2, TypeError, "arrays must be a dict of arrays where draw is an int, got tuple"),
        ({"x": [1, 2]}, 2, TypeError, r"arrays\['x'\]\[0\] must be an array of numbers, got int"),
        ({"x": np.array(["a"])}, 2, TypeError, r"arrays\['x'\] must be an array of numbers, got dtype <U1"),
        ({"x": x[:0]}, 2, ValueError, "of one row at least"),
    ]:
        with pytest.raises(error, match=text):
            train.draws(arrays, draw)
