"""The compiled form of a step: traced once a process for equal functions, static values and shapes, whoever bound them."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cljax.train.devices import check_batch, slices
from cljax.train.draws import DATA_STREAM, epochs
from cljax.train.loops import slow_in_a_loop


class Program(NamedTuple):
    """A compiled step, `run(values, state, data, key, t)`, or where `looped` a loop over steps, `run(values, state, data, key, t, count)`."""

    run: Callable
    looped: bool

    def __call__(self, values, state, data, key, t, count):
        """Takes `count` steps from step `t` on: the state, which replaces the given one, and metrics `{name: [>= count, ...]}` or a list of dicts."""
        if self.looped:
            return self.run(values, state, data, key, np.int32(t), np.int32(count))
        metrics = []
        for step in range(t, t + count):
            state, row = self.run(values, state, data, key, np.int32(step))
            metrics.append(row)
            if len(metrics) > 2:  # else all steps would be queued at once, and a signal would have to wait for them
                jax.block_until_ready(metrics[-3])
        return state, metrics


def program(step, draw, mesh, chunk, *arguments):
    """The program that takes steps on `arguments = (values, state, data, key)`, which are arrays on the devices of `mesh`.

    Args:
      step: the step, a `bound.Function`.
      draw: rows of a batch, or the function of the data's draw and its values as part of `data`; None where `data` is the batch itself.
      mesh: the devices.
      chunk: steps that one call of a loop can take.
    """
    leaves, structure = jax.tree.flatten(arguments)
    return _program(step, draw, mesh, chunk, structure, tuple(map(jax.typeof, leaves)))


@functools.lru_cache(maxsize=256)
def _program(step, draw, mesh, chunk, structure, kinds):
    def one(values, state, data, key, t):
        batch, key = draw_batch(draw, data, key, t)
        check_batch(batch, mesh.shape["data"])
        spread = jax.tree.map(slices, batch)
        if AxisType.Explicit in mesh.axis_types:
            batch = jax.tree.map(jax.sharding.reshard, batch, spread)
        local = functools.partial(take_step, step)
        # Under check_vma=True a scan whose carry starts from constants, a gathered memory or a kernel does not trace, not even on one device.
        sharded = jax.shard_map(local, mesh=mesh, in_specs=(P(), P(), spread, P()), out_specs=(P(), P()), check_vma=False)
        return sharded(values, state, batch, key)

    values, state, data, key = jax.tree.unflatten(structure, kinds)
    # The step is traced here and nowhere else; what is compiled below replays the trace.
    trace, shapes = jax.make_jaxpr(one, return_shape=True)(values, state, data, key, jax.ShapeDtypeStruct((), jnp.int32))
    state_shapes, metric_shapes = shapes

    def replay(*arguments):
        return jax.tree.unflatten(jax.tree.structure(shapes), jaxpr_as_fun(trace)(*jax.tree.leaves(arguments)))

    def loop(values, state, data, key, first, count):
        def body(i, carry):
            state, metrics = carry
            state, row = replay(values, state, data, key, first + i)
            return state, jax.tree.map(lambda rows, value: rows.at[i].set(value), metrics, row)

        metrics = jax.tree.map(lambda shape: jnp.zeros((chunk, *shape.shape), shape.dtype), metric_shapes)
        return lax.fori_loop(0, count, body, (state, metrics))

    looped = draw is not None and not slow_in_a_loop(lambda: trace, mesh.devices.flat[0].platform)
    return Program(jax.jit(loop if looped else replay, donate_argnums=1, out_shardings=NamedSharding(mesh, P())), looped)


def draw_batch(draw, data, key, t):
    """The batch of step `t` and the step's own key."""
    k_draw, k_step = jax.random.split(jax.random.fold_in(key, t))
    if draw is None:
        return data, k_step
    values, arrays = data
    if isinstance(draw, int):
        return epochs(jax.random.fold_in(key, DATA_STREAM), arrays, draw, t), k_step
    return draw(values, k_draw, arrays, t), k_step


def take_step(step, values, state, batch, key):
    """Takes one step where the axis "data" is bound: the state keeps its shapes and dtypes, the metrics are averaged over the devices."""
    result = step(values, state, batch, key)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise ValueError(f"step must return (state, metrics), got {type(result).__name__}")
    after, metrics = result
    check_metrics("step", metrics)
    after = keep(state, after, "step")
    return after, {name: lax.pmean(_at_least_float32(value), "data") for name, value in (metrics or {}).items()}


def keep(before, after, who):
    """`after` with the dtypes of `before`; raises ValueError where its structure, a shape or a dtype differs."""
    old, new = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (before, after))
    for path in [*old, *new]:
        if path not in new or path not in old:
            raise ValueError(f"{who} must keep the structure of the state: it {'drops' if path in old else 'adds'} state{jax.tree_util.keystr(path)}")
        was, now = (f"{jnp.result_type(tree[path])}{list(jnp.shape(tree[path]))}" for tree in (old, new))
        if was != now:
            raise ValueError(f"{who} must keep shapes and dtypes of the state: state{jax.tree_util.keystr(path)} was {was} and becomes {now}")
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(f"{who} must keep the structure of the state: {jax.tree.structure(before)} becomes {jax.tree.structure(after)}")
    return jax.tree.map(strong, after)


def strong(value):
    """The value as an array of its own dtype: a Python number's depends on what it meets, and a loop's carry may not change."""
    value = jnp.asarray(value)
    return value if jnp.issubdtype(value.dtype, jax.dtypes.extended) else lax.convert_element_type(value, value.dtype)


def check_metrics(who, metrics):
    """Raises unless `metrics` is None or a flat dict of numbers by name."""
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"{who} must return metrics as a dict, got {type(metrics).__name__}")
    for name, value in (metrics or {}).items():
        if not isinstance(name, str) or not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float)):
            raise TypeError(f"{who} must return metrics by name that are numbers or arrays, got {name!r}: {type(value).__name__}")


def _at_least_float32(value):
    return jnp.asarray(value).astype(jnp.promote_types(jnp.result_type(value), jnp.float32))
