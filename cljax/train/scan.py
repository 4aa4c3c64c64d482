"""A run that is itself traced: a pure scan, so that `jax.vmap(run)(keys)` trains a population in one program."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cljax.train.bound import bind
from cljax.train.hooks import Hooks
from cljax.train.position import history, join
from cljax.train.program import draw_batch, strong, take_step


def scan(key, state, step, values, draw, data, hooks):
    """Trains inside of a trace; the axis "data" is bound by a `vmap` of size one.

    It is one program for equal functions, static values and shapes, as outside of a trace: the arms of a population share it.

    Args:
      key: the run's key, folded with its name.
      state: the state.
      step: the step, a `bound.Function`, with its traced `values`.
      draw: how batches are drawn from `data`, as for `program.program`.
      hooks: the hooks and the number of steps.

    Returns:
      The state and the history, as `fit` gives them.
    """
    bound = [_bound(hook) for _, hook in hooks.after]
    after = tuple((every, function) for (every, _), (function, _) in zip(hooks.after, bound, strict=True))
    return _program(step, draw, after, hooks.steps)(key, state, values, data, [values for _, values in bound])


def _bound(hook):
    try:
        return bind("hook", hook, local=True)
    except TypeError:  # it binds what cannot be compared: its program is its own
        return functools.partial(_call, hook), []


def _call(hook, values, *arguments):
    return hook(*arguments)


@functools.lru_cache(maxsize=256)
def _program(step, draw, after, steps):
    return jax.jit(functools.partial(_scan, step, draw, after, steps))


def _scan(step, draw, after, steps, key, state, values, data, of_hooks):
    hooks = Hooks(tuple((every, functools.partial(hook, bound)) for (every, hook), bound in zip(after, of_hooks, strict=True)), steps, key)
    local = jax.vmap(functools.partial(take_step, step), in_axes=(None, None, 0, None), axis_name="data", axis_size=1)

    def one(state, t):
        batch, k_step = draw_batch(draw, data, key, t)
        batch = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), batch)
        return jax.tree.map(lambda leaf: leaf[0], local(values, state, batch, k_step))

    def stretch(state, start, first, length):
        """`length` steps from `start` on, with the hooks that are due from step `first` on, which is no tracer."""
        blocks, calls, done = [], [], 0
        while done < length:
            stop = hooks.stop(first + done) - first
            state, metrics = lax.scan(one, state, start + jnp.arange(done, stop))
            blocks.append(metrics)
            for number in hooks.due(first + stop):
                state, row = hooks.call(number, start + stop, state, metrics)
                calls.append((stop, number, {name: jnp.asarray(value) for name, value in row.items()}))
            done = stop
        return state, history(join(blocks, jnp), calls, jnp)

    # The pattern of hooks repeats: it is compiled once, however often they are called.
    period = math.lcm(*(every for every, _ in hooks.after)) if hooks.after else max(1, hooks.steps)
    rounds, rest = divmod(hooks.steps, period)
    state, parts = jax.tree.map(strong, state), []
    if rounds:
        state, part = lax.scan(lambda state, start: stretch(state, start, 0, period), state, period * jnp.arange(rounds))
        parts.append(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), part))
    if rest:
        state, part = stretch(state, rounds * period, rounds * period, rest)
        parts.append(part)
    return state, join(parts, jnp)
