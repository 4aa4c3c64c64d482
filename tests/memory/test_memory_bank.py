"""A bank averages the features of each example in its own slot and touches no other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory

DEVICES = 4
SIZE, DIM, MOMENTUM = 6, 3, 0.6
RNG = np.random.default_rng(0)
FIRST = memory.bank(SIZE, DIM, MOMENTUM).init(jax.random.key(0))
update = jax.jit(memory.bank(SIZE, DIM, MOMENTUM).update, static_argnames="axis_name")


def reference(keys, index, features, momentum=MOMENTUM):
    """Row by row in float64; rows of the same index all start from the old slot, so the last one stands."""
    keys = np.asarray(keys, np.float64)
    new = keys.copy()
    for i, feature in zip(index, np.asarray(features, np.float64), strict=True):
        if 0 <= i < len(keys):
            mixed = momentum * keys[i] + (1 - momentum) * feature / np.linalg.norm(feature)
            new[i] = mixed / np.linalg.norm(mixed)
    return new


def test_slots_follow_the_formula_and_the_others_stay():
    index, features = np.array([4, 0, 2]), np.float32(RNG.normal(size=(3, DIM)) * 5)
    keys = update(FIRST, index, features).keys
    np.testing.assert_allclose(keys, reference(FIRST.keys, index, features), atol=1e-6)
    np.testing.assert_array_equal(keys[jnp.array([1, 3, 5])], FIRST.keys[jnp.array([1, 3, 5])])


def test_the_length_of_the_features_does_not_matter():
    index, features = np.array([4, 0]), np.float32(RNG.normal(size=(2, DIM)))
    np.testing.assert_allclose(update(FIRST, index, features).keys, update(FIRST, index, 100 * features).keys, atol=1e-6)


@pytest.mark.parametrize("index", [[3, 3, 1, 3], [2, 2, 2, 2]])
def test_the_last_of_equal_indices_counts_alone(index):
    features = np.float32(RNG.normal(size=(4, DIM)))
    np.testing.assert_allclose(update(FIRST, np.array(index), features).keys, reference(FIRST.keys, index, features), atol=1e-6)


def test_an_index_out_of_range_writes_nothing():
    index, features = np.array([-1, 6, 5, -6, 2**31 - 1]), np.float32(RNG.normal(size=(5, DIM)))
    np.testing.assert_allclose(update(FIRST, index, features).keys, reference(FIRST.keys, index, features), atol=1e-6)
    assert not np.allclose(update(FIRST, index, features).keys[5], FIRST.keys[5])


def test_momentum_may_be_traced_and_reach_its_ends():
    index, features = np.array([4, 0, 2]), np.float32(RNG.normal(size=(3, DIM)))
    traced = jax.jit(lambda m: memory.bank(SIZE, DIM, m).update(FIRST, index, features).keys)
    for momentum in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(traced(momentum), reference(FIRST.keys, index, features, momentum), atol=1e-6)
    np.testing.assert_allclose(traced(0.0)[4], features[0] / np.linalg.norm(features[0]), atol=1e-6)
    np.testing.assert_allclose(traced(1.0), FIRST.keys, atol=1e-6)


def test_zero_vectors_leave_the_slot_and_nan_surfaces():
    keys = update(FIRST, np.array([1, 2]), np.float32([[0, 0, 0], [1, np.nan, 0]])).keys
    np.testing.assert_allclose(keys[1], FIRST.keys[1], atol=1e-6)
    assert np.isnan(keys[2]).all() and np.isfinite(np.delete(keys, 2, axis=0)).all()


def test_bfloat16_features_and_no_gradient():
    features = jnp.asarray(RNG.normal(size=(2, DIM)), jnp.bfloat16)
    keys = update(FIRST, np.array([1, 2]), features).keys
    assert keys.dtype == jnp.float32
    np.testing.assert_allclose(keys, reference(FIRST.keys, [1, 2], np.float64(features)), atol=1e-6)
    gradient = jax.jit(jax.grad(lambda f: jnp.sum(update(FIRST, np.array([1, 2]), f).keys * 3)))(jnp.ones((2, DIM)))
    np.testing.assert_array_equal(gradient, 0)


def test_features_as_they_are_start_at_zero_and_keep_their_length():
    init, change = memory.bank(SIZE, DIM, 0.1, normalise=False)
    state = init(jax.random.key(0))
    np.testing.assert_array_equal(state.keys, 0)
    for features in (np.float32([[2, 0, 0], [9, 9, 9]]), np.float32([[0, 4, 0], [9, 9, 9]])):
        state = change(state, np.array([4, -1]), features)
    np.testing.assert_allclose(state.keys[4], [0.1 * 0.9 * 2, 0.9 * 4, 0], rtol=1e-6)
    assert not np.delete(state.keys, 4, axis=0).any()


@pytest.mark.parametrize("mode", ["shard_map", "shard_map unchecked", "pmap", "vmap"])
def test_bank_on_four_devices_equals_one(mode):
    index, features = np.array([5, 1, 5, 0, 1, -1, 3, 5]), np.float32(RNG.normal(size=(8, DIM)))  # devices meet in slots 5 and 1
    expected = update(FIRST, index, features).keys
    many = partial(update, axis_name="data")
    if mode.startswith("shard_map"):
        mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P("data")), out_specs=jax.P())
        got = jax.jit(jax.shard_map(many, mesh=mesh, check_vma=mode == "shard_map", **specs))(FIRST, index, features).keys[None]
    else:
        mapped = jax.pmap if mode == "pmap" else jax.vmap
        got = mapped(many, axis_name="data", in_axes=(None, 0, 0))(FIRST, index.reshape(DEVICES, 2), features.reshape(DEVICES, 2, DIM)).keys
    for keys in np.asarray(got):
        np.testing.assert_allclose(keys, expected, atol=1e-6)
        np.testing.assert_array_equal(keys, got[0])


@pytest.mark.filterwarnings("error")
def test_an_update_with_64_bits_mixes_no_integers():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        init, update = memory.bank(4, 2, momentum=0.0, normalise=False)
        assert update(init(jax.random.key(0)), np.array([1, 1, -1]), np.arange(6.0).reshape(3, 2)).keys.tolist() == [[0, 0], [2, 3], [0, 0], [0, 0]]


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="momentum must be at least 0 and at most 1, got 1.5"):
        memory.bank(SIZE, DIM, 1.5)
    with pytest.raises(TypeError, match="momentum must be a number, got 'half'"):
        memory.bank(SIZE, DIM, "half")
    with pytest.raises(ValueError, match="size must be at least 1"):
        memory.bank(0, DIM, 0.5)
    bank = memory.bank(SIZE, DIM, 0.5)
    with pytest.raises(TypeError, match="key must be a PRNG key"):
        bank.init("key")
    with pytest.raises(TypeError, match="index must have dtype int, got float32"):
        bank.update(FIRST, jnp.zeros(2), jnp.ones((2, DIM)))
    with pytest.raises(ValueError, match=r"index must have shape \[B\] with B = 2 as in features, got \[3\]"):
        bank.update(FIRST, jnp.zeros(3, jnp.int32), jnp.ones((2, DIM)))
    with pytest.raises(ValueError, match=r"features must have shape \[B, 3\], got \[2, 4\]"):
        bank.update(FIRST, jnp.zeros(2, jnp.int32), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="axis_name='model' is not mapped here"):
        bank.update(FIRST, jnp.zeros(2, jnp.int32), jnp.ones((2, DIM)), axis_name="model")
