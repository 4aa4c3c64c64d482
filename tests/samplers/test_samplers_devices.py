"""Devices that record the same moments: distances, selection, other moments, windows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import core, samplers

KEY = jax.random.key(0)
WINDOWS = np.random.default_rng(0).normal(size=(8, 3, 6, 4)).astype(np.float32) * np.float32([1, 1.2, 3])[:, None, None]


def test_distances_are_those_of_magnitudes_or_the_mean_of_those_of_axes():
    magnitude, axes, turned = jax.jit(
        lambda x: (
            samplers.device_distances(x, 1),
            samplers.device_distances(x, 1, by="axes"),
            samplers.device_distances(x[..., (2, 0, 1, 3)] * jnp.array([1.0, -1.0, 1.0, 5.0]), 1),
        )
    )(WINDOWS)
    length = np.linalg.norm(WINDOWS[..., :3], axis=-1)
    distance = jax.jit(partial(core.mmd, floor=1e-4))
    np.testing.assert_allclose(magnitude, [distance(length[:, 1], length[:, d]) for d in range(3)], atol=1e-5)
    each = [[distance(WINDOWS[:, 1, :, c], WINDOWS[:, d, :, c]) for c in range(3)] for d in range(3)]
    np.testing.assert_allclose(axes, np.mean(each, axis=1), atol=1e-5)
    np.testing.assert_allclose(turned, magnitude, atol=1e-5)  # neither turning a device nor its other channels matter
    assert magnitude[1] == np.float32(1e-4) and magnitude[0] < magnitude[2]
    every = jax.jit(lambda x: jax.lax.map(lambda anchor: samplers.device_distances(x, anchor), jnp.arange(3)))(WINDOWS)  # of anchors that are traced
    np.testing.assert_allclose(every[1], magnitude, atol=1e-6)
    np.testing.assert_allclose(every, every.T, atol=1e-6)
    np.testing.assert_allclose(jax.jit(samplers.device_distances)(WINDOWS), every, rtol=1e-6)


def test_vmap_gives_the_distances_of_each_batch():
    batches = jnp.stack([WINDOWS, 2 * WINDOWS[::-1]])
    together = jax.jit(jax.vmap(samplers.device_distances))(batches)
    np.testing.assert_allclose(together, [jax.jit(samplers.device_distances)(batch) for batch in batches], rtol=1e-4, atol=1e-5)


def test_distances_have_no_gradient_and_are_the_same_over_four_devices():
    whole, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(samplers.device_distances(x, 0))))(WINDOWS)
    assert np.all(np.asarray(gradient) == 0)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(partial(samplers.device_distances, anchor=0, axis_name="data"), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())
    np.testing.assert_allclose(jnp.sum(jax.jit(split)(WINDOWS)), whole, rtol=1e-5)


@pytest.mark.parametrize(
    "options, positive, weights",
    [
        (dict(), 1, [0.5, 2.0, 1.0, 0.25]),
        (dict(weighted=False), 1, [1, 1, 1, 1]),
        (dict(positive="farthest"), 3, [0.5, 2.0, 1.0, 0.25]),
        (dict(negatives="positive"), 1, [0, 2.0, 0, 0]),
        (dict(negatives="next"), 1, [0.5, 0, 1.0, 0]),
    ],
)
def test_devices_are_selected_by_their_distance(options, positive, weights):
    found = jax.jit(partial(samplers.select_devices, **options))(np.float32([2, 0.5, 1, 4]))
    np.testing.assert_array_equal(found.positive, np.arange(4) == positive)
    np.testing.assert_array_equal(found.negative, np.array(weights) > 0)
    np.testing.assert_allclose(found.weights, weights)
    assert found.weights.dtype == jnp.float32


def test_of_equal_devices_the_first_is_the_positive_and_a_random_one_is_any():
    assert np.argmax(samplers.select_devices(jnp.ones(3)).positive) == 0
    draw = jax.jit(jax.vmap(lambda key: samplers.select_devices(jnp.array([1.0, 2.0, 3.0]), positive="random", key=key).positive))
    counts = np.asarray(draw(jax.random.split(KEY, 300))).sum(0)
    assert counts.sum() == 300 and counts.min() > 70


def test_no_anchor_meets_its_own_moment_and_each_row_comes_once():
    draw = jax.jit(jax.vmap(lambda key: samplers.asynchronous(key, 5, 3)))
    found = np.asarray(draw(jax.random.split(KEY, 400)))
    np.testing.assert_array_equal(np.sort(found, axis=-1), np.broadcast_to(np.arange(5), found.shape))
    assert not np.any(found == np.arange(5))
    shifts = (found[..., 0] - 0) % 5
    assert np.bincount(shifts.ravel(), minlength=5)[1:].min() > 220  # of 300 each
    assert np.mean(shifts[:, 0] == shifts[:, 1]) < 0.35  # each draw has a shift of its own


def test_permutations_may_have_fixed_points():
    draw = jax.jit(jax.vmap(lambda key: samplers.asynchronous(key, 5, 2, allow_sync=True)))
    found = np.asarray(draw(jax.random.split(KEY, 200)))
    np.testing.assert_array_equal(np.sort(found, axis=-1), np.broadcast_to(np.arange(5), found.shape))
    assert 0.1 < np.mean(found == np.arange(5)) < 0.3 and not np.array_equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("allow_sync", (False, True))
def test_rows_over_four_devices_are_those_of_one(allow_sync):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    local = partial(samplers.asynchronous, KEY, 2, 3, allow_sync=allow_sync, axis_name="data")
    split = jax.shard_map(lambda: local(), mesh=mesh, in_specs=(), out_specs=jax.P(None, "data"), check_vma=False)
    np.testing.assert_array_equal(jax.jit(split)(), samplers.asynchronous(KEY, 8, 3, allow_sync=allow_sync))


def test_windows_of_a_signal():
    assert samplers.window(10, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert samplers.window(10, 4, stride=3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert samplers.window(4, 4, stride=9).tolist() == [[0, 1, 2, 3]] and samplers.window(4, 4).dtype == np.int32


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "anchor must be at least 0 and at most 2, got 3", lambda: samplers.device_distances(WINDOWS, 3)),
        (ValueError, "by must be one of 'magnitude', 'axes', got 'axis'", lambda: samplers.device_distances(WINDOWS, 0, by="axis")),
        (ValueError, "axes must be at least 1 and at most 4, got 5", lambda: samplers.device_distances(WINDOWS, 0, axes=5)),
        (ValueError, r"windows must have shape \[B, D, T, C\]", lambda: samplers.device_distances(WINDOWS[0], 0)),
        (ValueError, "distances must be greater than 0", lambda: samplers.select_devices(np.array([0.0, 1.0]))),
        (ValueError, "distances must be those of 2 devices at least", lambda: samplers.select_devices(np.ones(1), negatives="next")),
        (TypeError, "key must be a PRNG key", lambda: samplers.select_devices(np.ones(2), positive="random")),
        (ValueError, "negatives must be one of", lambda: samplers.select_devices(np.ones(2), negatives="hard")),
        (ValueError, "batch must hold at least 2 rows over all devices, got 1", lambda: samplers.asynchronous(KEY, 1, 2)),
        (ValueError, "draws must be at least 1", lambda: samplers.asynchronous(KEY, 4, 0)),
        (ValueError, "length must be at least 1 and at most 3, got 4", lambda: samplers.window(3, 4)),
        (ValueError, "stride must be at least 1, got 0", lambda: samplers.window(3, 2, stride=0)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
