"""The engines that run cells elsewhere: pools of processes of our own, those of a user, and clusters."""

import concurrent.futures
import multiprocessing
import signal
import threading
from concurrent.futures.process import ProcessPoolExecutor

import jax

from cljax.core import check
from cljax.study import cells


def pool(workers):
    """A pool of processes that end with this one."""
    # Not one thread a worker: XLA:CPU splits some reductions by the number of threads, and a cell's bits would depend on where it ran.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=cells.as_worker)


def capacity(executor, otherwise):
    """How many cells to hand to an executor at once.

    No more than a pool has workers, so that it is known which ones a dead worker may have had; an engine that keeps its own account of them gets all.
    """
    return getattr(executor, "_max_workers", otherwise)


def submit(executor, *call):
    """Submits a call, uninterrupted: a Ctrl-C or SIGTERM that comes while a pool starts a process for it acts a moment later.

    That process has Ctrl-C blocked until `as_worker` says that it is its parent's affair.
    """
    if threading.current_thread() is not threading.main_thread():
        return executor.submit(*call)
    late, before = [], {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(handler := signal.getsignal(number)):
            before[number] = handler
            signal.signal(number, lambda number, frame: late.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(*call)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if late:
            signal.raise_signal(late[0])


def failure(future):
    """The exception of a future that is done, or None."""
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:  # by an engine whose scheduler is gone
        return error


def renewed(executor, own):
    """An executor in the place of a broken one, and whether it is ours to stop."""
    workers = capacity(executor, 1)
    if type(executor).__module__.startswith("loky"):
        import loky

        return loky.get_reusable_executor(max_workers=workers), False
    if own:
        executor.shutdown(wait=False, cancel_futures=True)
    return pool(workers), True


def stop(executor, children):
    """Stops a pool of ours at once, and waits for its processes, those that are not in `children`, and for its thread."""
    processes = set(multiprocessing.active_children()) - children
    for process in processes:
        process.terminate()  # `fit` saves first
    for process in processes:
        process.join(30)
        if process.is_alive():
            process.kill()
    executor.shutdown(cancel_futures=True)


def check_workers(workers):
    """Raises unless so many processes can run cells here."""
    check.integer("workers", workers, at_least=1)
    if workers > 1 and jax.default_backend() != "cpu":
        raise ValueError(
            f"workers must be 1 on an accelerator, which one process holds, got {workers}; "
            "several machines go by --cluster or study.sweep(executor=...)"
        )


def cluster(address):
    """The client of a dask cluster that runs already.

    Raises:
      ValueError: dask.distributed is not installed, or nothing answers at the address.
    """
    try:
        import distributed
    except ImportError:
        raise ValueError("--cluster needs dask.distributed: pip install 'cljax[cluster]'") from None
    try:
        return distributed.Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"--cluster must be the address of a dask scheduler that runs (tcp://host:8786), got {address!r}: {reason[0]}") from None
