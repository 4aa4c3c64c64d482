"""Keys that travel round the devices of an axis, so that each meets all queries and no device holds more than two shards of them."""

import jax
import jax.numpy as jnp
from jax import lax


def around(axis_name, visit, local, start, shard, join):
    """Brings every device's shard to every other, and what was gathered on the way home.

    The next shard is sent for before the work on this one begins, so that the two can overlap. What travels starts where its shard is first away from
    home: `size - 1` hops bring a shard round and `size - 1` what was gathered back, which is the least.

    Args:
      axis_name: the mapped axis.
      visit: `(local, gathered, shard, source) -> (local, gathered)`, the work of this device on the shard of device `source`.
      local: what stays here.
      start: what is gathered, before anything was.
      shard: this device's own shard.
      join: joins what was gathered on two parts of the way.

    Returns:
      `local` after all visits, and what was gathered by this device's own shard.
    """
    size, here = lax.axis_size(axis_name), lax.axis_index(axis_name).astype(jnp.int32)
    if size == 1:
        return visit(local, start, shard, here)
    coming = _hop(shard, axis_name, size)
    local, home = visit(local, start, shard, here)

    def stop(carry, step):
        local, away, shard = carry
        coming = _hop(shard, axis_name, size)
        local, away = visit(local, away, shard, (here - step) % size)
        return (local, _hop(away, axis_name, size), coming), None

    away = start
    if size > 2:
        (local, away, coming), _ = lax.scan(stop, (local, away, coming), jnp.arange(1, size - 1, dtype=jnp.int32))
    local, away = visit(local, away, coming, (here + 1) % size)
    return local, join(home, _hop(away, axis_name, size))


def _hop(tree, axis_name, size):
    """What the device before this one holds."""

    def send(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(send(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return lax.ppermute(leaf, axis_name, [(device, (device + 1) % size) for device in range(size)])

    return jax.tree.map(send, tree)
