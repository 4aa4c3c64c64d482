"""Training: takes steps in one compiled loop, with hooks, logs and checkpoints between its chunks."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from cljax.core.check import KeyLike
from cljax.train.arguments import as_arrays, check_options, check_state, one_key, open_data
from cljax.train.bound import bind
from cljax.train.devices import check_batch, current_mesh, own, replicate, scatter
from cljax.train.hooks import Hooks
from cljax.train.logs import open_logs, write_table
from cljax.train.position import Position, history
from cljax.train.program import program
from cljax.train.scan import scan
from cljax.train.signals import leave, stop_signals
from cljax.train.store import open_store


def fit(
    key: KeyLike,
    state: PyTree,
    step: Callable,
    data: Any,
    *,
    steps: int,
    after: Sequence[tuple[int, Callable]] = (),
    name: str = "fit",
    shared: bool = False,
    folder: str | os.PathLike | None = None,
    chunk: int = 100,
    save_seconds: float | int = 30,
    progress: bool = True,
    log: Callable | None = None,
) -> tuple[PyTree, dict[str, Array | np.ndarray]]:
    """Takes `steps` training steps, $(s_{t+1}, m_t) = step(s_t, b_t, k_t)$, in one compiled loop.

    Step t gets a key folded from `key`, `name` and t, split for the draw of its batch and for the step itself: a run that was stopped and started
    again repeats an uninterrupted one bit for bit.

    The step runs inside `jax.shard_map` over the axis "data": the batch is drawn globally, each device works on its slice of the leading axis, the
    state is the same on all. It is mapped with `check_vma=False`, so gradients of parameters must be averaged over the axis, as `descend` does. The
    devices are those of the mesh set by `jax.set_mesh` if it has an axis "data", else all accelerators, else one CPU device.

    With a traced key, state, bound value or array all this is a pure scan without files, logs and progress, and `jax.vmap(run)(keys)` trains a
    population.

    Args:
      key: one PRNG key.
      state: any pytree of arrays: parameters, optimiser states, memories. It is copied; the caller's arrays stay valid.
      step: `step(state, batch, key) -> state, metrics`, a top-level function with values bound by `functools.partial`: arrays and Python floats are
        traced, all else is static and must be hashable; two that differ in traced values share a program. `metrics` are numbers or arrays by name, or
        None; they are averaged over the devices. The state keeps its shapes and dtypes; the step may change its dict in place.
      data: `draws(arrays, draw)`, or an iterator of batches, fed one at a time: arrays, or what turns into numpy arrays, as the tensors of other
        libraries do. To be resumed an iterator needs `get_state` and `set_state`.
      steps: the number of steps.
      after: pairs `(every, hook)`. `hook(key, state) -> state, metrics` is called outside of the compiled loop after every `every` steps and after
        the last one, before a save.
      name: separates the randomness and the checkpoints of the stages of a run; it names a folder.
      shared: keep the stage's checkpoints where all cells of a study find them (`OUT/shared`), keyed by the content of all that it depends on: code,
        bound values, state, arrays, key, steps.
      folder: where `<name>/` with checkpoints, `metrics.csv` and TensorBoard events goes; None keeps nothing. A finished stage found there is read,
        not run; one that was stopped goes on, also to more steps than before. It is refused where a bound value, an array, the key or the shapes of
        the state differ; other code gives a warning; the first values of `state` and what functions close over are not looked at.
      chunk: the most steps that one call of the compiled loop takes; it takes fewer where they last long. Signals, saves and logs wait for its end,
        no bit depends on it.
      save_seconds: the time between two checkpoints. There is one at the end too, when SIGTERM or SIGINT arrives (in the main thread), and when a
        hook or `log` raises.
      progress: show a bar.
      log: called as `log(step, {name: float})` for every step, the first being 1, while the next chunk runs.

    Returns:
      `(state, history)`. History has the step's metrics as `[steps, ...]` and each hook's as `[calls, ...]`, numpy arrays by name.

    Raises:
      TypeError: an argument of the wrong kind.
      ValueError: a step that is defined inside another function, a batch that does not divide among the devices, a step or hook that changes the
        state's shapes, a folder that can't be written to, or that holds a checkpoint of another run, of more steps, or a damaged one.
      SystemExit: after a SIGTERM, once the checkpoint is saved.
    """
    check_options(steps, after, name, chunk, save_seconds, folder, log)
    key = one_key(key)
    check_state(state)
    function, values = bind("step", step)
    draw, source = open_data(data)
    base = jax.random.fold_in(key, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))
    hooks = Hooks(after, steps, base)

    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, state, values, source))):
        if draw is None:
            raise ValueError("data must be train.draws(arrays, draw) where fit is traced: an iterator runs outside of compiled code")
        return scan(base, state, function, values, draw, source, hooks)

    mesh = current_mesh()
    values, source, base = replicate(mesh, (values, source, base))
    state, position, store = own(mesh, state), Position(), None
    if folder is not None:
        folder = Path(folder).absolute() / name
        store = open_store(folder, shared, save_seconds, key, state, step, data, hooks)
        state = store.resume(state, position, hooks)
        if position.step == steps and not position.pending(hooks):
            write_table(folder / "metrics.csv", position)
            return state, history(position.metrics(), position.calls)

    drawn = draw is not None
    advance = _drawn(mesh, function, values, draw, source, base, state, chunk) if drawn else _fed(mesh, function, values, data, base)
    logs = open_logs(position, name=name, steps=steps, folder=folder, progress=progress, log=log)
    with logs as show, stop_signals(store is not None) as received:
        state = _train(advance, state, position, hooks, store, show, received, mesh, chunk)
    if received:
        leave(received)
    return state, history(position.metrics(), position.calls)


def _train(advance, state, position, hooks, store, show, received, mesh, chunk):
    """Moves `position` on to the last step, or to where a signal was received, and gives the state there."""
    whole, length = True, 1
    try:
        while not received:
            pending = position.pending(hooks)
            if store is not None and pending and hooks.extra(position.step):
                store.save(state, position)  # a run to more steps calls no hook here: it can go on from this
            for number in pending:
                state, row = hooks.call(number, position.step, state, position.names())
                position.calls.append((position.step, number, {name: np.asarray(value) for name, value in row.items()}))
            if pending:
                state = own(mesh, state)  # a hook may have kept what it was given, and the next chunk writes into it
            if position.step == hooks.steps:
                break
            if store is not None and store.is_due():
                store.save(state, position)
            started, before, whole = time.monotonic(), position.step, False
            state, metrics, count = advance(state, before, min(hooks.stop(before), before + length))
            position.add(metrics, count)
            whole = True
            show(before)  # the steps of the chunk before, while this one runs
            length = min(chunk, 2 * length) if time.monotonic() - started < 1 else max(1, length // 2)
        show(position.step)
    finally:  # also where a hook or a log raises
        if store is not None and whole:
            store.save(state, position)
    return state


def _drawn(mesh, function, values, draw, source, key, state, chunk):
    """`advance(state, start, stop) -> state, metrics, count` with batches that are drawn inside of the program."""
    with jax.set_mesh(mesh):
        run = program(function, draw, mesh, chunk, values, state, source, key)

    def advance(state, start, stop):
        with jax.set_mesh(mesh):
            state, metrics = run(values, state, source, key, start, stop - start)
        return state, metrics, stop - start

    return advance


def _fed(mesh, function, values, batches, key):
    """`advance` with batches of an iterator; the count is short where they come to an end."""

    def advance(state, start, stop):
        rows = []
        for step in range(start, stop):
            batch = next(batches, None)
            if batch is None:
                break
            batch = as_arrays(batch)
            check_batch(batch, mesh.shape["data"])
            batch = scatter(mesh, batch)
            with jax.set_mesh(mesh):
                run = program(function, None, mesh, 1, values, state, batch, key)
                state, metrics = run(values, state, batch, key, step, 1)
            rows += metrics
        if not rows:
            raise ValueError(
                f"data ended after {start} steps: it must give a batch for each step; "
                "a loader of one epoch goes on for ever as itertools.chain.from_iterable(itertools.repeat(loader))"
            )
        return state, rows, len(rows)

    return advance
