"""A study from Python: arms x grid x seeds as a table, and the same table read back."""

import json
import math
import os
import sys
import tempfile
from pathlib import Path

from cljax.core import check
from cljax.study import cells, plain, report
from cljax.study.execute import check_run, execute
from cljax.study.grid import check_arms, expand, parse_grid


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
        that cannot be written, or a run that returns something else than metrics.
    """
    check_run(run, executor)
    check_arms(arms)
    check.integer("seeds", seeds, at_least=1)
    grid = parse_grid(grid, arms.values())
    todo = expand(run, arms, grid, seeds)
    folder = prepare(out, run, todo) if out is not None else None
    results, ran = execute(run, todo, folder and folder / "cells", executor=executor)
    if folder:
        built, _ = report.build(folder.name, todo, results, seeds, grid=grid)
        publish(folder, built, run, "study.sweep", fresh=ran > 0)
    return _frame([(cell.base, cell.seed, cell.point, results[cell.key].get("metrics")) for cell in todo])


def load(dir):
    """The table of a study that was run by a script or by `sweep`.

    Args:
      dir: the experiment's folder, `OUT/<experiment>`, or OUT where it holds one experiment.

    Returns:
      The DataFrame that `sweep` returned; cells that failed, or were not reached, have NaN.

    Raises:
      ValueError: the folder holds no study, or several.
    """
    folder = Path(dir)
    if not (folder / "cells.json").is_file():
        found = [path.parent for path in sorted(folder.glob("*/cells.json"))]
        if len(found) != 1:
            several = f"several experiments: {', '.join(path.name for path in found)}" if found else "none"
            raise ValueError(f"dir must be the folder of an experiment (it holds cells.json), got {folder}, in which there is {several}")
        folder = found[0]
    index = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    rows = []
    for cell in index:
        result = cells.finished(folder / "cells" / cell["key"])
        rows.append((cell["arm"], cell["seed"], {name: _tuples(value) for name, value in cell["set"].items()}, result and result["metrics"]))
    return _frame(rows)


def experiment_name(run):
    """The name of a study: that of the script's file; in a notebook, of the function."""
    path = plain.script(run)
    return path.stem if path else run.__name__


def prepare(out, run, todo):
    """Makes the experiment's folder, lists its cells in `cells.json`, describes each in its `config.json`, and returns the folder.

    Raises:
      ValueError: the folder cannot be written.
    """
    folder = Path(out).expanduser().absolute() / experiment_name(run)
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "cells"):
            pass
        index = [{"arm": cell.base, "seed": cell.seed, "set": cell.point, "key": cell.key} for cell in todo]
        cells.write(folder / "cells.json", cells.dumps(index))
        for cell in todo:
            about = folder / "cells" / cell.key / "config.json"
            if not about.exists():
                facts = {"experiment": folder.name, "arm": cell.arm, "seed": cell.seed, "config": plain.encode(cell.config, run.__module__)}
                cells.write(about, cells.dumps(facts | {"script": str(plain.script(run) or "")}))
    except OSError as error:
        raise ValueError(f"out must be a folder that can be written, got {os.fspath(out)!r}: {error.strerror or error}") from None
    return folder


def publish(folder, built, run, command, figures=None, fresh=True):
    """Writes report, table and pictures, and returns the names of the pictures; they are not drawn again where nothing has changed."""
    text, table, old = cells.dumps(built), folder / "table.md", folder / "report.json"
    built = json.loads(text)
    same = not fresh and table.exists() and old.exists() and old.read_text(encoding="utf-8") == text
    pictures = sorted(path.name for path in folder.glob("*.png"))
    if not (same and pictures):
        for name in ["table.md", *pictures]:  # the table is written last: its presence says that all pictures are there
            (folder / name).unlink(missing_ok=True)
        cells.write(old, text)
        pictures = _draw(folder, built, figures)
    title = (getattr(sys.modules.get(run.__module__), "__doc__", None) or "").strip().partition("\n")[0]
    cells.write(table, report.markdown(built, command, title, pictures))
    return pictures


def _draw(folder, built, figures):
    from cljax.study.figures import default_figures

    try:
        drawn = (figures or default_figures)(built)
    except Exception as error:  # with --arm or --set a picture may lack its arms; the numbers must not be lost for it
        if figures is None:
            raise
        print(f"figures: {type(error).__name__}: {error}; drawing the default pictures instead", file=sys.stderr)
        drawn = default_figures(built)
    names = []
    for name, figure in drawn.items():
        names.append(f"{name.replace('/', '-')}.png")
        figure.savefig(folder / names[-1], dpi=200)
    return sorted(names)


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
