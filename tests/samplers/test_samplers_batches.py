"""Shuffled batches: epochs without replacement, from any step, without arithmetic that overflows."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core, samplers

KEY = jax.random.key(0)


def stream(size, batch, steps, key=KEY):
    return np.asarray(many(key, size, batch, np.arange(steps)))


@partial(jax.jit, static_argnames=("size", "batch"))
def many(key, size, batch, steps):
    return jax.vmap(lambda step: samplers.shuffled_batch(key, size, batch, step))(steps)


@pytest.mark.parametrize(("size", "batch"), [(12, 4), (7, 3)])
def test_batches_are_the_keyed_permutations_end_to_end(size, batch):
    epochs = jax.jit(jax.vmap(lambda epoch: core.permutation(jax.random.fold_in(KEY, epoch), size, jnp.arange(size))))(jnp.arange(batch))
    np.testing.assert_array_equal(stream(size, batch, 84)[:size], np.reshape(epochs, (size, batch)))  # `size` steps are `batch` whole epochs


def test_each_example_comes_once_an_epoch_and_orders_differ():
    drawn = stream(7, 3, 84).reshape(36, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in drawn.tolist())
    assert len({tuple(epoch) for epoch in drawn.tolist()}) > 34
    counts = Counter(drawn[:, 0].tolist())
    expected = 36 / 7
    assert sum((counts[i] - expected) ** 2 / expected for i in range(7)) < 22.5  # chi-square, 6 degrees of freedom: 0.1 %


def test_another_key_gives_another_order():
    other = stream(7, 3, 84, jax.random.key(1)).reshape(36, 7)
    assert (other == stream(7, 3, 84).reshape(36, 7)).all(axis=1).sum() <= 1


def test_batches_of_an_epoch_leave_the_rest_out():
    order = stream(7, 3, 84).reshape(36, 7)[5]
    np.testing.assert_array_equal(samplers.shuffled_batches(KEY, 7, 3, 5), order[:6].reshape(2, 3))


def test_epoch_and_step_agree_where_the_batch_divides_the_size():
    by_epoch = np.concatenate([samplers.shuffled_batches(KEY, 12, 4, epoch) for epoch in range(3)])
    np.testing.assert_array_equal(by_epoch, stream(12, 4, 84)[:9])


def test_traced_and_plain_steps_give_the_same_on_every_device():
    for step in (4, np.int64(4), jnp.uint8(4)):
        np.testing.assert_array_equal(samplers.shuffled_batch(KEY, 7, 3, step), stream(7, 3, 84)[4])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(lambda step: samplers.shuffled_batch(KEY, 7, 3, step), mesh=mesh, in_specs=jax.P(), out_specs=jax.P())
    np.testing.assert_array_equal(jax.jit(mapped)(jnp.int32(2)), stream(7, 3, 84)[2])


@pytest.mark.errors
@pytest.mark.parametrize("size, batch, error", [(10, 0, ValueError), (0, 1, ValueError), (10, 2.5, TypeError)])
def test_an_epoch_of_impossible_batches_is_refused(size, batch, error):
    with pytest.raises(error, match="batch must" if size else "size must"):
        samplers.steps_per_epoch(size, batch)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="batch must be at least 1 and at most 7, got 8"):
        samplers.shuffled_batch(KEY, 7, 8, 0)
    with pytest.raises(ValueError, match="size must be at least 1"):
        samplers.shuffled_batches(KEY, 0, 1, 0)
    with pytest.raises(TypeError, match="size must be an integer, got 7.0"):
        samplers.shuffled_batch(KEY, 7.0, 3, 0)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        samplers.shuffled_batch(KEY, 7, 3, -1)
    with pytest.raises(TypeError, match="epoch must have dtype int, got float32"):
        samplers.shuffled_batches(KEY, 7, 3, 0.5)
    with pytest.raises(TypeError, match="key must be a PRNG key"):
        samplers.shuffled_batch(0, 7, 3, 0)
