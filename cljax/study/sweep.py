"""A study from Python: arms x grid x seeds as a table, and the same table read back."""

import contextlib
import io
import json
import math
import os
import sys
import tempfile
import warnings
from pathlib import Path

from cljax.core import check
from cljax.core.lock import hold
from cljax.study import earlier, files, keys, plain, report
from cljax.study.execute import check_run, execute
from cljax.study.grid import check_arms, expand, parse_grid
from cljax.train.processes import is_first


def sweep(run, arms, *, seeds, grid=None, executor=None, out=None):
    """Runs every arm at every point of a grid with every seed, and gives one row a cell.

    Args:
      run: `run(config, key, fit) -> {metric: float or 1-D array}`; a run without the argument `fit` is called with (config, key). All cells of seed s
        get `jax.random.key(s)`.
      arms: `{name: config}`.
      seeds: how many seeds.
      grid: `{field: [values]}`; the cells are the product of all fields. `"optim.learning_rate"` is a field of a nested config.
      executor: any `concurrent.futures.Executor`, which gets cells as plain values; None runs them here in order. The numbers are the same, bit for
        bit.
      out: the folder of results, as `--out` of a script: `out/<experiment>/` gets `report.json`, `table.md` and a folder for each cell, and finished
        cells are read from there, not run again. The experiment is named by the file of `run`, in a notebook by the function. None keeps nothing.

    Returns:
      A pandas DataFrame with the columns `arm`, `seed`, a column a field of the grid, and a column a metric; a curve is an array. A cell that failed
      has NaN.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: an unknown field, a value that its field does not take, seeds below 1, a `run` that the executor's workers cannot find, a folder
        that cannot be written or that another process holds, or a run that returns something else than metrics.
      OSError: a result cannot be kept: no space. What was kept before stays.
    """
    check_run(run, executor)
    check_arms(arms)
    check.integer("seeds", seeds, at_least=1)
    grid = parse_grid(grid, arms.values())
    todo = expand(run, arms, grid, seeds)
    if out is None:
        results, _ = execute(run, todo, executor=executor)
    else:
        with opened(out, run) as folder:
            for line in prepare(folder, run, todo):
                print(line, file=sys.stderr)
            results, ran = execute(run, todo, folder / "cells", executor=executor)
            built, _ = report.build(folder.name, todo, results, seeds, grid=grid)
            publish(folder, todo, built, run, "study.sweep", fresh=ran > 0)
    return _frame([(cell.base, cell.seed, cell.point, results[cell.key].get("metrics")) for cell in todo])


def load(dir):
    """The table of a study that was run by a script or by `sweep`.

    Args:
      dir: the experiment's folder, `OUT/<experiment>`, or OUT where it holds one experiment.

    Returns:
      The DataFrame that `sweep` returned; cells that failed, or were not reached, have NaN.

    Raises:
      ValueError: the folder holds no study, or several, or its list of cells is damaged. Of a damaged result there is a warning.
    """
    folder = Path(dir)
    if not (folder / "cells.json").is_file():
        found = [path.parent for path in sorted(folder.glob("*/cells.json"))]
        if len(found) != 1:
            several = f"several experiments: {', '.join(path.name for path in found)}" if found else "none"
            raise ValueError(f"dir must be the folder of an experiment (it holds cells.json), got {folder}, in which there is {several}")
        folder = found[0]
    try:
        index = json.loads((folder / "cells.json").read_bytes())
        listed = [(cell["arm"], cell["seed"], {name: _tuples(value) for name, value in cell["set"].items()}, cell["key"]) for cell in index]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / 'cells.json'} is damaged: the command that made it writes it anew, and runs no finished cell again") from None
    rows = []
    for *cell, key in listed:
        result = files.finished(folder / "cells" / key, lambda path: warnings.warn(f"{path} is damaged: its cell counts as failed", stacklevel=4))
        rows.append((*cell, result and result["metrics"]))
    return _frame(rows)


def experiment_name(run):
    """The name of a study: that of the script's file; in a notebook, of the function."""
    path = plain.script(run)
    return path.stem if path else run.__name__


@contextlib.contextmanager
def opened(out, run):
    """Makes the experiment's folder and holds it: nobody else works there at the same time. Of several processes of one run the first does so.

    Raises:
      ValueError: the folder cannot be written, or another process holds it.
    """
    folder = Path(out).expanduser().absolute() / experiment_name(run)
    with contextlib.ExitStack() as stack:
        try:
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder / "cells"):
                pass
            if is_first() and not stack.enter_context(hold(folder)):
                print(f"{folder} is on a file system without locks: let one process at a time work there", file=sys.stderr)
        except OSError as error:
            raise ValueError(f"out must be a folder that can be written, got {os.fspath(out)!r}: {error.strerror or error}") from None
        yield folder


def prepare(folder, run, todo, *, population=False, restart=False):
    """Lists a study's cells in `cells.json`, describes each in its `config.json`, and gives lines on what is begun anew though it was there before.

    Raises:
      Unwritable: no space.
    """
    lines, fresh = [earlier.restart(folder / "cells", todo)] if restart else [], {}
    files.write(folder / "cells.json", _index(todo))
    for cell in todo:
        about = folder / "cells" / cell.key / "config.json"
        if not about.exists():
            depends = keys.facts(run, cell.config, cell.seed, population)
            fresh[cell.key] = cell, depends
    lines += [] if restart else earlier.changes(folder / "cells", fresh.values())
    for cell, depends in fresh.values():
        facts = {"experiment": folder.name, "arm": cell.arm, "seed": cell.seed, "config": plain.encode(cell.config, run.__module__)}
        facts |= {"script": str(plain.script(run) or ""), "depends": depends}
        files.write(folder / "cells" / cell.key / "config.json", files.dumps(facts))
    return lines


def _index(todo):
    return files.dumps([{"arm": cell.base, "seed": cell.seed, "set": cell.point, "key": cell.key} for cell in todo])


def publish(folder, todo, built, run, command, figures=None, fresh=True):
    """Writes report, table and pictures, all or none, and returns the names of the pictures; they are not drawn again where nothing has changed.

    Raises:
      Unwritable: no space.
    """
    text, before = files.dumps(built), files.published(folder)
    built = json.loads(text)
    same = not fresh and before.get("report.json") == text.encode()
    drawn = {name: content for name, content in before.items() if name.endswith(".png")} if same else {}
    drawn = drawn or _draw(built, figures)
    title = (getattr(sys.modules.get(run.__module__), "__doc__", None) or "").strip().partition("\n")[0]
    written = {"cells.json": _index(todo), "table.md": report.markdown(built, command, title, sorted(drawn)), "report.json": text}
    files.replace(folder, drawn | written, stale=[path.name for path in folder.glob("*.png") if path.name not in drawn])
    return sorted(drawn)


def _draw(built, figures):
    """The pictures, `{name: PNG}`."""
    from cljax.study.figures import default_figures

    figures = figures if any(built["arms"].values()) else None  # where every cell failed there is nothing to draw
    try:
        drawn = (figures or default_figures)(built)
    except Exception as error:  # with --arm or --set a picture may lack its arms; the numbers must not be lost for it
        if figures is None:
            raise
        print(f"figures: {type(error).__name__}: {error}; drawing the default pictures instead", file=sys.stderr)
        drawn = default_figures(built)
    pictures = {}
    for name, figure in drawn.items():
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=200)
        pictures[f"{name.replace('/', '-')}.png"] = buffer.getvalue()
    return pictures


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _frame(rows):
    """One row a cell; a metric is a curve where any cell says so."""
    import numpy as np
    import pandas as pd

    points = list(dict.fromkeys(name for _, _, point, _ in rows for name in point))
    metrics = list(dict.fromkeys(name for *_, found in rows if found for name in found))
    columns = {"arm": [row[0] for row in rows], "seed": [row[1] for row in rows]}
    for name in points:
        columns[name] = [row[2].get(name) for row in rows]
    for name in metrics:
        values = [row[3].get(name, math.nan) if row[3] else math.nan for row in rows]
        if any(isinstance(value, list) for value in values):
            column = np.empty(len(values), object)
            column[:] = [np.asarray(value) if isinstance(value, list) else None for value in values]
            values = column
        columns[name if name not in columns else f"metric {name}"] = values
    return pd.DataFrame(columns)
