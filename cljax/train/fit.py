"""Training: takes steps in one compiled loop, with hooks, logs and checkpoints between its chunks."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from cljax.core.check import KeyLike
from cljax.train.arguments import as_arrays, check_alive, check_options, check_state, one_key, open_data
from cljax.train.bound import bind
from cljax.train.devices import check_batch, current_mesh, own, replicate, scatter
from cljax.train.hooks import Hooks
from cljax.train.logs import open_logs, write_table
from cljax.train.position import Position, history
from cljax.train.processes import is_first, together
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
    nan: str = "stop",
) -> tuple[PyTree, dict[str, Array | np.ndarray]]:
    """Takes `steps` training steps, $(s_{t+1}, m_t) = step(s_t, b_t, k_t)$, in one compiled loop.

    Step t gets a key folded from `key`, `name` and t, split for the draw of its batch and for the step itself: a run that was stopped and started
    again repeats an uninterrupted one bit for bit.

    The step runs inside `jax.shard_map` over the axis "data": the batch is drawn globally, each device works on its slice of the leading axis, the
    state is the same on all. It is mapped with `check_vma=False`, so gradients of parameters must be averaged over the axis, as `descend` does. The
    devices are those of the mesh set by `jax.set_mesh` if it has an axis "data", else all accelerators, else one CPU device a process. Where several
    processes train as one (`join`), each calls `fit` alike, an iterator gives each its own rows, and the first process alone shows and writes.

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
      folder: where `<name>/` with checkpoints, `metrics.csv` and TensorBoard events goes; None keeps nothing. One process at a time writes to it. A
        finished stage found there is read, not run; one that was stopped goes on, also to more steps than before. Where a bound value, an array, the
        key or the shapes of the state differ, or the source of the step, the draw, a hook or cljax does, a half-done stage is kept in `aside-1` and
        a warning says what changed; a finished one is refused, or where only source differs read with a warning. The first values of `state` and
        what functions close over are not looked at. A damaged checkpoint is named, left where it is, and the one before it is used.
      chunk: the most steps that one call of the compiled loop takes; it takes fewer where they last long. Signals, saves and logs wait for its end,
        no bit depends on it.
      save_seconds: the time between two checkpoints, which are written while training goes on. There is one at the end too, when SIGTERM or SIGINT
        arrives (in the main thread), and when a hook or `log` raises.
      progress: show a bar.
      log: called as `log(step, {name: float})` for every step, the first being 1, while the next chunk runs.
      nan: "stop" raises where a metric of the step (not of a hook) has a NaN, which is noticed at the end of the next chunk, and saves nothing of it;
        "keep" goes on. A traced run goes on in any case.

    Returns:
      `(state, history)`. History has the step's metrics as `[steps, ...]` and each hook's as `[calls, ...]`, numpy arrays by name.

    Raises:
      TypeError: an argument of the wrong kind.
      ValueError: a step that is defined inside another function, an array that was donated or deleted, a batch that does not divide among the
        devices, a step or hook that changes the state's shapes, a folder that can't be written to, that another process writes to, or that holds
        another finished run, one of more steps, or only damaged checkpoints.
      OSError: a checkpoint or log can't be written: the disk is full, or the folder gone. What was saved before stays.
      FloatingPointError: a NaN, with its metric and step.
      SystemExit: after a SIGTERM (status 143) or SIGINT (130, also a KeyboardInterrupt), once the checkpoint is saved and a line has said so.
    """
    check_options(steps, after, name, chunk, save_seconds, folder, log, nan)
    key = one_key(key)
    check_state(state)
    function, values = bind("step", step)
    draw, source = open_data(data)
    check_alive(key=key, state=state, step=values, data=source)
    base = jax.random.fold_in(key, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))
    hooks = Hooks(after, steps, base)

    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, state, values, source))):
        if draw is None:
            raise ValueError("data must be train.draws(arrays, draw) where fit is traced: an iterator runs outside of compiled code")
        return scan(base, state, function, values, draw, source, hooks)

    mesh = current_mesh()
    values, source, base = replicate(mesh, (values, source, base))
    state, position = own(mesh, state), Position()
    progress, log = (progress, log) if is_first() else (False, None)
    place = None if folder is None else Path(folder).absolute() / name
    with stop_signals(place is not None) as received:
        stage = nullcontext() if place is None else open_store(place, shared, save_seconds, key, state, step, data, hooks)
        with stage as store:
            if store is not None:
                state = store.resume(state, position)
            if store is not None and position.step == steps and not position.pending(hooks):
                if is_first():
                    write_table(place / "metrics.csv", position)
            else:
                drawn = draw is not None
                advance = _drawn(mesh, function, values, draw, source, base, state, chunk) if drawn else _fed(mesh, function, values, data, base)
                with open_logs(position, name=name, steps=steps, folder=place if is_first() else None, progress=progress, log=log) as show:
                    state = _train(advance, state, position, hooks, store, _watched(position, show, name, nan), received, mesh, chunk)
    if received:
        leave(received, f"after step {position.step} of {steps} of {str(place)!r}, which is saved: the same command goes on from there")
    return state, history(position.metrics(), position.calls)


def _train(advance, state, position, hooks, store, watch, received, mesh, chunk):
    """Moves `position` on to the last step, or to where a signal was received, and gives the state there."""
    whole, length = True, 1
    try:
        while True:
            number, due, length = together(received, store is not None and store.is_due(), length)
            if number:
                break
            pending = position.pending(hooks)
            if pending:
                watch(position.step)
                if store is not None and hooks.extra(position.step):
                    store.save(state, position)  # a run to more steps calls no hook here: it can go on from this
            for number in pending:
                state, row = hooks.call(number, position.step, state, position.names())
                position.calls.append((position.step, number, {name: np.asarray(value) for name, value in row.items()}))
            if pending:
                state = own(mesh, state)  # a hook may have kept what it was given, and the next chunk writes into it
            if position.step == hooks.steps:
                break
            if due:
                watch(position.step)
                store.save(state, position)
            started, before, whole = time.monotonic(), position.step, False
            state, metrics, count = advance(state, before, min(hooks.stop(before), before + length))
            position.add(metrics, count)
            whole = True
            watch(before, show=True)  # the steps of the chunk before, while this one runs
            length = min(chunk, 2 * length) if time.monotonic() - started < 1 else max(1, length // 2)
        watch(position.step, show=True)
        if store is not None:
            store.save(state, position, wait=True)
    except BaseException as error:  # a hook, a log, an iterator: what was reached is kept
        if store is not None and whole and not store.failed and jax.process_count() == 1:  # others may be well, and would be waited for
            _rescue(state, position, store, watch, error)
        raise
    return state


def _rescue(state, position, store, watch, error):
    """Saves where a run is about to end with `error`, which is what is told."""
    try:
        watch(position.step)
        store.save(state, position, wait=True)
    except FloatingPointError:
        pass  # with a NaN in it nothing is worth going on from
    except Exception as second:
        if not isinstance(error, OSError):  # else the disk is full or the folder gone for both
            warnings.warn(f"nothing was saved of the last steps: {second}", stacklevel=4)


def _watched(position, show, name, nan):
    """`watch(stop, show=False)`: raises at the first step up to `stop` that has a NaN, having shown it; else shows the steps if asked to."""

    def watch(stop, **options):
        found = position.find_nan(stop) if nan == "stop" else None
        if found:
            show(position.step, last=found[0])
            raise FloatingPointError(f"metric {found[1]!r} of {name!r} is NaN at step {found[0]}; where it may be, pass nan='keep'")
        if options:
            show(stop)

    return watch


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
            check_batch(batch, max(1, mesh.shape["data"] // jax.process_count()))
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
