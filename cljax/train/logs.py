"""What a run shows while it runs: a progress bar, a table of its metrics, TensorBoard events and the caller's own function."""

import contextlib
import csv
import warnings


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

        def write(stop):
            nonlocal shown
            rows, shown = position.rows(shown, stop), stop
            for sink in sinks if rows else ():
                sink(rows)

        yield write


def write_table(path, position):
    """Writes the table of a run that is over, where there is none."""
    if not path.exists() and position.step:
        _table(path, position)(position.rows(0, position.step))


def _table(path, position):
    """Appends rows to a CSV file. The first ones, and those that bring new columns, write it anew: a resumed run has no row twice."""
    columns = []

    def write(rows):
        new = {name: None for _, row in rows for name in row if name not in columns}
        if new or not columns:
            columns.extend(new)
            rows = position.rows(0, rows[-1][0])
        with open(path, "w" if rows[0][0] == 1 else "a", newline="") as file:
            table = csv.writer(file)
            if rows[0][0] == 1:
                table.writerow(["step", *columns])
            table.writerows([step, *(f"{row[name]:.9g}" if name in row else "" for name in columns)] for step, row in rows)

    return write


@contextlib.contextmanager
def _events(folder, step):
    import tensorboardX

    # The events of a run that was killed may reach beyond its checkpoint: those are purged.
    writer = tensorboardX.SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(rows):
        step, row = rows[-1]
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    with contextlib.closing(writer):
        yield write


@contextlib.contextmanager
def _bar(name, steps, step):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook without ipywidgets tqdm warns and then falls back to text
        from tqdm.auto import tqdm

        bar = tqdm(total=steps, initial=step, desc=name, unit="step")

    def write(rows):
        row = rows[-1][1]
        shown = "loss" if "loss" in row else next(iter(row), None)
        if shown is not None:
            bar.set_postfix({shown: f"{row[shown]:.4g}"}, refresh=False)
        bar.update(len(rows))

    with contextlib.closing(bar):
        yield write
