"""An EMA blends by its decay, in enough precision, and keeps the tree as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory


def run(decay, values, dtype=jnp.float32):
    init, update = memory.ema(decay)
    state = init({"w": jnp.asarray(values[0], dtype)})
    for value in values[1:]:
        state = update(state, {"w": jnp.asarray(value, dtype)})
    return state


def test_three_steps_from_one_towards_three():
    state = run(0.9995, [1.0, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(state.params["w"], 1.0029985, rtol=2e-7)
    assert int(state.step) == 3


def test_decay_zero_copies_and_decay_one_freezes():
    assert float(run(0.0, [0.1, 0.7]).params["w"]) == np.float32(0.7)
    assert float(run(1.0, [0.1, 0.7]).params["w"]) == np.float32(0.1)


def test_a_constant_stays_what_it_is_over_many_steps():
    init, update = memory.ema(0.9999)
    params = {"w": jnp.float32(0.7)}
    state = jax.jit(lambda state: jax.lax.fori_loop(0, 20_000, lambda _, s: update(s, params), state))(init(params))
    np.testing.assert_allclose(state.params["w"], 0.7, rtol=2e-5)


def test_a_function_of_the_step_sees_zero_first():
    np.testing.assert_allclose(run(lambda step: 1 - 1 / (step + 2.0), [1.0, 2.0, 6.0, 3.0]).params["w"], 3.0, rtol=1e-6)  # the mean of all values


def test_a_rising_decay_goes_along_a_half_cosine_and_stays_at_one():
    decay = jax.jit(lambda start, steps, t: memory.rising_decay(start, steps)(t))
    np.testing.assert_allclose(decay(0.99, 100, np.array([0, 50, 100, 300])), [0.99, 0.995, 1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(decay(0.5, 8.0, 2), 1 - 0.5 * (1 + np.sqrt(0.5)) / 2, atol=1e-6)
    init, update = memory.ema(memory.rising_decay(0.5, 2))
    state = update(update(init({"w": 0.0}), {"w": 1.0}), {"w": 1.0})
    np.testing.assert_allclose(state.params["w"], 1 - 0.5 * 0.75, atol=1e-6)  # decays 0.5 and 0.75


def test_traced_decay_gives_the_same():
    got = jax.jit(lambda decay: run(decay, [1.0, 3.0, 5.0]).params["w"])(0.75)
    np.testing.assert_allclose(got, 0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 5, rtol=1e-6)


def test_dtype_is_kept_and_the_blend_is_made_in_float32():
    state = run(0.9, [1.0, 2.0], jnp.bfloat16)
    assert state.params["w"].dtype == jnp.bfloat16
    assert float(state.params["w"]) == float(jnp.bfloat16(1.1))


def test_counters_are_copied():
    init, update = memory.ema(0.9)
    state = update(init({"count": jnp.int32(3), "on": np.True_}), {"count": jnp.int32(4), "on": np.False_})
    assert (int(state.params["count"]), state.params["count"].dtype, bool(state.params["on"])) == (4, jnp.int32, False)


def test_state_shares_no_buffer_with_the_parameters():
    params = {"w": jnp.ones(3)}
    state = memory.ema(0.5).init(params)
    donated = jax.jit(lambda params, state: (params, memory.ema(0.5).update(state, params)), donate_argnums=(0, 1))
    np.testing.assert_array_equal(donated(params, state)[1].params["w"], 1)


def test_no_gradient_reaches_the_parameters_and_nan_surfaces():
    init, update = memory.ema(0.5)
    state = init(jnp.ones(2))
    np.testing.assert_array_equal(jax.grad(lambda p: jnp.sum(update(state, p).params))(jnp.ones(2)), 0)
    np.testing.assert_array_equal(update(state, jnp.array([jnp.nan, 3.0])).params, [np.nan, 2])


def test_averages_are_stacked_by_vmap_and_stay_replicated():
    init, update = memory.ema(0.5)
    state = init({"w": jnp.zeros(2)})
    got = jax.vmap(lambda value: update(state, {"w": value}).params["w"])(jnp.array([[2.0, 4.0], [6.0, 8.0]]))
    np.testing.assert_array_equal(got, [[1, 2], [3, 4]])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated = jax.shard_map(update, mesh=mesh, in_specs=(jax.P(), jax.P()), out_specs=jax.P())
    np.testing.assert_array_equal(replicated(state, {"w": jnp.full(2, 4.0)}).params["w"], 2)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="decay must be at least 0 and at most 1, got 1.1"):
        memory.ema(1.1)
    with pytest.raises(TypeError, match="decay must be a number, got '0.9'"):
        memory.ema("0.9")
    init, update = memory.ema(0.9)
    state = init({"w": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match="params must have the structure of state.params"):
        update(state, {"v": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match=r"params\['w'\] must have shape \[2, 3\] as in state.params, got \[3, 2\]"):
        update(state, {"w": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match=r"decay\(step\) must be at least 0 and at most 1, got 2"):
        memory.ema(lambda step: 2.0).update(state, {"w": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match="start must be at least 0 and at most 1, got 2"):
        memory.rising_decay(2.0, 10)
    with pytest.raises(ValueError, match="steps must be greater than 0, got 0"):
        memory.rising_decay(0.5, 0)
