"""Leaving in good order when the machine or the user asks to."""

import contextlib
import multiprocessing
import signal
import sys
import threading

from cljax.train.processes import is_first


class Interrupted(SystemExit, KeyboardInterrupt):
    """Ctrl-C: caught as a KeyboardInterrupt, and where nobody does it ends the program with status 130 and without a traceback."""


@contextlib.contextmanager
def stop_signals(wanted=True):
    """Gives a list that gains the number of a SIGTERM or SIGINT that arrives: whoever watches it can finish what is half done.

    After the first signal the handlers from before are back, so that a second one acts at once. Python allows handlers in the main thread alone:
    elsewhere the list stays empty.
    """
    received, before = [], {}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def note(number, frame):
        received.append(number)
        restore()

    if wanted and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # ignored on purpose, or set outside of Python
                before[number] = handler
                signal.signal(number, note)
    try:
        yield received
    except KeyboardInterrupt as error:
        if not received or isinstance(error, SystemExit):
            raise
        say("stopped at once by a second signal: the checkpoint before is what the next start goes on from")
        raise Interrupted(128 + signal.SIGINT) from None
    finally:
        restore()


def leave(received, where):
    """Ends the program as the signal that was received would have, after a line that says `where` it stood."""
    number = received[0]
    say(f"{signal.Signals(number).name} {where}")
    raise (Interrupted if number == signal.SIGINT else SystemExit)(128 + number)


def say(line):
    """One line for the person who watches; the workers of a pool leave it to their parent, and processes that train as one to the first."""
    if multiprocessing.parent_process() is None and is_first():
        print(line, file=sys.stderr, flush=True)
