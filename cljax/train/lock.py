"""One process at a time in a folder: a lock of the operating system, which ends with the process that holds it."""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time

_held, _guard = set(), threading.Lock()  # the system's lock is one for all threads of a process


@contextlib.contextmanager
def hold(folder):
    """Holds `folder` to the end of the block; gives whether it could be locked, which some file systems do not know.

    Raises:
      ValueError: another process or thread holds it.
    """
    path = folder / ".lock"
    with _guard:
        if path in _held:
            raise ValueError(_refusal(folder, f"another thread of this process, {os.getpid()},"))
        file = open(path, "a+")  # noqa: SIM115 - held to the end
        locked = True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise ValueError(_refusal(folder, holder)) from None
            locked = False
        _held.add(path)
    try:
        with contextlib.suppress(OSError):  # a full disk: what holds the folder is not known then, but that something does
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
        yield locked
    finally:
        with _guard:
            _held.discard(path)
            with contextlib.suppress(OSError):
                file.close()


def _refusal(folder, holder):
    return f"folder is in use, {str(folder)!r}: {holder} writes to it; wait for its end or take another folder"
