"""A queue holds the newest rows, whatever the sizes of the batches and wherever they come from."""

from collections import deque

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory

DEVICES = 4


def pair(capacity, dim):
    init, update = memory.queue(capacity, dim)
    return init, jax.jit(update, static_argnames="axis_name")


def rows(start, count, dim=2):
    return np.arange(start, start + count, dtype=np.float32)[:, None] * np.ones(dim, np.float32)


def test_the_oldest_rows_are_overwritten():
    init, update = pair(4, 2)
    state = init(jax.random.key(0))
    for batch in np.arange(1.0, 13.0, dtype=np.float32).reshape(3, 2, 2):
        state = update(state, batch)
    np.testing.assert_array_equal(state.keys, [[9, 10], [11, 12], [5, 6], [7, 8]])
    assert int(state.pointer) == 2


@pytest.mark.parametrize(("capacity", "batches"), [(5, [2, 2, 2]), (3, [7, 2]), (4, [4, 0, 9]), (1, [3, 1])])
def test_batches_of_any_size_leave_what_rows_put_in_one_by_one_leave(capacity, batches):
    init, update = pair(capacity, 1)
    state = init(jax.random.key(0))
    newest, pointer, start = deque(np.asarray(state.keys[:, 0]), maxlen=capacity), 0, 0
    for size in batches:
        state = update(state, rows(start, size, 1))
        newest.extend(range(start, start + size))
        pointer, start = (pointer + size) % capacity, start + size
    assert int(state.pointer) == pointer
    np.testing.assert_array_equal(np.roll(np.asarray(state.keys[:, 0]), -pointer), np.float32(newest))  # the oldest one first


def test_first_rows_are_unit_gaussian():
    keys = np.asarray(pair(4000, 3)[0](jax.random.key(1)).keys)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(keys.mean(0), 0, atol=5 / np.sqrt(3 * 4000))
    np.testing.assert_allclose(keys.T @ keys / 4000, np.eye(3) / 3, atol=0.03)


def test_keys_are_stored_as_float32_and_not_scaled():
    init, update = pair(3, 2)
    state = update(init(jax.random.key(0)), jnp.array([[3.0, 4.0], [0.0, 0.0]], jnp.bfloat16))
    assert state.keys.dtype == jnp.float32
    np.testing.assert_array_equal(state.keys[:2], [[3, 4], [0, 0]])


def test_no_gradient_reaches_the_keys():
    init, update = pair(3, 2)
    state = init(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda keys: jnp.sum(update(state, keys).keys ** 2)))(jnp.ones((2, 2)))
    np.testing.assert_array_equal(gradient, 0)


def test_nan_keys_surface():
    init, update = pair(3, 2)
    keys = update(init(jax.random.key(0)), jnp.array([[1.0, jnp.nan]])).keys
    np.testing.assert_array_equal(np.isnan(keys), [[False, True], [False, False], [False, False]])


@pytest.mark.parametrize("mode", ["shard_map", "shard_map unchecked", "pmap", "vmap"])
def test_queue_on_four_devices_equals_one(mode):
    init, update = pair(7, 2)
    first, batches = init(jax.random.key(0)), rows(0, 24).reshape(2, 12, 2)  # 12 rows a batch: more than the queue holds
    expected = first
    for batch in batches:
        expected = update(expected, batch)

    def twice(state, local):  # [2, 3, 2] on each device
        for batch in local:
            state = update(state, batch, axis_name="data")
        return state

    if mode.startswith("shard_map"):
        mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P(None, "data")), out_specs=jax.P())  # the state comes back as replicated
        got = jax.jit(jax.shard_map(twice, mesh=mesh, check_vma=mode == "shard_map", **specs))(first, batches)
        chex.assert_trees_all_equal(got, expected)
        return
    split = np.moveaxis(batches.reshape(2, DEVICES, 3, 2), 1, 0)
    mapped = jax.pmap if mode == "pmap" else jax.vmap
    got = mapped(twice, axis_name="data", in_axes=(None, 0))(first, split)
    for device in range(DEVICES):
        chex.assert_trees_all_equal(jax.tree.map(lambda x, device=device: x[device], got), expected)


def test_queues_are_stacked_by_vmap():
    init, update = pair(3, 2)
    keys, batches = jax.random.split(jax.random.key(0), 2), rows(0, 4).reshape(2, 2, 2)
    got = jax.jit(jax.vmap(lambda key, batch: update(init(key), batch)))(keys, batches)
    for i in range(2):
        np.testing.assert_allclose(got.keys[i], update(init(keys[i]), batches[i]).keys, atol=1e-6)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        memory.queue(0, 2)
    with pytest.raises(TypeError, match="dim must be an integer, got 2.5"):
        memory.queue(3, 2.5)
    init, update = memory.queue(3, 2)
    with pytest.raises(TypeError, match="key must be a PRNG key"):
        init(0)
    with pytest.raises(ValueError, match="key must be one PRNG key"):
        init(jax.random.split(jax.random.key(0)))
    state = init(jax.random.PRNGKey(0))  # keys of the older kind are keys
    with pytest.raises(ValueError, match=r"keys must have shape \[B, 2\], got \[4, 3\]"):
        update(state, jnp.ones((4, 3)))
    with pytest.raises(TypeError, match="keys must have dtype float, got int32"):
        update(state, jnp.ones((4, 2), jnp.int32))
    with pytest.raises(ValueError, match="axis_name='data' is not mapped here"):
        update(state, jnp.ones((4, 2)), axis_name="data")
    with pytest.raises(ValueError, match=r"state.keys must have shape \[3, 2\], got \[5, 2\]"):
        update(memory.queue(5, 2).init(jax.random.key(0)), jnp.ones((4, 2)))
