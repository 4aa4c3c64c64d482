"""Several processes that train as one, as `jax.distributed` starts them: all take the same decisions, and the first one alone writes."""

import contextlib
import os
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from cljax.core import check


def join(coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None, *, seconds: int = 30) -> bool:
    """Makes this process one of several that train as one, of which none waits for ever for one that died.

    It is `jax.distributed.initialize`, to be called before anything is computed. It does nothing where that was called already or, without arguments,
    where no launcher has started several processes: those that `initialize` knows are seen, `srun` of SLURM, `mpirun` of Open MPI, TPU pods. The
    scripts of `study.main` call it first. A process that was killed, or whose host died, gives no sign of life: after `seconds` all others end with
    a message, and the same command goes on from the last checkpoint. So it is where an exception ends one: it no longer waits for the others.

    Args:
      coordinator_address: host and port where the first process listens.
      num_processes: how many there are.
      process_id: which of them this one is, from 0.
      seconds: how long a process may be silent.

    Returns:
      Whether this process is one of several that were joined.

    Raises:
      TypeError: `seconds` is no integer.
      ValueError: `seconds` below 1, or arguments that do not suffice.
      RuntimeError: something was computed before, or the others don't come.

    >>> join()
    False
    """
    check.integer("seconds", seconds, at_least=1)
    if jax.distributed.is_initialized():
        return True
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    if all(value is None for value in given.values()) and not _is_launched(os.environ):
        return False
    jax.distributed.initialize(**given, heartbeat_timeout_seconds=seconds)
    sys.excepthook = partial(_end, sys.excepthook)
    return True


def abandon(code):
    """Ends this process at once where it is one of several: at a regular end it would wait for the others, and they for it."""
    if jax.process_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _end(hook, kind, error, trace):
    hook(kind, error, trace)
    abandon(130 if issubclass(kind, KeyboardInterrupt) else 1)


def _is_launched(environment):
    """Whether this process runs beside others of one launcher; `initialize` itself would ask networks that need not be there, and warn of it."""
    if "SLURM_STEP_NODELIST" in environment:
        return int(environment.get("SLURM_NTASKS", 1)) > 1
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if hosts:
        return "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in environment
    return "TPU_SKIP_MDS_QUERY" not in environment and any(path.read_text().strip() == "0x1ae0" for path in _vendors())


def _vendors():
    """Where Linux tells who has made the devices of this machine: 0x1ae0 is who makes TPUs."""
    return Path("/sys/bus/pci/devices").glob("*/vendor")


def is_first():
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def together(received, due, length):
    """What all processes do next: the signal that one of them got (0 for none), whether to save, and the steps of the next chunk.

    Clocks and signals differ between processes; where one took another number of steps, all would wait for each other for ever.
    """
    number = received[0] if received else 0
    if jax.process_count() == 1:
        return number, due, length
    with _all_devices():
        number, due, length = np.max(multihost_utils.process_allgather(np.array([number, due, -length], np.int32)), axis=0).tolist()
    if number and not received:
        received.append(number)
    return number, bool(due), -length


def from_first(numbers):
    """A short tuple of integers, or None, that the first process has found, in all of them; it also waits for all of them."""
    if jax.process_count() == 1:
        return numbers
    given = np.full(8, -1, np.int32)
    given[: len(numbers or ())] = numbers or ()
    with _all_devices():
        return tuple(number for number in multihost_utils.broadcast_one_to_all(given).tolist() if number >= 0) or None


def _all_devices():
    """The mesh of what is exchanged, in place of one of some devices only, which `multihost_utils` of older versions of jax doesn't take."""
    return jax.set_mesh(jax.sharding.Mesh(np.array(jax.devices()), ("processes",)))
