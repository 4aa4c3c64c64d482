"""One process at a time works in an experiment's folder of results."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time


class Held(ValueError):
    """The folder is another process's; the message says whose."""


@contextlib.contextmanager
def hold(folder):
    """Holds a folder as long as the block, or this process, lasts: the system takes the lock back from a process that dies, however it does.

    Raises:
      Held: another process, or another study of this one, holds it.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # not inherited by the processes that this one starts
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                print(f"{folder} is on a file system without locks ({error.strerror}): let one process at a time work there", file=sys.stderr)
            else:
                raise Held(f"{folder} is in use: {_holder(descriptor)} works there; wait for it, end it, or give another --out") from None
        else:
            facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(facts).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor):
    for _ in range(20):  # it may be about to write its name
        try:
            facts = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {facts['pid']} on {facts['host']}, since {facts['since']},"
        except (ValueError, KeyError, TypeError):
            time.sleep(0.01)
    return "another process"
