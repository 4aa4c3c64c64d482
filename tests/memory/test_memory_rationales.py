"""A memory of rationales holds what was written last for each example, on one device or many."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory, train

SIZE, LENGTH = 5, 3
MEMORY = memory.rationales(SIZE, LENGTH, filler=9)
RNG = np.random.default_rng(0)


def reference(state, index, tokens, correct):
    new = [np.array(leaf) for leaf in state]
    for i, row, right in zip(index, tokens, correct, strict=True):
        if 0 <= i < SIZE:
            new[0][i], new[1][i] = row, right
    return new


def test_an_empty_memory_holds_nothing_that_is_right():
    state = MEMORY.init()
    assert (state.tokens == 9).all() and state.tokens.dtype == jnp.int32 and not state.correct.any()


@pytest.mark.parametrize("index", [[4, 0, 2], [3, 3, 3], [-1, 5, 1]])
def test_rows_are_written_by_index_and_the_last_of_equal_ones_stands(index):
    tokens, correct = RNG.integers(0, 9, (3, LENGTH)), np.array([True, True, False])
    before = MEMORY.update(MEMORY.init(), np.arange(SIZE), RNG.integers(0, 9, (SIZE, LENGTH)), np.arange(SIZE) % 2 == 0)
    for got, expected in zip(
        jax.jit(MEMORY.update)(before, np.array(index), tokens, correct), reference(before, index, tokens, correct), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("mode", ["shard_map", "shard_map unchecked", "vmap"])
def test_four_devices_write_what_one_does(mode):
    index, tokens, correct = np.array([4, 1, 4, 0, 1, -1, 3, 4]), RNG.integers(0, 9, (8, LENGTH)), RNG.random(8) < 0.5
    many, state = partial(MEMORY.update, axis_name="data"), MEMORY.init()
    if mode == "vmap":
        got = jax.vmap(many, axis_name="data", in_axes=(None, 0, 0, 0))(
            state, index.reshape(4, 2), tokens.reshape(4, 2, LENGTH), correct.reshape(4, 2)
        )
        got = jax.tree.map(lambda leaf: leaf[3], got)
    else:
        mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), *(jax.P("data"),) * 3), out_specs=jax.P(), check_vma=mode == "shard_map")
        got = jax.jit(jax.shard_map(many, mesh=mesh, **specs))(state, index, tokens, correct)
    for leaf, expected in zip(got, reference(state, index, tokens, correct), strict=True):
        np.testing.assert_array_equal(leaf, expected)


def write(state, batch, key):
    """A step of training that does nothing but write."""
    return MEMORY.update(state, batch["index"], batch["tokens"], batch["index"] > 1, axis_name="data"), {"right": state.correct.mean()}


def test_a_memory_is_saved_and_goes_on_example_by_example(tmp_path):
    tokens = jnp.asarray(RNG.integers(0, 9, (SIZE, LENGTH)))
    take = partial(train.fit, jax.random.key(0), MEMORY.init(), write, train.draws({"tokens": tokens}, 2), progress=False)
    half, _ = take(steps=1, folder=tmp_path)
    assert int((half.tokens != 9).any(axis=1).sum()) == 2
    for got, expected in zip(take(steps=3, folder=tmp_path)[0], take(steps=3)[0], strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(take(steps=3)[0].tokens, tokens)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        memory.rationales(0, 2)
    state, index = MEMORY.init(), np.arange(2)
    with pytest.raises(ValueError, match=r"tokens must have shape \[B, 3\], got \[2, 4\]"):
        MEMORY.update(state, index, np.ones((2, 4), int), np.ones(2, bool))
    with pytest.raises(TypeError, match="correct must have dtype bool"):
        MEMORY.update(state, index, np.ones((2, 3), int), np.ones(2))
    with pytest.raises(ValueError, match="axis_name='data' is not mapped here"):
        MEMORY.update(state, index, np.ones((2, 3), int), np.ones(2, bool), axis_name="data")
