"""The report of a study: numbers over seeds as JSON, as a Markdown table, as text for a terminal; and one page over all studies of a folder."""

import functools
import importlib.metadata
import json
import math
import platform
import sys
from pathlib import Path

from cljax.study import files
from cljax.study.claims import VERDICTS, assess, estimate, met
from cljax.study.grid import label, points

_PACKAGES = ("cljax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def build(experiment, todo, results, seeds, claims=(), known=(), grid=None):
    """The report of a study as plain values, and what is wrong with its claims.

    Claims are judged at each point of the grid on the arms of that point; with several points an entry's name ends in its point, `[field=v]`. A claim
    whose arms were not run has an entry without values, `not shown`.

    Args:
      experiment: its name.
      todo: the cells.
      results: `{key: result}`.
      seeds: how many.
      claims: a list of `Claim`.
      known: the names of all arms of the script.
      grid: the grid in the form of `grid.parse_sets`.

    Returns:
      `{"experiment", "seeds", "arms", "claims", "failed", "data", "versions", "device", "seconds"}`, with tuples and numbers as they are
      (`files.dumps` makes JSON of it), and a list of lines. `seconds` is what the cells took, whenever they ran.
    """
    arms = {}
    for cell in todo:
        arms.setdefault(cell.arm, []).append(results[cell.key].get("metrics"))
    table = {}
    for arm, rows in arms.items():
        names = list(dict.fromkeys(name for row in rows if row for name in row))
        table[arm] = {}
        for name in names:
            values = [row.get(name) if row else None for row in rows]
            mean, interval = estimate(values)
            table[arm][name] = {"values": values, "mean": mean, "interval": interval}
    entries, problems = _judged(todo, results, seeds, claims, known, [label(point) for point in points(grid or {})])
    done = [result for result in {cell.key: results[cell.key] for cell in todo}.values() if "metrics" in result]
    failed = [{"arm": cell.arm, "seed": cell.seed, "reason": last_line(results[cell.key]["error"])} for cell in todo if "error" in results[cell.key]]
    report = {
        "experiment": experiment,
        "seeds": seeds,
        "arms": table,
        "claims": entries,
        "failed": failed,
        "data": functools.reduce(lambda found, result: found | result["data"], done, {}),
        "versions": versions(),
        "device": "; ".join(dict.fromkeys(result["device"] for result in done)),
        "seconds": round(sum(result["seconds"] for result in done), 3),
    }
    return report, problems


def last_line(text):
    """The line of a traceback that says what happened; JAX adds a note on its own frames below it."""
    lines = [line.strip() for line in text.splitlines() if line.strip().strip("-") and not line.startswith("For simplicity, JAX has removed")]
    return lines[-1] if lines else ""


def _judged(todo, results, seeds, claims, known, suffixes):
    """The entries of all claims and what is wrong with any; a claim that has no value at any of several points gets one entry for them all."""
    arms = {suffix: [{} for _ in range(seeds)] for suffix in suffixes}
    for cell in todo:
        metrics = results[cell.key].get("metrics")
        if metrics is not None:
            arms[cell.arm.removeprefix(cell.base)][cell.seed][cell.base] = {name: _array(value) for name, value in metrics.items()}
    entries, problems = [], []
    for claim in claims:
        names = {suffix: claim.name + suffix if len(suffixes) > 1 else claim.name for suffix in suffixes}
        found = [assess(claim, arms[suffix], known, names[suffix], changed=bool(suffix)) for suffix in suffixes]
        problems += [problem for _, problem in found if problem]
        judged = [entry for entry, _ in found if has_value(entry)]
        entries += judged or [found[0][0] | {"name": claim.name}]
    return entries, problems


def has_value(entry):
    """Whether a claim has a value on any seed."""
    return any(value is not None for value in entry["values"])


def _array(value):
    import numpy as np

    return np.asarray(value) if isinstance(value, list) else value


def versions():
    """The versions that the numbers were made with."""
    result = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def read(folder):
    """The report in a folder; None where its file is damaged, can't be read, or is something else's."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        markdown(report)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return report


def number(mean, interval=None, values=None):
    """`0.955 ± 0.012` with two digits of the half interval, `(3 of 5)` where seeds failed, `-` where there is nothing."""
    count = "" if values is None or None not in values else f" ({sum(value is not None for value in values)} of {len(values)})"
    if mean is None:
        return f"-{count}"
    half = (interval[1] - interval[0]) / 2 if interval else 0
    if half <= 0:
        return f"{mean:.4g}" + (" ± 0" if interval else "") + count
    digits = 1 - math.floor(math.log10(half))
    if not -4 < digits < 7:
        return f"{mean:.4g} ± {half:.1g}{count}"
    return f"{mean:.{max(digits, 0)}f} ± {half:.{max(digits, 0)}f}{count}"


def bounds(entry):
    """The bounds of a claim in words."""
    kinds = {"at least": entry["at_least"], "at most": entry["at_most"]}
    return ", ".join(f"{words} {value:g}" for words, value in kinds.items() if value is not None)


def expectation(entry):
    """The expected size of a claim with `met` or `not met`, or nothing."""
    reached = met(entry["mean"], entry["at_least"], entry["at_most"], entry["expected"])
    if entry["expected"] is None:
        return ""
    return f"{entry['expected']:g}" + {True: ", met", False: ", not met", None: ""}[reached]


def _value(entry):
    if not has_value(entry):
        return f"does not apply: no arm measures {entry['lacks']!r} here" if "lacks" in entry else "no value (not run, or failed)"
    return number(entry["mean"], entry["interval"], entry["values"])


def scalar_metrics(report):
    """The names of the metrics that are one number a seed, in the order of the first arm that has them."""
    return _metrics(report, curve=False)


def curve_metrics(report):
    """The names of the metrics that are curves."""
    return _metrics(report, curve=True)


def _metrics(report, curve):
    names = {}
    for metrics in report["arms"].values():
        for name, entry in metrics.items():
            names[name] = names.get(name, False) or any(isinstance(value, list) for value in entry["values"])
    return [name for name, is_curve in names.items() if is_curve == curve]


def rows(report, names):
    """The table of arms x metrics as texts, its heading first."""
    body, failed = [], {entry["arm"] for entry in report.get("failed", ())}
    for arm, metrics in report["arms"].items():
        absent = "failed" if not metrics and arm in failed else "-"
        body.append([arm, *(number(**metrics[name]) if name in metrics else absent for name in names or ["result"])])
    return [["arm", *(names or ["result"])], *body]


def claim_rows(report):
    """The table of claims as texts, its heading first."""
    return [["verdict", "claim", "value", "bound", "expected"]] + [
        [entry["verdict"], entry["name"], _value(entry), bounds(entry), expectation(entry)] for entry in report["claims"]
    ]


def failed_rows(report):
    """The table of failed cells as texts, its heading first; equal reasons of an arm's seeds on one row."""
    groups = {}
    for entry in report.get("failed", ()):
        groups.setdefault((entry["arm"], entry["reason"]), []).append(str(entry["seed"]))
    return [["failed", "seeds", "reason"], *([arm, ", ".join(seeds), reason] for (arm, reason), seeds in groups.items())]


def text(report, width=120):
    """The report for a terminal: the table, cut into blocks of columns that fit the width, the verdicts, and what failed."""
    lines = [f"{report['experiment']}: {_size(report)}", ""]
    names = scalar_metrics(report)
    if not names and report.get("failed"):
        lines += [*_columns(rows(report, [])), ""]
    while names:
        count = len(names)
        while count > 1 and len(_columns(rows(report, names[:count]))[0]) > width:
            count -= 1
        lines += [*_columns(rows(report, names[:count])), ""]
        names = names[count:]
    if report["claims"]:
        lines += [*_columns(claim_rows(report)), ""]
    if report.get("failed"):
        lines += [*_columns([[*row[:2], row[2][: max(width - 40, 40)]] for row in failed_rows(report)]), ""]
    return "\n".join(lines)


def _size(report):
    seeds = report["seeds"]
    return f"{len(report['arms'])} arm{'s' * (len(report['arms']) != 1)} x {seeds} seed{'s' * (seeds != 1)}" + (
        ", mean ± half of the 95 % interval" if seeds > 1 else "; no intervals"
    )


def _columns(table):
    table = [row for row in zip(*(column for column in zip(*table, strict=True) if any(column[1:])), strict=True)]  # empty columns are left out
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip() for row in table]


def markdown(report, command="", title="", pictures=(), level=1, folder=""):
    """The report as Markdown: table, claims, pictures, and where the numbers come from.

    Args:
      report: the report.
      command: what made it.
      title: what the experiment is, one line.
      pictures: the names of the PNG files.
      level: of the heading.
      folder: what stands before the names of the files.
    """
    lines = [f"{'#' * level} {report['experiment']}", ""]
    lines += [title, ""] if title else []
    lines += [f"{_size(report)}.", "", *_pipes(rows(report, scalar_metrics(report))), ""]
    if report["claims"]:
        lines += [f"{'#' * (level + 1)} Claims", "", *_pipes(claim_rows(report)), ""]
    if report.get("failed"):
        lines += [f"{'#' * (level + 1)} Failed cells", "", *_pipes(failed_rows(report)), ""]
    lines += [line for name in pictures for line in (f"![{Path(name).stem}]({_link(folder + name)})", "")]
    data = "; ".join(f"{name} ({', '.join(f'{fact} {value}' for fact, value in facts.items())})" for name, facts in report["data"].items())
    facts = {
        "data": data,
        "device": report["device"],
        "seconds": f"{report['seconds']:.1f}",
        "versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "command": f"`{command}`" if command else "",
    }
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join(lines) + "\n"


def _pipes(table):
    table = [[entry.replace("|", "\\|") for entry in row] for row in table]
    head, *body = table
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]]


def _link(path):
    return path.replace(" ", "%20")


def page(out):
    """Writes `report.md` over every experiment of a folder, and returns its path; of a report that can't be read a line says so.

    Raises:
      ValueError: the folder holds no report.
    """
    out = Path(out)
    reports = {path.parent.name: read(path.parent) for path in sorted(out.glob("*/report.json"))}
    for name in [name for name, report in reports.items() if report is None]:
        print(f"{out / name / 'report.json'} is damaged, or no report: left out; the command that made it writes it anew", file=sys.stderr)
        del reports[name]
    if not reports:
        raise ValueError(f"out must be a folder in which an experiment has written its report (OUT/<experiment>/report.json), got {out}")
    overview = [["experiment", "arms", "seeds", *VERDICTS, "seconds"]]
    for name, report in reports.items():
        counts = [sum(entry["verdict"] == verdict for entry in report["claims"]) for verdict in VERDICTS]
        overview.append(
            [f"[{name}](#{name.lower().replace(' ', '-')})", *map(str, (len(report["arms"]), report["seeds"], *counts)), f"{report['seconds']:.0f}"]
        )
    lines = ["# Experiments", "", "Claims by verdict; each experiment's numbers and pictures below.", "", *_pipes(overview), ""]
    claims = [[name, *row] for name, report in reports.items() for row in claim_rows(report)[1:]]
    if claims:
        lines += ["## All claims", "", *_pipes([["experiment", *claim_rows(report)[0]], *claims]), ""]
    for name, report in reports.items():
        pictures = sorted(path.name for path in (out / name).glob("*.png"))
        lines += [
            markdown(report, pictures=pictures, level=2, folder=f"{name}/"),
            f"[table]({_link(f'{name}/table.md')}) · [numbers]({_link(f'{name}/report.json')})",
            "",
        ]
    files.write(out / "report.md", "\n".join(lines))
    return out / "report.md"
