"""Labels come in over rounds: each example has its first one, and those without stand in front."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory, samplers

SIZE, BUDGET, DEVICES = 9, 5, 4
LABELS = memory.labels(SIZE, BUDGET)
update = jax.jit(LABELS.update, static_argnames="axis_name")


def reference(rounds):
    """Example by example."""
    found = {}
    for index, labels in rounds:
        last = {i: place for place, i in enumerate(index)}
        for place, (i, label) in enumerate(zip(index, labels, strict=True)):
            if 0 <= i < SIZE and last[i] == place and i not in found and len(found) < BUDGET:
                found[i] = label
    return found


def test_rounds_of_labels_follow_one_another_in_one_program():
    rounds = [([3, 8], [1, 0]), ([0, 5], [2, 2])]
    state = LABELS.init()
    for index, labels in rounds:
        state = update(state, jnp.array(index), jnp.array(labels))
    assert state.index.tolist() == [3, 8, 0, 5, -1] and state.labels.tolist() == [1, 0, 2, 2, 0] and int(state.count) == 4
    assert np.flatnonzero(state.has).tolist() == [0, 3, 5, 8] and state.order.tolist() == [1, 2, 4, 6, 7, 0, 3, 5, 8]
    assert update._cache_size() == 1


@pytest.mark.parametrize(
    "rounds",
    [
        [([3, -1], [1, 4]), ([9, 2], [5, 6])],  # outside of the pool
        [([3, 2], [1, 4]), ([3, 6], [8, 6])],  # a second label
        [([4, 4, 1], [1, 2, 3])],  # twice in a round
        [([0, 1, 2, 3], [1, 1, 1, 1]), ([4, 5, 6], [2, 2, 2])],  # more than the budget
    ],
)
def test_rows_outside_known_ones_and_what_is_over_the_budget_are_left_out(rounds):
    state = LABELS.init()
    for index, labels in rounds:
        state = update(state, jnp.array(index), jnp.array(labels))
    expected = reference(rounds)
    count = int(state.count)
    assert dict(zip(state.index[:count].tolist(), state.labels[:count].tolist(), strict=True)) == expected and count == len(expected)
    assert (state.index[count:] == -1).all() and sorted(state.order.tolist()) == list(range(SIZE))
    assert set(state.order[: SIZE - count].tolist()) == set(range(SIZE)) - set(expected)


def test_an_epoch_of_each_part_shows_all_of_it_once():
    state = update(LABELS.init(), jnp.array([7, 2, 4]), jnp.array([1, 0, 1]))
    draw = jax.jit(samplers.shuffled_rows)
    known, free = (draw(jax.random.key(0), count, jnp.arange(6)) for count in (state.count, SIZE - state.count))
    assert sorted(state.index[known].tolist()) == [2, 2, 4, 4, 7, 7] and sorted(state.order[free].tolist()) == [0, 1, 3, 5, 6, 8]


def test_the_rows_of_all_devices_are_taken():
    index, labels = jnp.array([3, 8, 0, 5]), jnp.array([1, 0, 2, 2])
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(mesh=mesh, in_specs=(jax.P(), jax.P("data"), jax.P("data")), out_specs=jax.P())
    found = jax.jit(jax.shard_map(partial(LABELS.update, axis_name="data"), **specs))(LABELS.init(), index, labels)
    jax.tree.map(np.testing.assert_array_equal, found, update(LABELS.init(), index, labels))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: memory.labels(0, 1), ValueError, "size"),
        (lambda: memory.labels(3, 4), ValueError, "budget must be at least 1 and at most 3, got 4"),
        (lambda: memory.labels(3, 1.5), TypeError, "budget"),
        (lambda: LABELS.update(LABELS.init(), jnp.ones(2), jnp.ones(2, int)), TypeError, "index"),
        (lambda: LABELS.update(LABELS.init(), jnp.ones(2, int), jnp.ones(3, int)), ValueError, "labels"),
        (lambda: LABELS.update(memory.labels(3, 1).init(), jnp.ones(2, int), jnp.ones(2, int)), ValueError, "state.index"),
        (lambda: LABELS.update(LABELS.init(), jnp.ones(2, int), jnp.ones(2, int), axis_name="data"), ValueError, "axis_name"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
