"""Memories side by side are what each would be alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import memory

CLUSTERS = memory.cluster_memory(9, 2, 2, restarts=2)
THREE = memory.stacked(CLUSTERS, 3)


def test_each_is_what_it_would_be_alone():
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 4, 2)), jnp.float32)
    state = THREE.init(jax.random.key(0))
    alone = [CLUSTERS.init(key) for key in jax.random.split(jax.random.key(0), 3)]
    update, one = jax.jit(THREE.update), jax.jit(CLUSTERS.update)
    for step, batch in enumerate(rows):
        keys, ids = jax.random.split(jax.random.key(step), 3), jnp.arange(4)
        state = update(state, batch, keys, ids=ids)
        alone = [one(memory, row, key, ids=ids) for memory, row, key in zip(alone, batch, keys, strict=True)]
    assert state.started.all()
    jax.tree.map(lambda x, *y: np.testing.assert_allclose(x, jnp.stack(y), atol=1e-6), state, *alone)


def test_rows_of_all_devices_go_into_each():
    queues = memory.stacked(memory.queue(8, 2), 2)
    rows, mesh = jnp.arange(16.0).reshape(2, 4, 2), jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), jax.P(None, "data")), out_specs=jax.P())
    found = jax.jit(jax.shard_map(partial(queues.update, axis_name="data"), mesh=mesh, **specs))(queues.init(jax.random.key(0)), rows)
    np.testing.assert_array_equal(found.keys[:, :4], rows)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(TypeError, match="memory must be a Memory, got int"):
        memory.stacked(3, 2)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        memory.stacked(CLUSTERS, 0)
