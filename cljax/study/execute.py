"""Runs the cells of a study that are not finished: in order, one a core, or under any executor; the numbers are the same."""

import collections
import concurrent.futures
import contextlib
import inspect
import multiprocessing
import os
import sys
import warnings
from concurrent.futures.process import ProcessPoolExecutor

import jax

from cljax.core import check
from cljax.study import cells, plain

_LOSSES = 3  # how often a cell whose worker died is tried again


def check_run(run, executor=None):
    """Raises unless `run` is a function of (config, key) which the executor's workers can find."""
    if not inspect.isfunction(run):
        raise TypeError(f"run must be a function run(config, key, fit), got {type(run).__name__}")
    try:
        inspect.signature(run).bind(None, None, **dict.fromkeys({"fit"} & set(inspect.signature(run).parameters)))
    except TypeError:
        raise ValueError(f"run must accept (config, key), got {run.__name__}{inspect.signature(run)}") from None
    if executor is None:
        return
    if not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(f"executor must be a concurrent.futures.Executor or None, got {type(executor).__name__}")
    if "<" in run.__qualname__:
        raise ValueError(f"run must be a function at the top level of its module where an executor is given, got {run.__qualname__}")
    if isinstance(executor, ProcessPoolExecutor) and plain.script(run) is None:
        raise ValueError(
            f"run must be defined in a file for the workers of a ProcessPoolExecutor to import it, got {run.__name__} of a notebook or a prompt"
        )


def execute(run, todo, folder=None, *, executor=None, workers=1, population=False):
    """The results of cells, by key; those that the folder holds already are read.

    Args:
      run: the function of the experiment.
      todo: the cells; equal keys run once.
      folder: where each cell has a folder named by its key, or None.
      executor: runs the cells; None runs them here.
      workers: without an executor, how many processes; 1 runs the cells in order in this one.
      population: the seeds of a config run here as one program.

    Returns:
      `{key: result}` of `cells.run_cell`, and how many cells were run.
    """
    unique = {}
    for cell in todo:
        unique.setdefault(cell.key, cell)
    results = {key: cells.finished(folder / key) for key in unique} if folder else {}
    results = {key: result for key, result in results.items() if result is not None}
    missing = [cell for key, cell in unique.items() if key not in results]
    if not missing:
        return results, 0
    bar = _bar(len(unique), len(results))
    if population:
        stream = _populations(run, missing, folder, bar)
    elif executor is None and workers == 1:
        stream = _in_order(run, missing, folder, bar)
    else:
        stream = _spread(run, missing, folder, executor, workers)
    with contextlib.closing(bar), contextlib.closing(stream):
        for cell, result in stream:
            results[cell.key] = result
            bar.update()
            if "malformed" in result:
                raise ValueError(result["malformed"])
            if "error" in result:
                where = f"; see {folder / cell.key / 'error.txt'}" if folder else "\n" + result["error"]
                bar.write(f"failed: {cell.arm}, seed {cell.seed}: {last_line(result['error'])}{where}", file=sys.stderr)
            elif folder and not (folder / cell.key / "result.json").exists():
                cells.keep(folder / cell.key, result)  # the worker wrote to a disk of its own
    return results, len(missing)


def last_line(text):
    """The line of a traceback that says what happened; JAX adds a note on its own frames below it."""
    lines = [line.strip() for line in text.splitlines() if line.strip().strip("-") and not line.startswith("For simplicity, JAX has removed")]
    return lines[-1] if lines else ""


def interactive():
    """Whether a person watches: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(total, done):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the plain bar
        from tqdm.auto import tqdm
    return tqdm(total=total, initial=done, unit="cell", desc="cells", file=sys.stderr, mininterval=0.1 if interactive() else 10, dynamic_ncols=True)


def _in_order(run, missing, folder, bar):
    for cell in missing:
        bar.set_description(f"{cell.arm}, seed {cell.seed}", refresh=interactive())
        yield cell, cells.run_cell(run, cell.config, cell.seed, _place(folder, cell), progress=interactive())


def _populations(run, missing, folder, bar):
    groups = collections.defaultdict(list)
    for cell in missing:
        groups[cell.arm].append(cell)
    for arm, group in groups.items():
        bar.set_description(f"{arm}, {len(group)} seeds", refresh=interactive())
        places = [_place(folder, cell) for cell in group]
        yield from zip(group, cells.run_population(run, group[0].config, [cell.seed for cell in group], places), strict=True)


def _place(folder, cell):
    return folder and folder / cell.key


def _spread(run, missing, folder, executor, workers):
    """Runs cells under an executor; where the worker of a pool dies, a new pool takes what is missing."""
    source = plain.address(run)
    own = executor is None  # a pool that is ours to stop
    if own:
        executor = _pool(workers)
    elif isinstance(executor, ProcessPoolExecutor):
        workers = executor._max_workers
    # No more cells than workers are handed to a pool of processes: so it is known which ones a dead worker may have had.
    limit = workers if isinstance(executor, ProcessPoolExecutor) else len(missing)
    waiting, running, losses = collections.deque(missing), {}, collections.Counter()
    children = set(multiprocessing.active_children())
    try:
        while waiting or running:
            lost = []
            while waiting and len(running) < limit and not lost:
                cell = waiting.popleft()
                config = cell.config if callable(source) else plain.encode(cell.config, run.__module__)
                place = _place(folder, cell)
                try:
                    future = executor.submit(cells.run_cell, source, config, cell.seed, place and str(place), os.environ.get("CLJAX_DATA"))
                    running[future] = cell
                except concurrent.futures.BrokenExecutor:
                    lost.append(cell)
            done = set(running) if lost else concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done
            if any(isinstance(future.exception(), concurrent.futures.BrokenExecutor) for future in done):
                done = set(running)
            for future in done:
                cell, error = running.pop(future), future.exception()
                if isinstance(error, concurrent.futures.BrokenExecutor):
                    lost.append(cell)
                else:
                    yield cell, {"error": f"{type(error).__name__}: {error}"} if error else future.result()
            if not lost:
                continue
            executor, own = _renewed(executor, workers, own)
            for cell in reversed(lost):
                losses[cell.key] += 1
                if losses[cell.key] > _LOSSES:
                    text = f"the worker process died {losses[cell.key]} times (out of memory, or killed)"
                    if folder:
                        cells.write(folder / cell.key / "error.txt", text + "\n")
                    yield cell, {"error": text}
                else:
                    waiting.appendleft(cell)
    except BaseException:
        for future in running:
            future.cancel()
        if own:
            executor.shutdown(wait=False, cancel_futures=True)
            _stop(set(multiprocessing.active_children()) - children)
            executor.shutdown()  # of what the pool itself holds
        raise
    if own:
        executor.shutdown()


def _pool(workers):
    # Not one thread a worker: XLA:CPU splits some reductions by the number of threads, and a cell's bits would depend on where it ran.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=cells.as_worker)


def _renewed(executor, workers, own):
    """An executor in the place of a broken one, and whether it is ours to stop."""
    if type(executor).__module__.startswith("loky"):
        import loky

        return loky.get_reusable_executor(max_workers=executor._max_workers), False
    if own:
        executor.shutdown(wait=False, cancel_futures=True)
    return _pool(workers), True


def _stop(processes):
    for process in processes:
        process.terminate()  # `fit` saves first
    for process in processes:
        process.join(30)
        if process.is_alive():
            process.kill()


def check_workers(workers):
    """Raises unless so many processes can run cells here."""
    check.integer("workers", workers, at_least=1)
    if workers > 1 and jax.default_backend() != "cpu":
        raise ValueError(
            f"workers must be 1 on an accelerator, which one process holds, got {workers}; several machines go by study.sweep(executor=...)"
        )
