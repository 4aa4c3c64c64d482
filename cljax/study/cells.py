"""One cell of a study: an arm's config and a seed, run in a folder of its own, anywhere, and kept.

A cell goes to its worker as plain values (the script's path, the config as a dict, the seed, the folder) and comes back as a dict, so that it runs
under any `concurrent.futures.Executor`. Its folder is named by its key and holds `result.json` once it is finished.
"""

import dataclasses
import functools
import inspect
import json
import math
import multiprocessing.util
import os
import re
import signal
import time
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core import provenance
from cljax.study import plain

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
    start = time.perf_counter()
    try:
        run = source if callable(source) else plain.resolve(source)
        outputs = work(run, plain.decode(config, source))
    except Exception:
        text = traceback.format_exc()
        for folder in filter(None, folders):
            write(Path(folder) / "error.txt", text)
        return [{"error": text}] * len(folders)
    except SystemExit:
        if _in_worker:  # for a process pool it would be a result like any other, and this worker would be handed its next cell
            _leave()
        raise
    try:
        outputs = [checked(output) for output in outputs]
    except ValueError as error:
        return [{"malformed": str(error)}] * len(folders)
    facts = {"data": provenance.recorded(), "device": device(), "seconds": (time.perf_counter() - start) / len(folders)}
    results = [{"metrics": metrics} | facts for metrics in outputs]
    for folder, result in zip(folders, results, strict=True):
        if folder:
            keep(folder, result)
    return results


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
    """Sets up a process of a pool: Ctrl-C is its parent's affair, and SIGTERM ends it once `fit` has saved."""
    global _in_worker
    _in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def _leave(*_):
    """Ends a worker at once and without a word, whatever it is about."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # threads that still write logs complain of what the next line closes
    multiprocessing.util._exit_function()  # gives back the semaphores that would be called leaked
    os._exit(143)


def cache_programs():
    """Turns on JAX's persistent compilation cache, unless the user has chosen one."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "cljax" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def device():
    """The devices of this process in words: `1 x NVIDIA H100 80GB HBM3`, `1 x cpu (2 cores)`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}" + (f" ({os.cpu_count()} cores)" if jax.default_backend() == "cpu" else "")


def write(path, text):
    """Writes a text so that the file is complete or absent at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def dumps(value):
    """Strict JSON, a list of numbers on one line: numbers that are not finite become null."""
    text = json.dumps(_floats(value, lambda x: x if math.isfinite(x) else None), indent=1, allow_nan=False, default=repr)
    return re.sub(r'\[\n[^][{}"]*\]', lambda match: re.sub(r"\s+", " ", match[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def keep(folder, result):
    """Writes `result.json`, whose presence says that the cell is finished; numbers that are not finite as texts."""
    write(Path(folder) / "result.json", dumps(_floats(result, lambda x: x if math.isfinite(x) else str(x))))
    (Path(folder) / "error.txt").unlink(missing_ok=True)


def finished(folder):
    """The result that a folder holds, or None."""
    try:
        result = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    result["metrics"] = {name: [float(x) for x in value] if isinstance(value, list) else float(value) for name, value in result["metrics"].items()}
    return result


def _floats(value, function):
    if isinstance(value, dict):
        return {key: _floats(item, function) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_floats(item, function) for item in value]
    return function(value) if isinstance(value, float) else value
