"""Where a run takes place: a mesh with an axis "data", and how arrays get there."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def current_mesh():
    """The mesh set by `jax.set_mesh` if it has an axis "data"; else all accelerators, or one CPU device a process, or the device set as the default.

    Virtual CPU devices share the same cores, so several of them are used only where a mesh asks for it.
    """
    mesh = _set_mesh()
    if "data" in mesh.axis_names:
        return mesh
    if jax.config.jax_default_device is not None:
        return Mesh(np.array([jnp.zeros(()).devices().pop()]), ("data",))
    devices = jax.devices()
    return Mesh(np.array(devices[:: jax.local_device_count()] if devices[0].platform == "cpu" else devices), ("data",))


def _set_mesh():
    if hasattr(jax.sharding, "get_mesh"):  # not in jax 0.7.2, where an array has to tell
        return jax.sharding.get_mesh()
    if not jax.sharding.get_abstract_mesh().axis_names:
        return Mesh(np.empty((), object), ())
    return jax.jit(lambda: jnp.zeros(()), out_shardings=P())().sharding.mesh


def replicate(mesh, tree):
    """Puts every array of `tree` on all devices; Python floats stay, they take their dtype from what they meet."""
    there = NamedSharding(mesh, P())
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, float) else put(leaf, there), tree)


def own(mesh, state):
    """A copy of `state` on all devices that nobody else holds, so that a program may write into it."""
    there = NamedSharding(mesh, P())
    return jax.tree.map(lambda leaf: put(jnp.array(leaf, dtype=jnp.result_type(leaf)), there), state)


def put(leaf, there):
    """Puts an array where a sharding says. Of what other processes share, each puts its own from the host: `device_put` refuses keys and devices."""
    if there.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, there)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(leaf), there), impl=jax.random.key_impl(leaf))
    return jax.device_put(np.asarray(leaf), there)


def scatter(mesh, batch):
    """Puts a batch on the devices, a slice of its leading axis on each."""
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(NamedSharding(mesh, slices(leaf)), np.asarray(leaf)), batch)


def slices(leaf):
    """How a leaf of a batch is spread: by its leading axis, a scalar not at all."""
    return P("data") if jnp.ndim(leaf) else P()


def check_batch(batch, devices):
    """Raises ValueError unless each device gets the same number of rows of every array of the batch."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if jnp.ndim(leaf) and jnp.shape(leaf)[0] % devices:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)} has {jnp.shape(leaf)[0]} rows, which do not divide among {devices} devices: "
                'take another batch size, or fewer devices: with jax.set_mesh(jax.make_mesh((1,), ("data",))): ...'
            )
