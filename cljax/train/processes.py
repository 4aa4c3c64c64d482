"""Several processes that train as one, as `jax.distributed` starts them: all take the same decisions, and the first one alone writes."""

import jax
import numpy as np
from jax.experimental import multihost_utils


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
    return tuple(number for number in multihost_utils.broadcast_one_to_all(given).tolist() if number >= 0) or None
