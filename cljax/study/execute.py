"""Runs the cells of a study that are not finished: in order, one a core, or under any executor; the numbers are the same."""

import collections
import concurrent.futures
import contextlib
import inspect
import multiprocessing
import os
import sys
from concurrent.futures.process import ProcessPoolExecutor

from cljax.core.progress import progress_bar
from cljax.study import cells, executors, files, plain, report
from cljax.study.programs import prune_programs
from cljax.train.processes import is_first

_TOGETHER = 2  # a cell that was lost so often with a dying worker is from then on run alone, to see whether it is to blame
_LOSSES = 3  # so often is a cell tried again


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
    results, damaged = {}, []
    for key in unique if folder else ():
        results[key] = files.finished(folder / key, damaged.append)
    results = {key: result for key, result in results.items() if result is not None}
    missing = [cell for key, cell in unique.items() if key not in results]
    for path in damaged:
        print(f"{path} is damaged: the cell is run again, and what it holds is kept in {files.set_aside(path.parent)}", file=sys.stderr)
    if not missing:
        return results, 0
    prune_programs()
    bar = _bar(len(unique), len(results))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(bar))
        if population:
            stream = _populations(run, missing, folder, bar)
        elif executor is None and workers == 1:
            stream = _in_order(run, missing, folder, bar)
        else:
            stream = _spread(run, missing, folder, executor, workers)
        stack.enter_context(contextlib.closing(stream))
        for cell, result in stream:
            results[cell.key] = result
            bar.update()
            if "malformed" in result:
                raise ValueError(result["malformed"])
            if "unkept" in result:
                raise files.Unwritable(result["unkept"])
            if "error" in result:
                if folder and is_first() and not (folder / cell.key / "error.txt").exists():
                    files.fail(folder / cell.key, result["error"])
                where = f"; see {folder / cell.key / 'error.txt'}" if folder else "\n" + result["error"]
                bar.write(f"failed: {cell.arm}, seed {cell.seed}: {report.last_line(result['error'])}{where}", file=sys.stderr)
            elif folder and is_first() and not (folder / cell.key / "result.json").exists():
                files.keep(folder / cell.key, result)  # the worker wrote to a disk of its own, or the folder was taken away
    return results, len(missing)


def interactive():
    """Whether a person watches: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(total, done):
    every = 0.1 if interactive() else 10
    return progress_bar(total=total, initial=done, unit="cell", desc="cells", file=sys.stderr, mininterval=every, dynamic_ncols=True)


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
    children = set(multiprocessing.active_children())
    if own:
        executor = executors.pool(workers)
    waiting, running, losses = collections.deque(missing), {}, collections.Counter()
    try:
        while waiting or running:
            lost = []
            while waiting and len(running) < executors.capacity(executor, len(missing)) and not lost:
                if running and any(losses[cell.key] >= _TOGETHER for cell in [waiting[0], *running.values()]):
                    break
                cell = waiting.popleft()
                config = cell.config if callable(source) else plain.encode(cell.config, run.__module__)
                place = _place(folder, cell)
                call = cells.run_cell, source, config, cell.seed, place and str(place), os.environ.get("CLJAX_DATA")
                try:
                    running[executors.submit(executor, *call)] = cell
                except concurrent.futures.BrokenExecutor:
                    lost.append(cell)
            done = set(running) if lost else concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done
            if any(isinstance(executors.failure(future), concurrent.futures.BrokenExecutor) for future in done):
                done = set(running)
            for future in done:
                cell, error = running.pop(future), executors.failure(future)
                if isinstance(error, concurrent.futures.BrokenExecutor):
                    lost.append(cell)
                else:
                    yield cell, {"error": f"{type(error).__name__}: {error}"} if error else future.result()
            if not lost:
                continue
            executor, own = executors.renewed(executor, own)
            for cell in reversed(lost):
                losses[cell.key] += 1
                if losses[cell.key] > _LOSSES:
                    yield cell, {"error": f"the worker process died {losses[cell.key]} times (out of memory, or killed)"}
                else:
                    waiting.appendleft(cell)
    except BaseException:
        for future in running:
            future.cancel()
        if own:
            executors.stop(executor, children)
        raise
    if own:
        executor.shutdown()
