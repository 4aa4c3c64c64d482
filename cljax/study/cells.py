"""One cell of a study: an arm's config and a seed, run in a folder of its own, anywhere, and kept.

A cell goes to its worker as plain values (the script's path, the config as a dict, the seed, the folder) and comes back as a dict, so that it runs
under any `concurrent.futures.Executor`. Its folder is named by its key and holds `result.json` once it is finished.
"""

import dataclasses
import errno
import functools
import inspect
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core import provenance
from cljax.study import files, plain
from cljax.study.programs import cache_programs
from cljax.train.processes import is_first

_in_worker = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """A config and a seed. `arm` is the full name, `base[field=v]`; `point` is the entry of the grid, `{field: value}`; `key` names the folder."""

    arm: str
    base: str
    point: dict
    seed: int
    config: object
    key: str


def run_cell(source, config, seed, folder=None, data_dir=None, progress=False):
    """Runs one cell and keeps its result.

    Args:
      source: the address of `run` (`plain.address`), or the function itself.
      config: the config encoded (`plain.encode`), or the config itself.
      seed: the integer of the cell's key: all arms of a seed get the same one.
      folder: where the cell keeps its files; None keeps nothing.
      data_dir: the folder of the data sets, where it is not the worker's own.
      progress: whether `fit` shows its bar.

    Returns:
      `{"metrics": {name: float | list}, "data": ..., "device": ..., "seconds": ...}`, or `{"error": traceback}` where `run` raised, or `{"malformed":
      what}` where it returned something else than metrics.
    """

    def work(run, config):
        return [_with_fit(run, folder=folder, progress=progress)(config, jax.random.key(seed))]

    return _kept(work, source, config, [folder], data_dir)[0]


def run_population(run, config, seeds, folders):
    """Runs several seeds of a config as one program, `jax.vmap(run)`; a list of what `run_cell` returns."""

    def work(run, config):
        keys = jax.vmap(jax.random.key)(np.asarray(seeds))
        metrics = jax.device_get(jax.vmap(functools.partial(_with_fit(run, progress=False), config))(keys))
        return [{name: values[place] for name, values in metrics.items()} for place in range(len(seeds))]

    return _kept(work, run, config, folders)


def _with_fit(run, **options):
    """`run` with a `fit` that has the options, where it takes one."""
    if "fit" not in inspect.signature(run).parameters:
        return run
    from cljax import train

    return functools.partial(run, fit=functools.partial(train.fit, **options))


def _kept(work, source, config, folders, data_dir=None):
    cache_programs()
    if data_dir:
        os.environ["CLJAX_DATA"] = data_dir
    folders = [folder and is_first() and Path(folder) for folder in folders]  # of processes that train as one the first writes
    for folder in filter(None, folders):
        files.tidy(folder)
    start = time.perf_counter()
    try:
        run = source if callable(source) else plain.resolve(source)
        with provenance.watched(functools.partial(_note_data, [*filter(None, folders)], data := {})):
            outputs = work(run, plain.decode(config, source))
    except Exception as error:
        if _is_the_disk(error):
            return [{"unkept": f"{error.filename or folders[0] or 'a file'} could not be written: {error.strerror}"}] * len(folders)
        if jax.process_count() > 1 and not isinstance(error, FloatingPointError):
            raise  # of others that train with this one: they are in the midst of this cell, and would take its next one for the same
        return _failed(folders, traceback.format_exc())
    except SystemExit as stop:
        if stop.code not in (143, 130):  # the script's own: no reason for the other cells to end
            return _failed(folders, traceback.format_exc())
        if _in_worker:  # for a process pool it would be a result like any other, and this worker would be handed its next cell
            _leave()
        raise
    try:
        outputs = [checked(output) for output in outputs]
    except ValueError as error:
        return [{"malformed": str(error)}] * len(folders)
    facts = {"data": provenance.recorded() | data, "device": device(), "seconds": (time.perf_counter() - start) / len(folders)}
    results = [{"metrics": metrics} | facts for metrics in outputs]
    try:
        for folder, result in zip(folders, results, strict=True):
            if folder:
                files.keep(folder, result)
    except files.Unwritable as error:
        return [{"unkept": str(error)}] * len(folders)
    return results


def _failed(folders, reason):
    for folder in filter(None, folders):
        files.fail(folder, reason)
    return [{"error": reason}] * len(folders)


def _is_the_disk(error):
    """Whether an exception says that there is no space, or that nothing can be written: other cells would fail as well."""
    return isinstance(error, files.Unwritable) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def _note_data(folders, data, name, facts):
    """Notes what a cell has read in `data` and in its `data.json`; where it was something else before, what is half done is set aside."""
    facts = data[name] = json.loads(json.dumps(facts, default=repr))
    for folder in folders:
        note = folder / "data.json"
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        if before.get(name, facts) != facts:
            place = files.set_aside(folder)
            print(f"the data set {name!r} has changed: what was half done is kept in {place}, and begins anew", file=sys.stderr)
            before = {}
        if name not in before:
            files.write(note, files.dumps(before | {name: facts}))


def checked(metrics):
    """The metrics as floats and lists of floats; ValueError where `run` returned something else."""
    wanted = "run must return {metric: float or 1-D array}"
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"{wanted}, got {'an empty dict' if metrics == {} else type(metrics).__name__}")
    result = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ValueError(f"{wanted}, got the metric name {name!r}")
        try:
            array = np.asarray(value)
            numeric = any(jnp.issubdtype(array.dtype, kind) for kind in (np.bool_, np.integer, np.floating))
        except (TypeError, ValueError):
            numeric = False
        if not numeric or array.ndim > 1:
            raise ValueError(f"{wanted}, got {name!r} = {f'an array of shape {list(array.shape)}' if numeric else repr(value)[:60]}")
        result[name] = array.astype(np.float64).tolist()
    return result


def as_worker():
    """Sets up a process of a pool: Ctrl-C is its parent's affair, SIGTERM ends it once `fit` has saved, and it does not outlive its parent."""
    global _in_worker
    _in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it came into the world with the signal blocked, as its own children must not
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process().sentinel,), daemon=True).start()


def _follow(parent):
    multiprocessing.connection.wait([parent])
    os._exit(143)


def _leave(*_):
    """Ends a worker at once and without a word, whatever it is about."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # threads that still write logs complain of what the next line closes
    multiprocessing.util._exit_function()  # gives back the semaphores that would be called leaked
    os._exit(143)


def device():
    """The devices of this process in words: `1 x NVIDIA H100 80GB HBM3`, `1 x cpu (2 cores)`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}" + (f" ({os.cpu_count()} cores)" if jax.default_backend() == "cpu" else "")
