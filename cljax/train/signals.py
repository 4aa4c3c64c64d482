"""Leaving in good order when the machine or the user asks to."""

import contextlib
import signal
import threading


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
    finally:
        restore()


def leave(received):
    """Ends the program as the signal that was received would have."""
    if received[0] == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + received[0])
