"""One process at a time works in a folder: a lock of the operating system, which dies with its process."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time


class Held(ValueError):
    """The folder is another's; the message says whose."""


@contextlib.contextmanager
def hold(folder):
    """Holds a folder as long as the block, or this process, lasts: the system takes the lock back from a process that dies, however it does.

    Args:
      folder: a `pathlib.Path` that is there.

    Yields:
      Whether it could be locked: some file systems don't know locks.

    Raises:
      Held: another process, or another part of this one, holds it.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # not inherited by the processes that this one starts
    try:
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Held(f"{folder} is in use: {_holder(descriptor)} works there; wait for its end, or take another folder") from None
            locked = False
        else:
            facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(facts).encode(), 0)
        yield locked
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
