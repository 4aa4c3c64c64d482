"""What the folder of a study holds of earlier runs: which cells begin anew, and why."""

import collections
import json

from cljax.study import files

_NAMES = {
    "config": "its config",
    "run": "its function",
    "script": "the script",
    "package": "the source of cljax",
    "jax": "the version of jax or one of its settings",
    "population": "whether seeds run as one program",
}


def changes(folder, fresh):
    """Lines that say which cells were begun before by something else than now, what has changed since, and where they are kept.

    Args:
      folder: of the cells.
      fresh: pairs of a cell that has no folder yet and of what it depends on, `keys.facts`.
    """
    before = {}
    for about in sorted(folder.glob("*/config.json"), key=lambda path: path.stat().st_mtime) if fresh else ():
        try:
            known = json.loads(about.read_text(encoding="utf-8"))
            before[known["arm"], known["seed"]] = about.parent, known["depends"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    found = collections.defaultdict(list)
    for cell, facts in fresh:
        place, then = before.get((cell.arm, cell.seed), (None, None))
        if place is not None:
            names = tuple(name for name in _NAMES if then.get(name) != facts.get(name))
            found[names, (place / "result.json").exists()].append((cell, place))
    for (names, is_finished), pairs in found.items():
        (cell, place), count = pairs[0], len(pairs)
        what = " and ".join(_NAMES[name] for name in names) or "something"
        which = f"{cell.arm}, seed {cell.seed}," if count == 1 else f"{count} cells"
        state = "was finished" if count == 1 else "were finished"
        state = state if is_finished else f"{state.replace('finished', 'half done')}"
        yield f"{what} changed since {which} {state}: begun anew; what there was is kept in {place if count == 1 else place.parent}"


def restart(folder, todo):
    """Sets the cells aside, finished or not, and returns a line that says so."""
    places = [files.set_aside(folder / key) for key in dict.fromkeys(cell.key for cell in todo) if (folder / key).is_dir()]
    return f"{len(places)} cell{'s' * (len(places) != 1)} set aside in {folder.parent / 'aside'}" if places else "no cell to set aside"
