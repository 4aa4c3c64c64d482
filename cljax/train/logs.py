"""What a run shows while it runs: a progress bar, a table of its metrics, TensorBoard events and the caller's own function."""

import contextlib
import csv
import os
import time

from cljax.core.progress import progress_bar
from cljax.train.checkpoint import writing


@contextlib.contextmanager
def open_logs(position, *, name, steps, folder, progress, log):
    """Gives a function `write(stop)` that shows the steps up to `stop` that were not shown yet.

    Args:
      position: where the run stands; steps that it has taken already are not shown again.
      name: what the bar is called.
      steps: the length of the bar.
      folder: where `metrics.csv` (every step) and the events (one step a chunk) go, or None.
      progress: whether there is a bar.
      log: None, or a function that gets `(step, {name: float})` for every step.
    """
    shown = position.step
    with contextlib.ExitStack() as stack:
        sinks = []
        if folder is not None:
            sinks += [_table(folder / "metrics.csv", position), stack.enter_context(_events(folder, position.step))]
        if progress:
            sinks.append(stack.enter_context(_bar(name, steps, position.step)))
        if log is not None:
            sinks.append(lambda rows: [log(step, row) for step, row in rows])

        def write(stop, last=None):
            nonlocal shown
            rows, shown = position.rows(shown, stop), stop
            rows = [(step, row) for step, row in rows if last is None or step <= last]
            for sink in sinks if rows else ():
                sink(rows)

        yield write


def write_table(path, position):
    """Writes the table of a run that is over anew, where it is not there or lacks its last line: a process was killed before it came to that."""
    if position.step:
        rows = position.rows(0, position.step)
        try:
            with open(path, newline="") as file:
                whole = list(csv.reader(file))[-1][1:] == _line(rows[-1], _columns(rows))[1:]
        except (OSError, IndexError):
            whole = False
        if not whole:
            _table(path, position)(rows)


def _table(path, position):
    """Appends rows to a CSV file. The first ones, and those that bring new columns, write it anew: a resumed run has no row twice."""
    columns = []

    def write(rows):
        new = [name for name in _columns(rows) if name not in columns]
        anew = bool(new) or not columns
        if anew:
            columns.extend(new)
            rows = position.rows(0, rows[-1][0])
            columns.extend(name for name in _columns(rows) if name not in columns)
        with writing(path):
            place = path.with_name(f".{path.name}-{os.getpid()}") if anew else path
            if not anew and not path.exists():
                raise FileNotFoundError(2, "it was removed")
            with open(place, "w" if anew else "a", newline="") as file:
                table = csv.writer(file)
                table.writerows(([["step", *columns]] if anew else []) + [_line(row, columns) for row in rows])
            if anew:
                place.replace(path)

    return write


def _columns(rows):
    return list(dict.fromkeys(name for _, row in rows for name in row))


def _line(numbered, columns):
    step, row = numbered
    return [str(step), *(f"{row[name]:.9g}" if name in row else "" for name in columns)]


@contextlib.contextmanager
def _events(folder, step):
    # Not through SummaryWriter: its thread dies of a full disk, and the run would wait for it for ever.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

    place = folder / "events"
    with writing(place):
        writer = EventsWriter(str(place))
        if step:  # the events of a run that was killed may reach beyond its checkpoint: those are purged
            writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(rows):
        step, row = rows[-1]
        with writing(place):
            values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
            writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    try:
        yield write
    finally:
        with contextlib.suppress(OSError):  # of a full disk the table and the checkpoints have told
            writer.close()


@contextlib.contextmanager
def _bar(name, steps, step):
    bar = progress_bar(total=steps, initial=step, desc=name, unit="step")

    def write(rows):
        row = rows[-1][1]
        shown = "loss" if "loss" in row else next(iter(row), None)
        if shown is not None:
            bar.set_postfix({shown: f"{row[shown]:.4g}"}, refresh=False)
        bar.update(len(rows))

    with contextlib.closing(bar):
        yield write
